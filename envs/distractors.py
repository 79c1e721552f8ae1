"""Observations with inputs that tell nothing of the task: what matters must be told from what does not."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Distractors(gym.Wrapper):
    """Appends inputs of no meaning to observations ``(dim,)``: white noise, or the state of other environments.

    ``Distractors(gym.make("Pendulum-v1"), other="CartPole-v1")`` appends four carts that are pushed at random.

    Args:
        env: An environment with a Box of one axis.
        count: Inputs to append.
        other: Gymnasium id of an environment with such a Box; as many as are needed run beside this one, acted in at random.
            None is standard normal noise.

    Raises:
        ValueError: Another space, of either environment, or ``count`` below 1.
    """

    def __init__(self, env: gym.Env, count: int = 16, other: str | None = None):
        super().__init__(env)
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        space = _flat_box(env)
        self.count, self.others = count, list[gym.Env]()
        if other is not None:
            first = gym.make(other)
            needed = -(-count // _flat_box(first).shape[0])
            self.others = [first, *(gym.make(other) for _ in range(needed - 1))]
        far = np.full(count, np.inf, space.dtype)
        low, high = np.concatenate([space.low, -far]), np.concatenate([space.high, far])
        self._noise = np.random.default_rng()
        self.observation_space = spaces.Box(low, high, dtype=space.dtype.type)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, and episodes of the other environments, with seeds that follow from this one."""
        obs, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self._noise = np.random.default_rng([seed, self.count])
        seeds = [None if seed is None else seed + k for k in range(len(self.others))]
        for env, own in zip(self.others, seeds, strict=True):
            env.action_space.seed(own)
        self._seen = [env.reset(seed=own)[0] for env, own in zip(self.others, seeds, strict=True)]
        return self._with_distractors(obs), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step in all environments; the others begin anew where their episodes end."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        for k, env in enumerate(self.others):
            self._seen[k], _, over, cut, _ = env.step(env.action_space.sample())
            if over or cut:
                self._seen[k], _ = env.reset()
        return self._with_distractors(obs), reward, terminated, truncated, info

    def close(self) -> None:
        """Close all environments."""
        for env in self.others:
            with suppress(Exception):
                env.close()
        super().close()

    def _with_distractors(self, obs: np.ndarray) -> np.ndarray:
        more = np.concatenate(self._seen)[: self.count] if self.others else self._noise.standard_normal(self.count)
        return np.concatenate([obs, more.astype(obs.dtype)])


def _flat_box(env: gym.Env) -> spaces.Box:
    space = env.observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"distractors are appended to a Box of one axis, not to {space}")
    return space


def with_noise(env: str, **settings: Any) -> gym.Env:
    """An environment by its id with 16 inputs of white noise; its time limit is the registered one's."""
    return Distractors(gym.make(env, **settings).unwrapped)


def with_others(env: str, other: str, **settings: Any) -> gym.Env:
    """An environment by its id with 16 inputs of others that run beside it."""
    return Distractors(gym.make(env, **settings).unwrapped, other=other)
