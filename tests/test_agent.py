import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import IdentityEnv, IdentityEnvBox
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecNormalize

from jepa_agent import JEPA
from jepa_agent.planning import GradientPlanner
from jepa_agent.policy import JEPAPolicy

MODES = ("actor", "planner", "auto")


def weights(model):
    return {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("mode", MODES)
def test_a_seed_reproduces_every_bit(small, env, mode):
    first, second = (small(env, mode=mode, seed=3).learn(80) for _ in range(2))
    other = small(env, mode=mode, seed=4).learn(80)
    assert equal(weights(first), weights(second))
    assert not equal(weights(first), weights(other))


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_evaluation_during_training_changes_nothing(small, env):
    plain = small(env).learn(90)
    watched = small(env).learn(90, callback=EvalCallback(gym.make(env), eval_freq=30, n_eval_episodes=1, verbose=0))
    assert equal(weights(plain), weights(watched))


class Scaled(gym.RewardWrapper):
    def __init__(self, env, scale):
        super().__init__(env)
        self.scale = scale

    def reward(self, reward):
        return reward * self.scale


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("scale", [2.0**-10, 2.0**10])
def test_the_reward_scale_drops_out_to_the_last_bit(small, env, scale):
    # A power of two scales floating-point numbers without rounding, so that equality can be exact.
    plain, scaled = (small(Scaled(gym.make(env), k)).learn(100) for k in (1.0, scale))
    first, second = weights(plain), weights(scaled)
    differing = {name for name in first if not torch.equal(first[name], second[name])}
    assert all(name.endswith(("cost_scale", "cost_square", "cost_mean", "value_offset")) for name in differing)
    assert scaled.world_model.cost_module.cost_scale == plain.world_model.cost_module.cost_scale * scale


@pytest.mark.parametrize("env", [IdentityEnv(4), IdentityEnvBox(eps=0.5)], ids=["Discrete", "Box"])
def test_learns_the_identity(small, env):
    model = small(env, learning_starts=100, batch_size=64, gamma=0.5).learn(700)
    for mode in ("actor", "planner"):
        model.set_mode(mode)
        mean, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=5)
        assert mean > 90, mode  # of 100


def test_the_mode_changes_without_retraining(small):
    model = small("Pendulum-v1", plan_pessimism=0.0).learn(60)
    before = weights(model)
    obs = np.array([[1.0, 0.0, 0.5]])
    actions = {}
    for mode in ("actor", "planner"):
        model.set_mode(mode)
        actions[mode] = model.predict(obs, deterministic=True)[0].item()
    assert actions["actor"] != actions["planner"]
    assert equal(before, weights(model))


def test_executed_plans_reach_the_buffer_and_actor_steps_do_not(small):
    planned, acted = (
        small("Pendulum-v1", mode=mode, learning_starts=5).learn(60).replay_buffer for mode in ("planner", "actor")
    )
    assert planned.planned[20:60].all()
    assert not planned.planned[:20].any()  # still at random: no episode has ended
    assert not acted.planned[:60].any()
    assert np.abs(planned.plan_mean[20:60]).max() <= 1.0


def test_memory_records_the_executed_action_with_the_noise_added_after_planning(small):
    noise = NormalActionNoise(np.full(1, 5.0), np.zeros(1))  # pushes every action to the upper bound
    model = small("Pendulum-v1", action_noise=noise, gradient_steps=0, learning_starts=5).learn(40)
    assert model._memory.action[0, 0] == 1.0
    assert (model.replay_buffer.actions[20:40] == 1.0).all()


def test_memory_is_threaded_through_collection_and_cleared_at_episode_starts(small):
    class Lengths(BaseCallback):
        seen: list = []  # noqa: RUF012

        def _on_step(self):
            if self.model._memory is not None:
                self.seen.append((int(self.model._memory.steps[0]), bool(self.locals["dones"][0])))
            return True

    watch = Lengths()
    small("CartPole-v1").learn(120, callback=watch)
    after_end = [now[0] for last, now in zip(watch.seen, watch.seen[1:]) if last[1]]  # noqa: B905
    inside = [now[0] - last[0] for last, now in zip(watch.seen, watch.seen[1:]) if not last[1]]  # noqa: B905
    assert after_end
    assert set(after_end) == {1}
    assert set(inside) == {1}


def test_the_energy_learns_to_hold_visited_latents_below_random_ones(small):
    model = small("CartPole-v1", energy_coef=1.0).learn(300)
    batch = model.replay_buffer.sample_sequences(64, 2)
    visited = model.world_model.encode(batch.obs[:, 0])
    anywhere = torch.nn.functional.layer_norm(torch.randn_like(visited), visited.shape[-1:])
    energy = model.world_model.cost_module.energy
    assert energy(visited).mean() < energy(anywhere).mean() - 0.5


def test_an_early_stop_never_stores_a_transition_that_spans_two_steps(small):
    model = small("CartPole-v1").learn(500, callback=StopTrainingOnMaxEpisodes(2))
    stopped = model.num_timesteps
    model.learn(40, reset_num_timesteps=False)
    buffer = model.replay_buffer
    assert model.num_timesteps == stopped + 40
    rows = np.arange(buffer.size() - 1)
    going_on = buffer.dones[rows, 0] == 0
    torn = (buffer.observations[rows + 1, 0] != buffer.next_observations[rows, 0]).any(-1)
    assert not (torn & going_on).any()


def test_learning_twice_joins_no_episodes(small):
    model = small("Pendulum-v1").learn(60).learn(60)
    batch = model.replay_buffer.window(np.array([55]), np.array([0]), 10)
    assert batch.mask[0].tolist() == [1.0] * 5 + [0.0] * 5
    assert batch.terminated[0].sum() == 0  # cut as by a time limit


class Broken(gym.Wrapper):
    def __init__(self, env, reward):
        super().__init__(env)
        self.broken_reward, self.left = reward, 30

    def step(self, action):
        obs, reward, *rest = self.env.step(action)
        self.left -= 1
        return (obs, reward if self.left else self.broken_reward, *rest)


def test_a_reward_that_is_not_a_number_is_refused_before_it_can_spoil_anything(small):
    model = small(Broken(gym.make("Pendulum-v1"), float("nan")))
    with pytest.raises(ValueError, match="environment 0, step 30: the reward is not finite"):
        model.learn(60)
    assert all(torch.isfinite(tensor).all() for tensor in weights(model).values())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"gamma": 2.0}, "gamma"),
        ({"n_steps": 0}, "n_steps"),
        ({"train_horizon": 0}, "train_horizon"),
        ({"planner": "gradient"}, "PlannerConfig"),
        ({"optimize_memory_usage": True}, "optimize_memory_usage"),
        ({"replay_buffer_class": ReplayBuffer}, "SequenceReplayBuffer"),
        ({"policy_kwargs": {"gamma": 0.5}}, "to JEPA itself"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_construction(small, settings, says):
    with pytest.raises(ValueError, match=says):
        small("Pendulum-v1", **settings)


def test_normalised_environments_and_several_of_them(small):
    env = VecNormalize(make_vec_env("Pendulum-v1", 2, seed=0))
    model = small(env, gradient_steps=-1, train_freq=(5, "step")).learn(200)
    assert model._n_updates == 200
    assert all(torch.isfinite(p).all() for p in model.policy.parameters())


def test_a_planner_of_ones_own_is_an_object(small):
    model = small("Pendulum-v1", planner=GradientPlanner(horizon=2, num_iterations=2), mode="planner").learn(40)
    assert model.policy.planner.horizon == 2


def test_logs_sb3s_tags_and_ours(small, tmp_path):
    seen = set()

    class Names(BaseCallback):
        def _on_step(self):
            seen.update(self.logger.name_to_value)
            return True

    small("CartPole-v1", tensorboard_log=str(tmp_path)).learn(200, callback=Names(), log_interval=100)
    wanted = {"train/prediction_loss", "train/value_loss", "train/actor_loss", "train/learning_rate"}
    assert wanted | {"mode/planner_fraction", "time/plan_ms", "plan/disagreement", "latent/surprise"} <= seen
    assert list(tmp_path.glob("JEPA_1/events*"))


# ---------------------------------------------------------------------- saving


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("mode", MODES)
def test_a_loaded_agent_predicts_bit_for_bit_and_learns_on_alike(small, env, mode, tmp_path):
    model = small(env, mode=mode).learn(60)
    model.save(tmp_path / "agent")
    again = JEPA.load(tmp_path / "agent", env=gym.make(env), device="cpu")
    model.observation_space.seed(1)
    obs = np.stack([np.clip(model.observation_space.sample(), -1, 1) for _ in range(5)])
    state = again_state = None
    for _ in range(3):
        expected, state = model.predict(obs, state, deterministic=True)
        found, again_state = again.predict(obs, again_state, deterministic=True)
        np.testing.assert_array_equal(found, expected)
    assert equal(weights(model), weights(again))
    assert again.num_timesteps == 60
    again.replay_buffer = model.replay_buffer
    for learner in (model, again):
        np.random.seed(0)
        torch.manual_seed(0)
        learner._logger = model.logger
        learner.train(3, 32)
    assert equal(weights(model), weights(again)), "optimisers were not restored"


def test_settings_survive_saving(small, tmp_path):
    planner = GradientPlanner(horizon=2)
    model = small("Pendulum-v1", planner=planner, mode="every_3", gamma=0.9, policy_kwargs={"activation_fn": torch.nn.ELU})
    model.save(tmp_path / "agent.zip")
    again = JEPA.load(tmp_path / "agent.zip", device="cpu")
    assert (again.policy.planner, again.gamma, again.policy.mode_switch.k) == (planner, 0.9, 3)
    assert again.policy.activation_fn is torch.nn.ELU


class OwnPolicy(JEPAPolicy):
    """A policy of the user's."""


def test_a_policy_class_of_ones_own_is_asked_for(tmp_path, small):
    model = JEPA(OwnPolicy, "Pendulum-v1", device="cpu", policy_kwargs={"latent_dim": 8}, stats_window_size=7)
    model.save(tmp_path / "agent")
    with pytest.raises(ValueError, match="policy_class was 'OwnPolicy'"):
        JEPA.load(tmp_path / "agent")
    again = JEPA.load(tmp_path / "agent", custom_objects={"policy_class": OwnPolicy}, train_freq=4)
    assert type(again.policy) is OwnPolicy
    assert again.train_freq.frequency == 4
    assert again._stats_window_size == 7


def test_other_spaces_than_saved_are_refused(small, tmp_path):
    small("Pendulum-v1").save(tmp_path / "agent")
    with pytest.raises(ValueError, match="spaces do not match"):
        JEPA.load(tmp_path / "agent", env=gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="policy_kwargs"):
        JEPA.load(tmp_path / "agent", policy_kwargs={"latent_dim": 99})


def test_objects_of_ones_own_are_asked_for_and_can_be_handed_over(small, tmp_path):
    schedule = lambda progress: 1e-3 * progress  # noqa: E731
    small("Pendulum-v1", learning_rate=schedule).save(tmp_path / "agent")
    with pytest.raises(ValueError, match="custom_objects"):
        JEPA.load(tmp_path / "agent")
    assert JEPA.load(tmp_path / "agent", custom_objects={"learning_rate": schedule}).lr_schedule(0.5) == 5e-4


def test_updates_that_a_stop_leaves_over_are_made_when_learning_goes_on(small, monkeypatch):
    model = small("Pendulum-v1", learning_starts=30, mode="actor")

    def stops():
        if model._n_updates == 11:
            raise KeyboardInterrupt

    monkeypatch.setattr("jepa_agent.agent.poll", stops)
    with pytest.raises(KeyboardInterrupt):
        model.learn(60)
    assert (model._n_updates, model.num_timesteps) == (11, 31)
    monkeypatch.undo()
    model.learn(29, reset_num_timesteps=False)
    assert (model._n_updates, model.num_timesteps) == (60, 60)
