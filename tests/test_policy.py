import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor

from jepa_agent import JEPA
from jepa_agent.acting.mode_switch import AutoMode, ModeSwitch
from jepa_agent.config import PlannerConfig
from jepa_agent.planning import CategoricalCEM, GradientPlanner, Planner, make_planner
from jepa_agent.policy import JEPAPolicy

MODES = ("actor", "planner", "auto", "every_2")
ENVS = ("CartPole-v1", "Pendulum-v1")


@pytest.fixture(params=ENVS)
def model(request, small):
    return small(request.param)


def observations(model, count=3):
    model.observation_space.seed(0)
    return np.stack([np.clip(model.observation_space.sample(), -1, 1) for _ in range(count)])


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_is_predicted_as_its_rows_are(model, mode):
    model.set_mode(mode)
    obs = observations(model)
    state, states = None, [None] * 3
    for _ in range(3):
        together, state = model.predict(obs, state, deterministic=True)
        alone = [model.predict(obs[i], states[i], deterministic=True) for i in range(3)]
        states = [s for _, s in alone]
        np.testing.assert_allclose(together, np.stack([a for a, _ in alone]), atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_deterministic_prediction_repeats_itself_and_draws_from_no_global_generator(model, mode):
    model.set_mode(mode)
    obs = observations(model)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    own_before = model.policy.generator.get_state()
    first, second = (model.predict(obs, deterministic=True)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch_before, torch.get_rng_state())
    assert torch.equal(own_before, model.policy.generator.get_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def test_an_episode_start_forgets_its_row_only(model):
    obs = observations(model)
    _, state = model.predict(obs)
    _, after = model.predict(obs, state, episode_start=np.array([True, False, False]))
    assert after[-1].tolist() == [1, 2, 2]


def test_surprise_is_what_the_prediction_of_the_last_step_missed(model):
    model.set_mode("planner")
    policy, world = model.policy, model.world_model
    before, after = (policy.obs_to_tensor(obs)[0] for obs in observations(model, 2))
    first, memory = policy.act(before, policy.recall(None, 1), deterministic=True)
    expected = world.predict(memory.latent, memory.action)
    second, _ = policy.act(after, memory, deterministic=True)
    torch.testing.assert_close(second.surprise, (world.encode(after) - expected).square().mean(-1).sqrt())
    assert second.surprise > 0
    assert first.surprise == 0  # nothing was expected of the first step


def test_mode_1_alone_leaves_an_empty_memory(model):
    model.set_mode("planner")
    obs = observations(model)
    _, state = model.predict(obs, deterministic=True)
    assert any(array.any() for array in state)
    model.set_mode("actor")
    _, state = model.predict(obs, state, deterministic=True)
    assert not any(array.any() for array in state)
    assert [array.shape for array in state] == [tuple(field.shape) for field in model.policy.recall(None, 3)]


def test_an_episode_start_of_the_wrong_length_is_refused(model):
    with pytest.raises(ValueError, match=r"shape \(2,\) for 3"):
        model.predict(observations(model), episode_start=np.array([True, False]))


def test_actions_never_pass_their_bounds_by_rounding(small):
    class Tight(gym.Env):
        observation_space = spaces.Box(-1, 1, (1,))
        action_space = spaces.Box(np.float32(-0.13210486), np.float32(0.12573022), (1,))

    policy = small(Tight()).policy
    for end in (-1.0, 1.0):
        assert policy.action_space.contains(policy.to_env(torch.tensor([[end]]))[0])


def test_the_callers_state_is_not_written_into(model):
    obs = observations(model)
    _, state = model.predict(obs)
    kept = [array.copy() for array in state]
    model.predict(obs, state, episode_start=np.ones(3, dtype=bool))
    assert all(np.array_equal(a, b) for a, b in zip(state, kept, strict=True))


def test_planning_touches_no_parameters_gradient(model):
    model.set_mode("planner")
    model.predict(observations(model))
    assert all(p.grad is None for p in model.policy.parameters())


class OnlyRow(ModeSwitch):
    """Plans for row 1 alone."""

    def wants_plan(self, situation):
        return torch.arange(len(situation.surprise)) == 1


def test_modes_are_mixed_per_environment(model):
    obs = observations(model)
    tensor, _ = model.policy.obs_to_tensor(obs)
    decisions = {}
    for mode in ("actor", "planner", OnlyRow()):
        model.set_mode(mode)
        decisions[mode], _ = model.policy.act(tensor, model.policy.recall(None, 3), deterministic=True)
    actor, planner, mixed = decisions.values()
    assert mixed.planned.tolist() == [False, True, False]
    torch.testing.assert_close(mixed.action[[0, 2]], actor.action[[0, 2]])
    torch.testing.assert_close(mixed.action[1], planner.action[1], atol=1e-4, rtol=0)
    assert mixed.plan_spread[0] == 0 < mixed.plan_spread[1]


def test_what_reset_returns_is_refused_with_the_remedy(model):
    with pytest.raises(ValueError, match=r"obs, info = env.reset\(\)"):
        model.predict(model.get_env().envs[0].reset())


def test_a_wrong_observation_shape_is_refused(model):
    with pytest.raises(ValueError, match="shape"):
        model.predict(np.zeros((2, 9)))


def test_actions_respect_odd_bounds_and_shapes(small):
    class Odd(gym.Env):
        observation_space = spaces.Box(-1, 1, (2, 2))
        action_space = spaces.Box(np.array([[-3.0], [10.0]]), np.array([[-1.0], [10.5]]), dtype=np.float64)

        def reset(self, *, seed=None, options=None):
            return np.zeros((2, 2), np.float32), {}

        def step(self, action):
            assert self.action_space.contains(action)
            return np.zeros((2, 2), np.float32), 0.0, False, True, {}

    model = small(Odd(), mode="planner")
    model.learn(25)
    action, _ = model.predict(np.zeros((2, 2)))
    assert model.action_space.contains(action)
    np.testing.assert_allclose(
        model.policy.unscale_action(model.policy.from_env(action[None]).numpy().reshape(2, 1)), action
    )


def test_discrete_actions_start_where_the_space_does(small):
    class Shifted(gym.Env):
        observation_space = spaces.Discrete(2)
        action_space = spaces.Discrete(2, start=7)

        def reset(self, *, seed=None, options=None):
            return 0, {}

        def step(self, action):
            assert action in (7, 8)
            return 1, float(action == 8), True, False, {}

    model = small(Shifted()).learn(200)
    for mode in ("actor", "planner"):
        model.set_mode(mode)
        assert model.predict(np.array([0]), deterministic=True)[0].tolist() == [8]


def test_policy_saves_and_loads_alone(model, tmp_path):
    model.policy.save(tmp_path / "policy.pth")
    again = JEPAPolicy.load(tmp_path / "policy.pth", device="cpu")
    obs = observations(model)
    np.testing.assert_array_equal(again.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


class Doubled(BaseFeaturesExtractor):
    """A user's extractor."""

    def __init__(self, observation_space, features_dim=3):
        super().__init__(observation_space, features_dim)
        self.net = torch.nn.Linear(spaces.flatdim(observation_space), features_dim)

    def forward(self, obs):
        return self.net(2.0 * obs)


@pytest.mark.parametrize(
    ("env", "extractor", "settings"),
    [("Pendulum-v1", Doubled, {"features_dim": 5}), ("JEPA/PictureAndNumber-v0", CombinedExtractor, {"cnn_output_dim": 8})],
)
def test_a_features_extractor_feeds_the_encoder_and_is_asked_for_at_loading_if_it_is_the_users(
    small, tmp_path, env, extractor, settings
):
    env = gym.make(env)
    if extractor is CombinedExtractor:  # its own convolutions want pictures of 36 pixels and more
        env = gym.wrappers.TransformObservation(
            env,
            lambda obs: {**obs, "picture": obs["picture"].repeat(3, 0).repeat(3, 1)},
            spaces.Dict({**env.observation_space.spaces, "picture": spaces.Box(0, 255, (48, 48, 3), np.uint8)}),
        )
    kwargs = {"features_extractor_class": extractor, "features_extractor_kwargs": settings}
    model = small(env, policy_kwargs=kwargs)
    before = [p.clone() for p in model.world_model.encoder.features.parameters()]
    model.learn(40)
    after = model.world_model.encoder.features.parameters()
    assert all(not torch.equal(p, q) for p, q in zip(before, after, strict=True))
    model.save(tmp_path / "agent")
    if extractor is Doubled:
        with pytest.raises(ValueError, match="custom_objects"):
            JEPA.load(tmp_path / "agent", device="cpu")
    again = JEPA.load(tmp_path / "agent", device="cpu", custom_objects={"policy_kwargs": model.policy_kwargs})
    obs = model.get_env().reset()
    np.testing.assert_array_equal(again.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_what_is_no_features_extractor_is_refused(small):
    with pytest.raises(ValueError, match="subclass of stable_baselines3's BaseFeaturesExtractor"):
        small("Pendulum-v1", policy_kwargs={"features_extractor_class": torch.nn.Linear})


def test_an_optimizer_of_ones_own_takes_its_own_settings(small):
    kwargs = {"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {"momentum": 0.5}}
    optimizer = small("Pendulum-v1", policy_kwargs=kwargs).learn(40).policy.optimizer
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.param_groups[0]["momentum"] == 0.5


def test_an_architecture_by_parts_of_other_algorithms_is_refused_with_what_to_say_instead(small):
    with pytest.raises(ValueError, match=r"net_arch must be a list of widths.*head_arch of the actor"):
        small("Pendulum-v1", policy_kwargs={"net_arch": {"pi": [8], "qf": [8]}})


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy", "MultiInputPolicy"])
def test_sb3s_names_of_policies_are_one_policy(policy):
    assert type(JEPA(policy, "Pendulum-v1", policy_kwargs={"latent_dim": 8}, device="cpu").policy) is JEPAPolicy


def test_a_copy_is_independent(model):
    twin = copy.deepcopy(model.policy)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert any(parameter.abs().sum() > 0 for parameter in model.policy.parameters())


def test_several_environments_side_by_side(small):
    model = small(make_vec_env("Pendulum-v1", 3), mode="planner").learn(90)
    assert model.num_timesteps == 90
    assert model.predict(model.get_env().reset())[0].shape == (3, 1)


def test_a_plan_is_followed_for_replan_every_steps_and_an_episodes_start_ends_it(model):
    horizon = model.policy.planner.horizon
    model.set_planner(PlannerConfig(replan_every=3))
    model.set_mode("planner")
    obs, _ = model.policy.obs_to_tensor(observations(model))
    memory, searched, plans = model.policy.recall(None, 3), [], []
    for t in range(5):
        if t == 2:
            memory = memory.clear(torch.tensor([False, True, False]))
        decision, memory = model.policy.act(obs, memory, deterministic=True)
        searched.append(decision.searched.tolist())
        plans.append(memory.plan)
        assert decision.planned.all()
        torch.testing.assert_close(decision.action, memory.plan[:, 0])
    assert searched == [[True] * 3, [False] * 3, [False, True, False], [True, False, True], [False] * 3]
    torch.testing.assert_close(plans[1][:, : horizon - 1], plans[0][:, 1:])
    assert not decision.searched.any()  # nothing new was found that the actor could imitate


def test_where_the_switch_refused_the_plan_nothing_is_followed(model):
    model.set_planner(PlannerConfig(replan_every=2))
    model.set_mode(AutoMode(confidence=1e9))
    obs, _ = model.policy.obs_to_tensor(observations(model))
    memory = model.policy.recall(None, 3)
    for _ in range(2):
        decision, memory = model.policy.act(obs, memory, deterministic=True)
        assert decision.searched.all()
        assert not decision.planned.any()


def test_another_planner_takes_over_without_retraining(model):
    model.set_mode("planner")
    obs = observations(model)
    model.set_planner(PlannerConfig(kind="cem", horizon=5, num_samples=8))
    assert model.policy.planner.horizon == 5
    _, state = model.predict(obs, deterministic=True)
    assert model.predict(obs, state)[0].shape[0] == 3
    with pytest.raises(ValueError, match="does not fit"):
        model.set_planner(PlannerConfig(kind="exhaustive" if model.policy.squash_output else "mppi"))
    assert model.policy.planner.horizon == 5
    model.set_planner(None)
    assert model.policy.planner == make_planner(PlannerConfig(), model.action_space)


def test_a_planner_is_shown_as_many_sequences_of_a_disturbed_actor_as_it_asks_for(model):
    config = PlannerConfig(kind="cem", num_samples=1, num_iterations=1, actor_samples=30)
    planner, policy, shown = make_planner(config, model.action_space), model.policy, []

    class Watched(Planner):
        horizon, actor_samples = planner.horizon, planner.actor_samples

        def plan(self, cost_fn, init):
            shown.append(init.sequences)
            return planner.plan(cost_fn, init)

    policy.set_planner(Watched())
    z = policy.world_model.encode(policy.obs_to_tensor(observations(model))[0])
    own = policy.world_model.actor_sequence(z, planner.horizon)
    policy.deliberate(z, own, torch.Generator().manual_seed(0))
    torch.testing.assert_close(shown[0][:, 0], own)
    disturbed = shown[0][:, 2:]
    assert disturbed.shape == (3, 30, *own.shape[1:])
    assert (disturbed[:, -1] != own).any()


@pytest.mark.parametrize("kind", ["gradient", "hybrid"])
def test_descent_works_inside_inference_mode(small, kind):
    model = small("Pendulum-v1", mode="planner", planner=PlannerConfig(kind=kind))
    obs = observations(model)
    outside, state = model.predict(obs, deterministic=True)
    with torch.inference_mode():
        inside, _ = model.predict(obs, deterministic=True)
        model.predict(obs, state, deterministic=True)
    np.testing.assert_array_equal(outside, inside)


def test_descent_from_the_actors_own_sequence_starts_down_the_mean(small):
    """There all members agree but for rounding, whose slope points anywhere; it takes networks of some size to have any."""
    sizes = {"latent_dim": 64, "net_arch": [128, 128], "ensemble_size": 4}
    policy = small("Pendulum-v1", plan_pessimism=4.0, policy_kwargs=sizes).policy
    slopes = []

    class Slope(GradientPlanner):
        def plan(self, cost_fn, init):
            actions = init.sequences[:, :1].detach().requires_grad_(True)
            slopes.append(torch.autograd.grad(cost_fn(actions).sum(), actions)[0])
            return super().plan(cost_fn, init)

    policy.set_planner(Slope())
    for z in policy.world_model.encode(torch.linspace(-2, 2, 24).view(8, 1, 3)).detach():
        own = policy.world_model.actor_sequence(z, 3).detach()
        policy.deliberate(z, own, policy.generator)
        actions = own.unsqueeze(1).requires_grad_(True)
        (mean,) = torch.autograd.grad(policy.world_model.trajectory_cost(z, actions).sum(), actions)
        torch.testing.assert_close(slopes[-1], mean, rtol=0.05, atol=1e-3)  # without it: off by 1


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize("mode", ["actor", "planner", "auto", "auto_0.5", "surprise"])
def test_acts_in_half_precision_too(small, env, mode):
    model, state = small(env, mode=mode), None
    obs = observations(model, 1)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(3):
            action, state = model.predict(obs, state, deterministic=True)
    assert action.shape == (1, *model.action_space.shape)


class SumOfActions:
    """An objective for which an action of zeros costs the least."""

    def __init__(self, model):
        self.proposer = model

    def __call__(self, z, actions, before=None):
        return actions.sum((-2, -1)).unsqueeze(0)


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 3])])
def test_what_is_planned_among_choices_is_a_choice_from_the_first_step_on(space):
    """Where costs are high, an action of zeros, which is none, would seem to cost nothing."""
    policy = JEPAPolicy(spaces.Box(-1, 1, (4,)), space, lambda _: 1e-3, planner=PlannerConfig(kind="cem"), mode="planner")
    widths = policy.planner.num_choices
    policy.objective = SumOfActions(policy.world_model)
    memory = policy.recall(None, 2)
    for _ in range(3):
        _, memory = policy.act(torch.rand(2, 4), memory, deterministic=True)
        for block in memory.plan.split(widths, dim=-1):
            torch.testing.assert_close(block.sum(-1), torch.ones(2, policy.planner.horizon))


def test_a_planner_object_for_other_actions_is_refused_and_nothing_changes(model):
    before = model.policy.planner
    other = CategoricalCEM((7,))
    with pytest.raises(ValueError, match="a PlannerConfig, which finds"):
        model.set_planner(other)
    assert model.policy.planner is before


def test_a_loop_that_drops_the_state_is_told_once_how_to_write_it(small, recwarn):
    model, obs = small("CartPole-v1", mode="every_2"), np.zeros(4, dtype=np.float32)
    for _ in range(2):
        model.predict(obs)
    with pytest.warns(UserWarning, match=r"3 times in a row without the state .* action, state = model.predict") as told:
        model.predict(obs)
    assert told[0].filename == __file__
    for _ in range(8):
        model.predict(obs)
    assert not recwarn.list


def test_single_questions_loops_that_keep_the_state_and_the_actor_are_not_warned(small, recwarn):
    model, obs, state = small("CartPole-v1", mode="every_2"), np.zeros(4, dtype=np.float32), None
    for _ in range(6):
        _, state = model.predict(obs, state)
        model.predict(obs)
    for _ in range(6):
        model.predict(obs, None, np.ones(1, dtype=bool))
    model.set_mode("actor")
    for _ in range(6):
        model.predict(obs)
    assert not recwarn.list


@pytest.mark.parametrize("mode", ["actor", "every_2"])
def test_the_targets_actor_answers_deterministically_and_the_newest_explores(mode, small):
    policy, obs = small("Pendulum-v1", mode=mode).policy, np.zeros((1, 3), dtype=np.float32)
    with torch.no_grad():
        for actor, always in ((policy.world_model_target.actor, 5.0), (policy.world_model.actor, -5.0)):
            actor.net[-1].weight.zero_()
            actor.net[-1].bias.copy_(torch.tensor([always, -20.0]))  # with hardly any spread
    state = policy.predict(obs, deterministic=False)[1]  # every second step is planned: the first
    start = np.zeros(1, dtype=bool)
    assert policy.predict(obs, state, start, deterministic=True)[0].item() > 1.9
    assert policy.predict(obs, state, start, deterministic=False)[0].item() < -1.9
