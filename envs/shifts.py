"""Worlds that differ from the one an agent has learned: other physics, a delay, noise, a broken joint.

Each is an environment with the spaces of the original one, for `JEPA.adapt` and for measuring what an agent that has not
met it does in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs


class Physics(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Other constants of an environment: its attributes are multiplied by factors.

    ``Physics(gym.make("Pendulum-v1"), {"g": 1.5, "l": 1.2})``. What CartPole-v1 computes of masses and length is renewed.

    Args:
        env: An environment whose constants are attributes of the unwrapped one.
        factors: By attribute.

    Raises:
        ValueError: There is no such attribute, it is no number, or the factor is not above zero.
    """

    def __init__(self, env: gym.Env, factors: Mapping[str, float]):
        RecordConstructorArgs.__init__(self, factors=factors)
        super().__init__(env)
        inner: Any = env.unwrapped
        for name, factor in factors.items():
            value = getattr(inner, name, None)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{type(inner).__name__} has no number {name!r} to be multiplied, but {value!r}")
            if not factor > 0:
                raise ValueError(f"the factor of {name} must be above zero, got {factor!r}")
            setattr(inner, name, value * factor)
        if hasattr(inner, "total_mass"):  # CartPoleEnv's, which is not computed anew
            inner.total_mass = inner.masspole + inner.masscart
            inner.polemass_length = inner.masspole * inner.length


class WeakActuators(gym.ActionWrapper[Any, Any, Any], RecordConstructorArgs):
    """Box actions arrive multiplied by a factor: weaker by one below 1, broken at 0, reversed below.

    Args:
        env: An environment with Box actions.
        factors: One for all coordinates of the action, or one for each.

    Raises:
        ValueError: Other actions, or another number of factors.
    """

    def __init__(self, env: gym.Env, factors: float | Sequence[float]):
        RecordConstructorArgs.__init__(self, factors=factors)
        super().__init__(env)
        if not isinstance(env.action_space, spaces.Box):
            raise ValueError(f"actuators are weakened of Box actions, not of {env.action_space}")
        self.factors = np.asarray(factors, dtype=env.action_space.dtype)
        if self.factors.shape not in ((), env.action_space.shape):
            raise ValueError(f"{self.factors.size} factors were given for actions of shape {env.action_space.shape}")

    def action(self, action: np.ndarray) -> np.ndarray:
        """What arrives."""
        assert isinstance(self.env.action_space, spaces.Box)
        return np.clip(action * self.factors, self.env.action_space.low, self.env.action_space.high)


class DelayedActions(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Actions arrive some steps later; until the first does, a neutral one: zeros, or the first option.

    Args:
        env: An environment.
        steps: How many steps later.

    Raises:
        ValueError: ``steps`` is below 1.
    """

    def __init__(self, env: gym.Env, steps: int = 1):
        RecordConstructorArgs.__init__(self, steps=steps)
        super().__init__(env)
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self.steps = steps
        self._under_way: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's, with no action under way."""
        space = self.env.action_space
        neutral = np.zeros(space.shape or (), dtype=space.dtype)
        if isinstance(space, spaces.Discrete):
            neutral = space.start
        self._under_way = [neutral] * self.steps
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's, with the action of some steps before."""
        self._under_way.append(np.copy(action))
        return self.env.step(self._under_way.pop(0))


class NoisySensors(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Normal noise on Box observations, drawn from the environment's own generator.

    Args:
        env: An environment with Box observations.
        std: Standard deviation, one for all features or one for each, in their units.

    Raises:
        ValueError: Other observations, a negative deviation or another number of them.
    """

    def __init__(self, env: gym.Env, std: float | Sequence[float]):
        RecordConstructorArgs.__init__(self, std=std)
        super().__init__(env)
        if not isinstance(env.observation_space, spaces.Box):
            raise ValueError(f"noise is added to Box observations, not to {env.observation_space}")
        self.std = np.asarray(std, dtype=np.float64)
        if self.std.shape not in ((), env.observation_space.shape) or (self.std < 0).any():
            raise ValueError(f"std must be at least 0, one or {env.observation_space.shape} of them, got {std!r}")

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """What the sensors tell."""
        space = self.env.observation_space
        assert isinstance(space, spaces.Box)
        noisy = observation + self.std * self.env.unwrapped.np_random.normal(size=observation.shape)
        return np.clip(noisy, space.low, space.high).astype(observation.dtype)
