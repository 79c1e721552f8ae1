"""Other tasks in known environments: what is rewarded is a function of the observation.

The rewards below use arithmetic alone, so that they take numpy arrays and torch tensors ``(..., D)`` alike: an environment
is re-rewarded by the same object that tells a planner its goal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv


class RewardedBy(gym.Wrapper[Any, Any, Any, Any]):
    """An environment with another reward.

    Args:
        env: The environment; its own reward is dropped.
        reward: Of the observation ``(*obs_shape)`` that a step leads to.
    """

    def __init__(self, env: gym.Env, reward: Callable[[np.ndarray], Any]):
        super().__init__(env)
        self.reward = reward

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As the environment's, with the other reward."""
        obs, _, terminated, truncated, info = self.env.step(action)
        return obs, float(self.reward(obs)), terminated, truncated, info


@dataclass(frozen=True)
class PendulumAngle:
    """Closeness of Pendulum-v1 to an angle: 1 there, a half at ``width`` from it.

    Its motor balances gravity up to 0.41 rad from upright or from hanging: ``sin(angle) = 2 / 5``.

    Args:
        angle: In radians from upright, anticlockwise.
        width: In radians.
    """

    angle: float = 0.3
    width: float = 0.1

    def __call__(self, obs: Any) -> Any:
        # The distance of two points rather than of two angles: never negative, even for a point read off the circle.
        chord = (obs[..., 0] - math.cos(self.angle)) ** 2 + (obs[..., 1] - math.sin(self.angle)) ** 2
        return _closeness(chord, self.width)


@dataclass(frozen=True)
class PendulumSpin:
    """Closeness of Pendulum-v1 to a rate of rotation: 1 there, a half at ``width`` from it.

    Gravity outdoes its motor: no speed is held all the way round, 6 to within about 1.

    Args:
        speed: In radians per second, anticlockwise.
        width: In radians per second.
    """

    speed: float = 6.0
    width: float = 1.0

    def __call__(self, obs: Any) -> Any:
        return _closeness((obs[..., 2] - self.speed) ** 2, self.width)


@dataclass(frozen=True)
class CartPosition:
    """Closeness of CartPole-v1's cart to a position: 1 there, a half at ``width`` from it.

    Args:
        position: In metres right of the middle; the edge lies at 2.4.
        width: In metres.
    """

    position: float = 0.2
    width: float = 0.1

    def __call__(self, obs: Any) -> Any:
        return _closeness((obs[..., 0] - self.position) ** 2, self.width)


def _closeness(square: Any, width: float) -> Any:
    # A Cauchy bump: unlike a Gaussian's, its slope reaches far, so that a planner is led from afar.
    return 1.0 / (1.0 + square / width**2)


def pendulum_angle(angle: float = 0.3, width: float = 0.1, render_mode: str | None = None) -> gym.Env:
    """Pendulum-v1 rewarded for an angle: ``JEPA/PendulumAngle-v0``."""
    return RewardedBy(PendulumEnv(render_mode), PendulumAngle(angle, width))


def pendulum_spin(speed: float = 6.0, width: float = 1.0, render_mode: str | None = None) -> gym.Env:
    """Pendulum-v1 rewarded for a rate of rotation: ``JEPA/PendulumSpin-v0``."""
    return RewardedBy(PendulumEnv(render_mode), PendulumSpin(speed, width))


def cart_position(position: float = 0.2, width: float = 0.1, render_mode: str | None = None) -> gym.Env:
    """CartPole-v1 rewarded for the cart's position: ``JEPA/CartPosition-v0``."""
    return RewardedBy(CartPoleEnv(render_mode=render_mode), CartPosition(position, width))
