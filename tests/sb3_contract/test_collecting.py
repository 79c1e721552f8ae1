"""Several environments at a time, SB3's wrappers, noise and schedules."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from stable_baselines3.common.vec_env import SubprocVecEnv, VecCheckNan, VecFrameStack, VecMonitor, VecNormalize

from jepa_agent.planning import RandomShooting

MODES = ("actor", "planner", "auto")


def weights(model):
    return {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_processes_and_threads_of_one_seed_learn_the_same_to_the_last_bit(small):
    here = make_vec_env("CartPole-v1", 2, seed=0)
    there = make_vec_env("CartPole-v1", 2, seed=0, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"})
    try:
        first, second = (small(env, mode="auto").learn(80) for env in (here, there))
    finally:
        there.close()
    assert equal(weights(first), weights(second))


class Counting(RandomShooting):
    """Notes how many environments each search was for."""

    batches: list = []  # noqa: RUF012

    def plan(self, cost_fn, init):
        self.batches.append(len(init.sequences))
        return super().plan(cost_fn, init)


def test_all_environments_are_planned_for_in_one_batch(small):
    Counting.batches.clear()
    small(make_vec_env("Pendulum-v1", 3), planner=Counting(num_samples=4), mode="planner", learning_starts=3).learn(60)
    assert len(Counting.batches) > 10
    assert set(Counting.batches) == {3}


@pytest.mark.parametrize(
    "wrap",
    [
        partial(VecFrameStack, n_stack=3),
        partial(VecCheckNan, raise_exception=True),
        VecMonitor,
        VecNormalize,
        lambda env: VecNormalize(VecFrameStack(env, n_stack=2)),
    ],
    ids=["VecFrameStack", "VecCheckNan", "VecMonitor", "VecNormalize", "both"],
)
def test_sb3s_wrappers_can_be_learned_and_acted_through(small, wrap):
    env = wrap(make_vec_env("Pendulum-v1", 2, env_kwargs={"max_episode_steps": 10}))
    model = small(env, mode="planner").learn(60)
    action, _ = model.predict(env.reset(), deterministic=True)
    assert action.shape == (2, 1)
    batch = model.replay_buffer.sample_sequences(64, 3, env=model.get_vec_normalize_env())
    assert batch.terminated.sum() == 0
    assert 0 < batch.mask.sum() < batch.mask.numel()


class Original(BaseCallback):
    """Notes the raw observations and rewards behind a VecNormalize."""

    def __init__(self):
        super().__init__()
        self.rewards, self.obs = [], []

    def _on_step(self):
        self.rewards.append(self.training_env.get_original_reward())
        self.obs.append(self.training_env.get_original_obs())
        return True


def test_what_is_stored_is_raw_and_what_is_learned_from_is_normalised_by_the_newest_statistics(small):
    env = VecNormalize(make_vec_env("Pendulum-v1", 2))
    watch = Original()
    buffer = small(env).learn(60, callback=watch).replay_buffer
    np.testing.assert_array_equal(buffer.rewards[:30], np.array(watch.rewards))
    np.testing.assert_allclose(buffer.next_observations[:30], np.array(watch.obs), atol=1e-6)
    batch = buffer.window(np.array([4, 20]), np.array([0, 1]), 2, env)
    wanted = env.normalize_obs(buffer.observations[[4, 20], [0, 1]])
    np.testing.assert_allclose(batch.obs[:, 0], wanted, atol=1e-6)
    wanted = -env.normalize_reward(buffer.rewards[[4, 20], [0, 1]])
    np.testing.assert_allclose(batch.cost[:, 0], wanted, rtol=1e-5)


def test_the_last_observation_of_an_episode_is_stored_raw_under_normalisation(small):
    # Every episode of one step starts at 5 and ends at 100; what follows in the VecEnv is the next start.
    class Jump(gym.Env):
        observation_space = gym.spaces.Box(-1000, 1000, (1,))
        action_space = gym.spaces.Box(-1, 1, (1,))

        def reset(self, *, seed=None, options=None):
            return np.array([5.0], np.float32), {}

        def step(self, action):
            return np.array([100.0], np.float32), 0.0, True, False, {}

    buffer = small(VecNormalize(make_vec_env(Jump, 2), clip_obs=1e6)).learn(40).replay_buffer
    np.testing.assert_allclose(buffer.observations[:20], 5.0, rtol=1e-4)
    np.testing.assert_allclose(buffer.next_observations[:20], 100.0, rtol=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_evaluating_beside_normalised_training_changes_nothing_and_sees_its_statistics(small, mode):
    short = {"max_episode_steps": 20}
    env, again, eval_env = (VecNormalize(make_vec_env("Pendulum-v1", 2, seed=0, env_kwargs=short)) for _ in range(3))
    eval_env.training = eval_env.norm_reward = False
    plain = small(env, mode=mode).learn(60)
    callback = EvalCallback(eval_env, n_eval_episodes=2, eval_freq=30, verbose=0)
    watched = small(again, mode=mode).learn(60, callback=callback)
    assert equal(weights(plain), weights(watched))
    np.testing.assert_array_equal(env.obs_rms.mean, again.obs_rms.mean)
    np.testing.assert_array_equal(eval_env.obs_rms.mean, again.obs_rms.mean)


# ---------------------------------------------------------------------- noise, schedules, rhythm


@pytest.mark.parametrize(
    "noise",
    [
        NormalActionNoise(np.full(1, 5.0), np.zeros(1)),
        OrnsteinUhlenbeckActionNoise(np.full(1, 5.0), np.zeros(1), theta=10.0, dt=0.1),
        VectorizedActionNoise(NormalActionNoise(np.full(1, 5.0), np.zeros(1)), 2),
    ],
    ids=["Normal", "OrnsteinUhlenbeck", "Vectorized"],
)
def test_every_kind_of_action_noise_pushes_every_environment(small, noise):
    model = small(make_vec_env("Pendulum-v1", 2), action_noise=noise, gradient_steps=0, learning_starts=4).learn(60)
    assert (model.replay_buffer.actions[20:30] == 1.0).all()


def test_a_learning_rate_schedule_is_followed_and_logged(small):
    seen = {}

    class Watch(BaseCallback):
        def _on_step(self):
            logged = self.logger.name_to_value.get("train/learning_rate")
            if logged:
                seen[self.num_timesteps] = (logged, self.model.policy.optimizer.param_groups[0]["lr"])
            return True

    small("Pendulum-v1", learning_rate=lambda progress: 1e-2 * progress, train_freq=10).learn(101, callback=Watch())
    assert seen[45] == pytest.approx((1e-2 * 61 / 101,) * 2)
    assert seen[101] == pytest.approx((1e-2 * 1 / 101,) * 2)


@pytest.mark.parametrize(
    ("n_envs", "train_freq", "gradient_steps", "updates"),
    [
        (1, 4, 1, 15),  # rounds end at 4, 8, ... 60; the first after 20 random steps makes up for five
        (1, (2, "step"), -1, 60),
        (1, (1, "episode"), -1, 60),  # episodes of ten steps end at 10, 20, ... 60
        (1, (2, "episode"), 3, 9),
        (2, (3, "step"), -1, 60),  # six steps a round: 6, 12, ... 60
        (2, 1, 0, 0),
    ],
)
def test_updates_keep_to_the_rhythm_asked_for(small, n_envs, train_freq, gradient_steps, updates):
    env = make_vec_env("Pendulum-v1", n_envs, env_kwargs={"max_episode_steps": 10})
    model = small(env, train_freq=train_freq, gradient_steps=gradient_steps, mode="actor").learn(60)
    assert (model.num_timesteps, model._n_updates) == (60, updates)
