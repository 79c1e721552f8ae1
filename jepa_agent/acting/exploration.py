"""Acting before anything is known."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from torch import Tensor

from jepa_agent.config import did_you_mean
from jepa_agent.spaces import BoxCode, action_code

_MEMORY = 15.0


class RandomActions:
    """Random actions for ``n_envs`` environments at a time, in the environment's coordinates.

    Those of a Box drift through it, forgetting where they were over some 15 steps: what is drawn anew at every step
    averages out and leads nowhere (Lillicrap et al., 1509.02971; Eberhard et al., 2023, "Pink noise is all you need").
    """

    def __init__(self, action_space: spaces.Space, n_envs: int):
        self.action_space, self.n_envs = action_space, n_envs
        self._drift: VectorizedActionNoise | None = None
        self._code = action_code(action_space)
        if isinstance(self._code, BoxCode):
            size, theta = self._code.dim, 1.0 / _MEMORY
            std = np.sqrt(theta * (2.0 - theta))  # of one step; that of the drift as a whole is then 1
            drift = OrnsteinUhlenbeckActionNoise(np.zeros(size), np.full(size, std), theta, dt=1.0)
            self._drift = VectorizedActionNoise(drift, n_envs)

    def __call__(self) -> np.ndarray:
        """The next actions, ``(n_envs, *action_shape)``."""
        space, code = self.action_space, self._code
        if self._drift is None:
            return np.array([space.sample() for _ in range(self.n_envs)])
        assert isinstance(code, BoxCode)
        return code.within(code.unscale(self._drift().clip(-1.0, 1.0).reshape(-1, *code.space.shape)))

    def state_dict(self) -> dict[str, Tensor]:
        """Where the drift has come to: ``(n_envs, size)``."""
        if self._drift is None:
            return {}
        return {"drift": torch.from_numpy(np.stack([noise.noise_prev for noise in self._drift.noises]))}  # type: ignore

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Drift on from there."""
        if self._drift is not None:
            for noise, value in zip(self._drift.noises, state["drift"].numpy(), strict=True):
                noise.noise_prev = value  # type: ignore[attr-defined]


class UniformActions(RandomActions):
    """Random actions drawn anew at every step, as SB3's off-policy algorithms begin."""

    def __init__(self, action_space: spaces.Space, n_envs: int):
        super().__init__(action_space, n_envs)
        self._drift = None


EXPLORATIONS: dict[str, type[RandomActions]] = {"drift": RandomActions, "uniform": UniformActions}
"""What acts before learning starts, by the name that ``exploration`` asks for."""


def register_exploration(name: str, actions: type[RandomActions]) -> None:
    """Let ``JEPA(exploration=name)`` ask for random actions of one's own; ``ValueError`` if the name is taken by others."""
    if EXPLORATIONS.get(name, actions) is not actions:
        raise ValueError(f"exploration {name!r} is taken: choose a name other than {', '.join(EXPLORATIONS)}")
    EXPLORATIONS[name] = actions


def make_exploration(name: str, action_space: spaces.Space, n_envs: int) -> RandomActions:
    """Random actions by name.

    Args:
        name: One of `EXPLORATIONS`.
        action_space: To draw from.
        n_envs: Number of environments.

    Raises:
        ValueError: A name that is not known.
    """
    if name not in EXPLORATIONS:
        raise ValueError(f"unknown exploration {name!r}{did_you_mean(name, EXPLORATIONS)}")
    return EXPLORATIONS[name](action_space, n_envs)
