"""Random actions stay inside the space, reach all of it, and those of a Box lead somewhere."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from jepa_agent.acting.exploration import RandomActions


def drawn(space: spaces.Space, n_envs: int = 2, steps: int = 2000, seed: int = 0) -> np.ndarray:
    np.random.seed(seed)
    space.seed(seed)
    act = RandomActions(space, n_envs)
    return np.stack([act() for _ in range(steps)])


def test_box_actions_fill_asymmetric_bounds_and_never_leave_them():
    space = spaces.Box(np.array([[-3.0, 0.0]], np.float32), np.array([[1.0, 1e-6]], np.float32))
    actions = drawn(space)
    assert actions.shape == (2000, 2, 1, 2)
    assert actions.dtype == np.float32
    assert all(space.contains(action) for step in actions for action in step)
    reached = actions.reshape(-1, 2)
    assert np.allclose(reached.min(0), [-3.0, 0.0])
    assert np.allclose(reached.max(0), [1.0, 1e-6])


def test_box_actions_are_remembered_for_a_while_and_forgotten_in_the_end():
    actions = drawn(spaces.Box(-1.0, 1.0, (1,)), steps=20_000)[:, 0, 0]
    correlation = [np.corrcoef(actions[:-lag], actions[lag:])[0, 1] for lag in (5, 100)]
    assert correlation[0] > 0.6
    assert abs(correlation[1]) < 0.1


def test_environments_drift_apart():
    actions = drawn(spaces.Box(-1.0, 1.0, (1,)), steps=5000)[..., 0]
    assert abs(np.corrcoef(actions[:, 0], actions[:, 1])[0, 1]) < 0.2


def test_discrete_actions_are_uniform_from_the_spaces_own_start():
    actions = drawn(spaces.Discrete(3, start=5))
    assert set(np.unique(actions)) == {5, 6, 7}
    assert np.bincount(actions.ravel())[5:].min() > 1200


class Endless(gym.Env):
    """Ends after ``length`` steps; counts how often the action was exactly what the actor says."""

    observation_space = spaces.Box(-1.0, 1.0, (2,))
    action_space = spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, length: int):
        self.length, self.steps = length, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(2, np.float32), 0.0, self.steps == self.length, False, {}


@pytest.mark.parametrize(("length", "random_until"), [(10, 20), (35, 35), (10_000, 80)])
def test_the_random_phase_sees_a_first_episode_through_unless_it_is_long(small, length, random_until):
    model = small(Endless(length), learning_starts=20)
    deciding = []
    act = model.policy.act
    model.policy.act = lambda *args, **kwargs: deciding.append(model.num_timesteps) or act(*args, **kwargs)
    model.learn(100)
    assert deciding[0] == random_until
