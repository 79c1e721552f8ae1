"""A learned world model as a Gymnasium environment: its observations are latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from torch import Tensor

from jepa_agent.spaces import action_code, check_action_space
from jepa_agent.tensor_ops import row_count
from jepa_agent.types import ArrayLike, Observations, StepCost


class LatentDynamics(Protocol):
    """What the environment needs of a world model."""

    @property
    def action_dim(self) -> int:
        """Size A of the action's code."""
        ...

    @property
    def device(self) -> torch.device:
        """Of the parameters."""
        ...

    def encode(self, obs: ArrayLike | Mapping[str, ArrayLike]) -> Tensor:
        """Latents ``(N, D)`` of observations ``(N, *obs_shape)``."""
        ...

    def predict(self, z: ArrayLike, action: ArrayLike) -> Tensor:
        """Latents ``(N, D)`` where actions ``(N, A)`` lead from latents ``(N, D)``."""
        ...

    def cost(self, z: ArrayLike, action: ArrayLike) -> StepCost:
        """Immediate costs ``(N,)`` of actions ``(N, A)`` at latents ``(N, D)``, and the chances that the episode ends."""
        ...


class WorldModelEnv(gym.Env[np.ndarray, Any]):
    """The environment that `WorldModel.as_env` returns.

    An episode starts from the latent of one of the given observations, drawn uniformly. A step from latent ``z`` by action
    ``a`` leads to ``predict(z, a)``. The reward is minus the predicted immediate cost of the step, in units of the real
    reward (of the normalised reward under VecNormalize). The episode terminates by a Bernoulli draw of the predicted
    probability of termination, so that the mean length of episodes is the one that the model predicts; a threshold would
    never end an episode where each step ends it with a small probability. It is truncated after ``max_steps`` steps. All
    draws are seeded by ``reset(seed=...)``.

    Networks are read, never written. If the world model learns on, the environment changes with it: observations are
    encoded at each reset.

    Args:
        model: Encodes, predicts, and scores steps.
        action_space: Of the real environment.
        observations: Where episodes start, ``(N, *obs_shape)`` with N at least 1, by name for a Dict space.
        max_steps: Steps after which an episode is truncated.

    Raises:
        ValueError: ``max_steps`` is below 1; observations are none, not finite, or of another shape than the model's; the
            action space is not the model's.

    Attributes:
        observation_space: Latents, an unbounded ``Box`` of shape ``(D,)`` and type float32.
        action_space: Of the real environment; Box actions beyond its bounds are clipped.
    """

    def __init__(
        self,
        model: LatentDynamics,
        action_space: spaces.Space,
        observations: ArrayLike | Mapping[str, ArrayLike],
        max_steps: int = 100,
    ):
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {max_steps}")
        check_action_space(action_space)
        self._code = action_code(action_space)
        if self._code.dim != model.action_dim:
            raise ValueError(
                f"actions of {action_space} are {self._code.dim} numbers to the networks, but the world model takes "
                f"{model.action_dim}: give the action space of the environment that it learned"
            )
        self.model, self.max_steps, self.action_space = model, max_steps, action_space
        self._starts = _rows(observations, model.device)
        try:
            latent_dim = self._encode(0).shape[-1]
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"observations must be (N, *obs_shape), as the world model encodes them: {error}") from error
        self.observation_space = spaces.Box(-np.inf, np.inf, (latent_dim,), np.float32)
        self._z: Tensor | None = None
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start from the latent of a given observation, drawn at random.

        Args:
            seed: Of this and all further draws; None goes on with those under way.
            options: Not used.

        Returns:
            The latent ``(D,)`` and an empty dictionary.
        """
        super().reset(seed=seed)
        self._z, self._steps = self._encode(int(self.np_random.integers(row_count(self._starts)))), 0
        return _array(self._z), {}

    @torch.no_grad()
    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One imagined step.

        Args:
            action: A member of the action space.

        Returns:
            The next latent ``(D,)``, the reward in units of the real one, whether the episode is terminated, whether it is
            truncated, and an empty dictionary.

        Raises:
            ResetNeeded: No episode is under way.
            ValueError: The action is none of the space.
        """
        if self._z is None:
            raise ResetNeeded("no episode is under way: call reset()")
        z, vector = self._z, self._vector(action)
        cost, probability = self.model.cost(z, vector)
        z = self.model.predict(z, vector)
        self._steps += 1
        terminated = bool(self.np_random.random() < probability.item())
        truncated = self._steps >= self.max_steps
        self._z = None if terminated or truncated else z
        return _array(z), -cost.item(), terminated, truncated, {}

    @torch.no_grad()
    def _encode(self, index: int) -> Tensor:
        """Latent ``(D,)`` of one of the observations."""
        starts, row = self._starts, slice(index, index + 1)
        one = {name: part[row] for name, part in starts.items()} if isinstance(starts, dict) else starts[row]
        return self.model.encode(one).squeeze(0)

    def _vector(self, action: Any) -> Tensor:
        """An action of the space as the networks see it, ``(A,)``."""
        space, given = self.action_space, np.asarray(action)
        if isinstance(space, spaces.Box) and given.shape == space.shape and np.isfinite(given).all():
            given = np.clip(given, space.low, space.high)
        elif isinstance(space, spaces.Box) or not space.contains(action):
            raise ValueError(f"{action!r} is no action of {space}")
        return self._code.from_env(given[None]).squeeze(0).to(self.model.device)


def _rows(observations: ArrayLike | Mapping[str, ArrayLike], device: torch.device) -> Observations:
    """A copy of observations as tensors; ``ValueError`` unless each part has the same number of rows, all finite."""
    named = observations if isinstance(observations, Mapping) else {"": observations}
    parts = {name: torch.as_tensor(part).clone().to(device) for name, part in named.items()}
    counts = {len(part) if part.dim() else 0 for part in parts.values()}
    if len(counts) != 1 or not min(counts):
        raise ValueError(
            "give at least one observation to start from, (N, *obs_shape), as many rows for each part of a Dict"
        )
    if not all(part.isfinite().all() for part in parts.values()):
        raise ValueError("observations to start from must be finite numbers")
    return parts if isinstance(observations, Mapping) else parts[""]


def _array(z: Tensor) -> np.ndarray:
    """A latent as an array of the caller's own."""
    return z.cpu().numpy().astype(np.float32)
