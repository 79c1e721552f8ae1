import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from jepa_agent import JEPA, agent
from jepa_agent.acting.mode_switch import AutoMode, PlannerMode
from jepa_agent.config import PlannerConfig
from jepa_agent.objectives.costs import FeatureCost, LearnedCost, SmoothnessCost
from jepa_agent.objectives.experience import gather_experience

FEW = {"num_samples": 16, "num_elites": 4, "horizon": 4}


@pytest.fixture(params=["CartPole-v1", "Pendulum-v1"])
def model(request, small):
    return small(request.param, learning_starts=1_000).learn(220)


@pytest.fixture
def few(model):
    """A planner that takes no time."""
    return PlannerConfig(kind="cem", **FEW)


def first(z):
    return z[..., 0]


def last(z):
    return -z[..., 0]


def act(model, count=4):
    obs = np.linspace(-0.5, 0.5, count)[:, None] * np.ones(model.observation_space.shape[0])
    return model.predict(obs.astype(np.float32), deterministic=True)[0]


def test_plans_follow_the_cost_that_is_set_and_the_learned_one_once_it_is_gone(model, few):
    usual = act(model)
    model.set_cost(first, few)
    one = act(model)
    model.set_cost(last, few)
    other = act(model)
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(act(model), other)
    model.set_cost(None)
    np.testing.assert_array_equal(act(model), usual)


@pytest.mark.parametrize(("env", "steps", "samples"), [("CartPole-v1", 48, 96), ("Pendulum-v1", 16, 0)])
def test_how_far_asked_costs_look_by_default(small, env, steps, samples):
    model = small(env)
    model.set_cost(first)
    assert model.policy.planner.horizon == steps
    assert model.policy.planner.actor_samples == samples
    np.testing.assert_allclose(act(model, 2)[:1], act(model, 1), atol=1e-4)  # the first row is the same


def test_features_are_learned_as_far_ahead_as_plans_look(model, few, monkeypatch):
    asked, gather = [], agent.gather_experience
    monkeypatch.setattr(agent, "gather_experience", lambda *args: asked.append(args[-1]) or gather(*args))
    model.set_cost(first, few)
    assert asked == [few.horizon]


def test_what_a_cost_sees_is_not_what_images_are_made_into_for_learning(small):
    model = small("JEPA/BrightOrDark-v0").learn(60)
    model.policy.set_training_mode(True)
    before = torch.get_rng_state()
    model.set_cost(first, PlannerConfig(horizon=2))
    assert torch.equal(before, torch.get_rng_state())
    assert not model.policy.training


def test_a_cost_is_used_for_the_length_of_a_block_whatever_happens_in_it(model, few):
    with model.using_cost(first, few):
        inside = act(model)
        with pytest.raises(KeyError), model.using_cost(last, few):
            raise KeyError
        np.testing.assert_array_equal(act(model), inside)
        assert isinstance(model.policy.mode_switch, PlannerMode)
    assert model.cost is None
    assert isinstance(model.policy.mode_switch, AutoMode)
    assert model.policy.planner.horizon == 3


def test_what_is_found_costs_less_than_what_the_actor_would_do(model, few):
    policy = model.policy
    with model.using_cost(first, few), torch.no_grad():
        buffer = model.replay_buffer
        z = model.world_model.encode(buffer.window(*buffer.spread(6), 1).obs[:, 0])
        _, gain, spread = policy.deliberate(z, torch.zeros(6, 4, policy.action_dim), torch.Generator())
    assert (gain >= 0).all()
    assert gain.max() > 0
    assert not spread.any()


def test_nothing_is_learned_and_nothing_random_is_drawn_when_a_cost_is_set(model, few):
    before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    model.set_cost(LearnedCost() + FeatureCost(lambda x: x[..., 0]), few)
    act(model)
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])
    after = model.policy.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(ValueError, match="learning follows the environment's reward"):
        model.learn(10)


def test_a_cost_that_is_refused_changes_nothing(model):
    usual = act(model)
    with pytest.raises(ValueError, match="the cost returned"):
        model.set_cost(lambda z: z)
    with pytest.raises(ValueError, match="does not fit"):
        model.set_cost(first, PlannerConfig(kind="exhaustive" if model.policy.squash_output else "mppi"))
    assert model.cost is None
    np.testing.assert_array_equal(act(model), usual)


def test_other_modes_are_refused_while_a_cost_is_set(model, few):
    with model.using_cost(first, few):
        with pytest.raises(ValueError, match="leans on the actor"):
            model.set_mode("auto")
        model.set_mode("planner")
    assert isinstance(model.policy.mode_switch, AutoMode)


def test_saving_leaves_the_cost_out(model, few, tmp_path):
    usual = act(model)
    with model.using_cost(first, few):
        model.save(tmp_path / "agent")
    loaded = JEPA.load(tmp_path / "agent", device="cpu")
    assert loaded.cost is None
    np.testing.assert_array_equal(act(loaded), usual)


def test_vectorised_environments_are_planned_for_side_by_side(model, few):
    env = make_vec_env(model.env.envs[0].spec.id, 3, seed=0)
    with model.using_cost(first, few):
        obs, state = env.reset(), None
        for _ in range(2):
            together, state = model.predict(obs, state, deterministic=True)
        alone = [model.predict(obs[i], deterministic=True)[0] for i in range(3)]
        assert together.shape[0] == 3
        np.testing.assert_allclose(model.predict(obs, deterministic=True)[0], np.stack(alone), atol=1e-4)


def test_costs_see_observations_as_the_environment_gives_them_under_vecnormalize(small):
    env = VecNormalize(make_vec_env("CartPole-v1", 2, seed=0))
    model = small(env, learning_starts=1_000).learn(300)
    experience = gather_experience(model.policy, model.replay_buffer, model._vec_normalize_env, 1)
    assert np.abs(experience.obs).max() < 4.0
    seen, _ = model.policy.obs_to_tensor(env.normalize_obs(experience.obs))
    encoded = torch.isclose(experience.z, model.world_model.encode(seen).detach(), atol=1e-5).all(-1)
    assert encoded[::2].all()
    assert encoded[1::2].float().mean() < 0.1  # imagined one step before


def test_what_is_imagined_is_held_against_what_was_observed_as_many_steps_later(small, monkeypatch):
    model = small(make_vec_env("CartPole-v1", 2, seed=0), learning_starts=1_000).learn(300)
    steps = torch.arange(4.0)

    def number(z, actions):
        return torch.cat([z[:, None, :-1].expand(-1, 4, -1), steps.expand(len(z), -1).unsqueeze(-1)], dim=-1)

    monkeypatch.setattr(model.world_model, "imagine", number)
    obs, z, _ = gather_experience(model.policy, model.replay_buffer, model._vec_normalize_env, 3)
    stored = torch.from_numpy(model.replay_buffer.observations[:150])  # (T, n_envs, 4)
    started = (model.world_model.encode(stored)[..., :-1] - z[:, None, None, :-1]).square().sum(-1).flatten(1).argmin(1)
    distance = (stored - torch.from_numpy(obs)[:, None, None]).square().sum(-1).flatten(1)
    found = distance.amin(1) == 0  # but for an episode's last observations
    assert found.float().mean() > 0.8
    later = distance.argmin(1) - started
    torch.testing.assert_close(later[found].float(), 2 * z[found, -1])  # two environments lie side by side
    assert not z[::2, -1].any()
    assert set(z[1::2, -1].tolist()) == {1.0, 2.0, 3.0}


def test_a_cost_that_cannot_be_descended_is_refused_before_the_first_step(small):
    model = small("Pendulum-v1")
    usual = act(model)
    with pytest.raises(ValueError, match="numpy"):
        model.set_cost(lambda z: torch.from_numpy(z.numpy()[..., 0]), PlannerConfig(kind="gradient", horizon=3))
    assert model.cost is None
    np.testing.assert_array_equal(act(model), usual)


def test_a_cost_set_in_inference_mode_can_be_descended_afterwards(small):
    model = small("Pendulum-v1", learning_starts=1_000).learn(220)
    with torch.inference_mode():
        model.set_cost(FeatureCost(lambda x: x[..., 0]), PlannerConfig(kind="gradient", horizon=3))
    assert np.isfinite(act(model)).all()


@pytest.mark.parametrize("env", ["JEPA/BrightOrDark-v0", "JEPA/PictureAndNumber-v0", "JEPA/ConstantReward-v0"])
def test_pairs_of_what_was_seen_and_its_latent_belong_together_whatever_is_seen(small, env):
    model = small(gym.make(env), learning_starts=1_000).learn(100)
    model.policy.set_training_mode(False)
    met, z, encode = gather_experience(model.policy, model.replay_buffer, model._vec_normalize_env, 1)
    torch.testing.assert_close(encode(met)[::2], z[::2], atol=1e-5, rtol=0)


def test_a_planner_that_cannot_plan_for_the_cost_that_is_set_is_refused_and_nothing_changes(small):
    model = small("Pendulum-v1")
    model.set_cost(lambda z: torch.from_numpy(z.numpy())[..., 0], PlannerConfig(kind="cem", horizon=2))
    before, planner = act(model), model.policy.planner
    with pytest.raises(ValueError, match="requires grad"):
        model.set_planner(PlannerConfig(kind="gradient", horizon=2))
    assert model.policy.planner == planner
    np.testing.assert_array_equal(act(model), before)


def test_a_smooth_agent_is_told_which_action_it_executed_last(small):
    model = small("Pendulum-v1", learning_starts=1_000).learn(220)
    obs = model.replay_buffer.observations[:20, 0]
    changes = {}
    for name, cost in (("free", LearnedCost()), ("smooth", LearnedCost() + 1e4 * SmoothnessCost())):
        with model.using_cost(cost, PlannerConfig(kind="cem", **FEW)):
            state, actions = None, []
            for seen in obs:
                action, state = model.predict(seen, state, deterministic=True)
                actions.append(action)
        changes[name] = float(np.square(np.diff(actions, axis=0)).mean())
    assert changes["smooth"] < 0.5 * changes["free"]
