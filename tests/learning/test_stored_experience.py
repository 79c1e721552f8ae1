"""What is stored is what happened: to the last step before a stop, and whatever environments do with their arrays."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecNormalize


class Clock(gym.Env):
    """Shows ``100 * episode + step`` and rewards it; terminates, or is cut short, after ``length`` steps."""

    action_space = gym.spaces.Discrete(3)

    def __init__(self, length=5, cut=False):
        self.observation_space = gym.spaces.Box(0, 1e6, (1,), np.float32)
        self.length, self.cut, self.episode, self.at = length, cut, -1, 0

    def show(self):
        return np.array([100 * self.episode + self.at], np.float32)

    def reset(self, *, seed=None, options=None):
        self.episode, self.at = self.episode + 1, 0
        return self.show(), {}

    def step(self, action):
        self.at += 1
        over = self.at == self.length
        return self.show(), float(self.at), over and not self.cut, over and self.cut, {}


class StopAt(BaseCallback):
    def __init__(self, *steps):
        super().__init__()
        self.steps = steps

    def _on_step(self):
        return self.num_timesteps not in self.steps


def column(buffer, name, env=0):
    return getattr(buffer, name)[: buffer.size(), env].reshape(buffer.size(), -1)[:, 0].tolist()


def check_clock(buffer, env=0, length=5):
    """Every stored step is one of the clock's, with its true successor and its true end."""
    obs, after, done = (column(buffer, name, env) for name in ("observations", "next_observations", "dones"))
    assert [b - a for a, b in zip(obs, after, strict=True)] == [1.0] * len(obs)
    assert column(buffer, "rewards", env) == [b % 100 for b in after]
    assert done == [float(b % 100 == length) for b in after]
    assert obs == [100.0 * (k // length) + k % length for k in range(len(obs))]


@pytest.mark.parametrize("cut", [False, True])
def test_the_step_at_which_a_callback_stops_is_stored_and_the_run_goes_on_from_there(small, cut):
    model = small(Clock(cut=cut), learning_starts=1_000)
    model.learn(100, callback=StopAt(3))  # within an episode
    assert (model.num_timesteps, model.replay_buffer.added) == (3, 3)
    model.learn(100, callback=StopAt(5), reset_num_timesteps=False)  # at its end
    assert (model._episode_num, len(model.ep_info_buffer)) == (1, 1)
    model.learn(100, callback=StopAt(6), reset_num_timesteps=False)  # at the first step of the next
    model.learn(7, reset_num_timesteps=False)
    assert (model.num_timesteps, model.replay_buffer.added, model._episode_num) == (13, 13, 2)
    check_clock(model.replay_buffer)
    assert sum(column(model.replay_buffer, "timeouts")) == (2.0 if cut else 0.0)


def test_a_stop_in_the_middle_of_a_rollout_of_several_environments_loses_nothing(small):
    env = VecNormalize(DummyVecEnv([Clock, lambda: Clock(7)]), norm_obs=False, norm_reward=False)
    model = small(env, learning_starts=1_000, train_freq=50)
    model.learn(100, callback=StopAt(14))
    model.learn(100, callback=StopAt(24), reset_num_timesteps=False)
    assert (model.num_timesteps, model.replay_buffer.added * 2, model._episode_num) == (24, 24, 3)
    check_clock(model.replay_buffer, 0)
    check_clock(model.replay_buffer, 1, 7)


def test_an_agent_taught_one_episode_at_a_time_meets_every_end(small):
    model = small(Clock(), learning_starts=10)
    for _ in range(6):
        model.learn(100, callback=StopTrainingOnMaxEpisodes(1), reset_num_timesteps=False)
    assert model.num_timesteps == 30
    check_clock(model.replay_buffer)


def test_action_noise_begins_anew_after_an_episode_at_whose_end_a_callback_stops(small):
    class Moved(Clock):
        action_space = gym.spaces.Box(-1, 1, (1,))

    noise = OrnsteinUhlenbeckActionNoise(np.zeros(1), np.ones(1))
    model = small(Moved(), action_noise=noise, learning_starts=1)
    model.learn(100, callback=StopAt(5))
    np.testing.assert_array_equal(noise.noise_prev, 0.0)


# ---------------------------------------------------------------------- arrays that are used again


class Reusing(Clock):
    """The clock, into one array again and again; what it was given it overwrites."""

    def __init__(self, length=5, cut=False):
        super().__init__(length, cut)
        self.array = np.zeros(1, np.float32)

    def show(self):
        self.array[:] = super().show()
        return self.array

    def step(self, action):
        if np.ndim(action):
            action[...] = 0
        return super().step(action)


class Named(Reusing):
    """The same in a Dict."""

    def __init__(self, length=5, cut=False):
        super().__init__(length, cut)
        self.observation_space = gym.spaces.Dict({"at": self.observation_space})

    def show(self):
        return {"at": super().show()}


class Buffers(VecEnvWrapper):
    """Hands out its own arrays, which the next step overwrites, and writes into the actions."""

    def reset(self):
        self.obs = self.venv.reset()
        return self.obs

    def step_async(self, actions):
        self.venv.step_async(actions.copy())
        actions[...] = 0

    def step_wait(self):
        obs, reward, done, infos = self.venv.step_wait()
        if not hasattr(self, "rewards"):
            self.rewards, self.dones = reward.copy(), done.copy()
        for kept, new in ((self.obs, obs), (self.rewards, reward), (self.dones, done)):
            kept[...] = new
        return self.obs, self.rewards, self.dones, infos


class Watch(BaseCallback):
    """Notes the actions as they were decided."""

    def __init__(self):
        super().__init__()
        self.actions = []

    def _on_training_start(self):
        self.decide, self.model._sample_action = self.model._sample_action, self.noted

    def noted(self, *args, **kwargs):
        taken, stored = self.decide(*args, **kwargs)
        self.actions.append(taken.copy())
        return taken, stored

    def _on_step(self):
        return True


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(
    "made",
    [
        lambda cut: Reusing(cut=cut),
        lambda cut: DummyVecEnv([lambda: Reusing(cut=cut)] * 2),
        lambda cut: Buffers(DummyVecEnv([lambda: Clock(cut=cut)] * 2)),
        lambda cut: VecNormalize(DummyVecEnv([lambda: Reusing(cut=cut)]), norm_obs=False, norm_reward=False),
        lambda cut: VecNormalize(Buffers(DummyVecEnv([lambda: Clock(cut=cut)])), norm_obs=False, norm_reward=False),
    ],
    ids=["env", "DummyVecEnv", "a VecEnv's buffers", "normalised", "normalised buffers"],
)
def test_arrays_that_are_used_again_falsify_nothing(small, made, cut):
    watch = Watch()
    model = small(made(cut), learning_starts=10).learn(32, callback=watch)
    for env in range(model.n_envs):
        check_clock(model.replay_buffer, env)
        assert column(model.replay_buffer, "actions", env) == [float(one[env]) for one in watch.actions]


def test_arrays_that_are_used_again_in_a_dict_falsify_nothing(small):
    buffer = small(Named(), learning_starts=10).learn(32).replay_buffer
    obs, after = (array["at"][:32, 0, 0] for array in (buffer.observations, buffer.next_observations))
    np.testing.assert_array_equal(after - obs, 1.0)
    np.testing.assert_array_equal(buffer.dones[:32, 0], after % 100 == 5)


def test_an_environment_in_use_can_still_be_copied_and_stepped_by_itself(small):
    from copy import deepcopy

    model = small(DummyVecEnv([Reusing])).learn(3)
    env = model.get_env().envs[0]
    copied = deepcopy(env)
    copied.step(0)
    assert (copied.at, env.at) == (4, 3)
