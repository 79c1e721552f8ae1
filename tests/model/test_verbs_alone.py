"""The world model's verbs give a user what they give inside."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize


class Camera(gym.Env):
    """Pictures of noise, plain or in a Dict."""

    action_space = spaces.Discrete(2)

    def __init__(self, shape=(24, 24, 3), named=False):
        picture = spaces.Box(0, 255, shape, np.uint8)
        self.observation_space = spaces.Dict({"eye": picture, "more": spaces.Box(-1, 1, (2,))}) if named else picture
        self.observation_space.seed(0)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, False, False, {}


@pytest.mark.parametrize("shape", [(3, 24, 24), (24, 24, 3)])
@pytest.mark.parametrize("named", [False, True])
def test_pictures_are_encoded_as_acting_sees_them_right_after_learning(small, shape, named):
    env = Camera(shape, named)
    model = small(env, mode="actor", buffer_size=60, batch_size=8).learn(40)
    raw, world = env.observation_space.sample(), model.world_model
    latent = world.encode(raw)
    assert torch.equal(world.encode(raw), latent)  # no random shift
    inside = world.encode(model.policy.obs_to_tensor(raw)[0])
    torch.testing.assert_close(latent.reshape(inside.shape), inside)


def test_a_picture_of_another_shape_is_refused(small):
    model = small(Camera(), mode="actor", buffer_size=60)
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 3, 24, 24\), got \(24, 12, 6\)"):
        model.world_model.encode(np.zeros((24, 12, 6), np.uint8))


class Paying(gym.Env):
    """The same large reward at every step, or noise around it."""

    observation_space = spaces.Box(-9, 9, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, mean, std):
        self.mean, self.std = mean, std

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        return (
            np.full(2, self.t % 5, np.float32),
            float(self.np_random.normal(self.mean, self.std)),
            False,
            self.t == 100,
            {},
        )


@pytest.mark.parametrize(("mean", "std"), [(-6.0, 3.0), (1.0, 0.1)])
def test_under_vec_normalize_the_cost_scale_is_that_of_what_is_sampled(small, mean, std):
    env = VecNormalize(DummyVecEnv([lambda: Paying(mean, std)]))
    env.seed(0)
    model = small(env, learning_starts=10_000, mode="actor")
    for steps in (300, 900):  # normalised rewards are huge at first
        model.learn(steps - model.num_timesteps, reset_num_timesteps=False)
        sampled = env.normalize_reward(model.replay_buffer.rewards[: model.replay_buffer.size()].copy())
        assert float(model.world_model.cost_module.cost_scale) == pytest.approx(np.sqrt(np.mean(sampled**2)), rel=0.05)
