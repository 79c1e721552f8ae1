"""Acting before anything is known."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise, VectorizedActionNoise

_MEMORY = 15.0


class RandomActions:
    """Random actions for ``n_envs`` environments at a time, in the environment's coordinates.

    Those of a Box drift through it, forgetting where they were over some 15 steps: what is drawn anew at every step
    averages out and leads nowhere (Lillicrap et al., 1509.02971; Eberhard et al., 2023, "Pink noise is all you need").
    """

    def __init__(self, action_space: spaces.Space, n_envs: int):
        self.action_space, self.n_envs = action_space, n_envs
        self._drift: VectorizedActionNoise | None = None
        if isinstance(action_space, spaces.Box):
            size, theta = spaces.flatdim(action_space), 1.0 / _MEMORY
            std = np.sqrt(theta * (2.0 - theta))  # of one step; that of the drift as a whole is then 1
            drift = OrnsteinUhlenbeckActionNoise(np.zeros(size), np.full(size, std), theta, dt=1.0)
            self._drift = VectorizedActionNoise(drift, n_envs)

    def __call__(self) -> np.ndarray:
        """The next actions, ``(n_envs, *action_shape)``."""
        space = self.action_space
        if self._drift is None:
            return np.array([space.sample() for _ in range(self.n_envs)])
        assert isinstance(space, spaces.Box)
        share = (self._drift().clip(-1.0, 1.0).reshape(-1, *space.shape) + 1.0) / 2.0
        action = space.low + share * (space.high - space.low)
        return np.clip(action, space.low, space.high).astype(space.dtype)
