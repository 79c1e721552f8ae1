"""Environments that show a part of their state only: what is hidden must be remembered or inferred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class HideFeatures(gym.ObservationWrapper):
    """Leaves features out of observations ``(dim,)``.

    ``HideFeatures(gym.make("CartPole-v1"), [1, 3])`` hides the velocities.

    Args:
        env: An environment with a Box of one axis.
        hidden: Indices of the features to leave out.

    Raises:
        ValueError: An index that is not there, another space, or nothing left to be seen.
    """

    def __init__(self, env: gym.Env, hidden: Sequence[int]):
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"features can be hidden in a Box of one axis, not in {space}")
        outside = sorted(set(hidden) - set(range(space.shape[0])))
        if outside:
            raise ValueError(f"hidden names {outside}, but there are features 0 to {space.shape[0] - 1} only")
        self.shown = np.setdiff1d(np.arange(space.shape[0]), hidden)
        if not len(self.shown):
            raise ValueError(f"hidden names all {space.shape[0]} features: leave one to be seen")
        self.observation_space = spaces.Box(space.low[self.shown], space.high[self.shown], dtype=space.dtype.type)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """The features that are shown."""
        return observation[self.shown]


def cartpole_without_velocities(**settings: Any) -> gym.Env:
    """CartPole-v1 with the cart's position and the pole's angle alone."""
    return HideFeatures(gym.make("CartPole-v1", **settings).unwrapped, [1, 3])


def pendulum_without_velocity(**settings: Any) -> gym.Env:
    """Pendulum-v1 with the cosine and sine of the angle alone."""
    return HideFeatures(gym.make("Pendulum-v1", **settings).unwrapped, [2])
