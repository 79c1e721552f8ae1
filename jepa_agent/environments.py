"""What the algorithm needs of environments that are not its own: the right kind, seeds, a last observation that lasts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper


def check_kind(env: Any) -> None:
    """``ValueError`` that says what to hand over instead of what is neither a Gymnasium environment nor a VecEnv."""
    if isinstance(env, gym.vector.VectorEnv):
        name = f"{env.spec.id!r}" if env.spec is not None else "..."
        raise ValueError(
            f"{type(env).__name__}, as gymnasium.make_vec makes it, is no VecEnv of Stable-Baselines3: use "
            f"make_vec_env({name}, n_envs={env.num_envs}) from stable_baselines3.common.env_util"
        )
    if not isinstance(env, (gym.Env, VecEnv)):
        raise ValueError(
            f"expected a Gymnasium environment, its id, or a VecEnv of Stable-Baselines3, got {type(env).__name__}; "
            "PettingZoo's become a VecEnv by SuperSuit's pettingzoo_env_to_vec_env_v1 and concat_vec_envs_v1"
        )


def seed_env(env: VecEnv, seed: int) -> None:
    """Seed the next reset, where the environment can be seeded: VecEnvs of others, as SuperSuit's, often cannot."""
    try:
        env.seed(seed)
    except (AttributeError, NotImplementedError, TypeError) as error:
        warnings.warn(
            f"{type(env).__name__} cannot be seeded ({error or type(error).__name__}): its episodes are not repeated by the "
            "same seed, nor after going on from a checkpoint",
            stacklevel=2,
        )


def guard_environments(env: VecEnv) -> None:
    """See that what single environments return is what their spaces promise, and that last observations last.

    `DummyVecEnv` copies observations into its own arrays, by broadcasting if need be: one of another shape is a
    ``ValueError`` instead. And it resets an environment before it copies what that returned last, so an environment that
    fills the same array again and again would lose it; other observations are copied in time."""
    while isinstance(env, VecEnvWrapper):
        env = env.venv
    for index, one in enumerate(env.envs if isinstance(env, DummyVecEnv) else ()):
        for name in ("observation_space", "action_space"):
            expected, found = getattr(env, name), getattr(one, name)
            if expected != found:
                raise ValueError(f"environment {index} has the {name} {found}, but the first one {expected}: make all alike")
        if not (isinstance(one.step, partial) and one.step.func is _step):
            one.step = partial(_step, one.step, one.observation_space)  # type: ignore[method-assign]
            one.reset = partial(_reset, one.reset, one.observation_space)  # type: ignore[method-assign]


def _step(step: Callable[[Any], tuple[Any, ...]], space: spaces.Space, action: Any) -> tuple[Any, ...]:
    obs, reward, terminated, truncated, info = step(action)
    check_form(obs, space)
    return (deepcopy(obs) if terminated or truncated else obs), reward, terminated, truncated, info


def _reset(reset: Callable[..., tuple[Any, ...]], space: spaces.Space, **options: Any) -> tuple[Any, ...]:
    obs, info = reset(**options)
    check_form(obs, space)
    return obs, info


def check_form(obs: Any, space: spaces.Space, name: str = "observation") -> None:
    """``ValueError`` if an observation has another shape, other parts, or choices other than its space has."""
    if isinstance(space, spaces.Dict):
        if not isinstance(obs, Mapping) or set(obs) != set(space.spaces):
            found = sorted(obs) if isinstance(obs, Mapping) else type(obs).__name__
            raise ValueError(f"the environment's {name} must have the parts {sorted(space.spaces)}, found {found}")
        for key, part in space.spaces.items():
            check_form(obs[key], part, f"{name} {key!r}")
    elif np.shape(obs) != space.shape:
        raise ValueError(f"the environment's {name} must have the shape {space.shape}, found {np.shape(obs)}: {obs!r}")
    elif isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) and not space.contains(np.asarray(obs, space.dtype)):
        raise ValueError(f"the environment's {name} must be of {space}, found {obs!r}")


def is_finite(values: Any) -> bool:
    """Whether an observation, or each part of it, holds finite numbers only."""
    if isinstance(values, Mapping):
        return all(is_finite(part) for part in values.values())
    return bool(np.isfinite(values).all())


class EndOnBadObservation(gym.Wrapper):
    """Ends an episode, as by a time limit, where an observation or a reward is not finite: at its last good observation,
    with a reward of 0. Each is counted in `bad_observations`, the first is told.

    Args:
        env: The environment.
        most_resets: How often to try for a first observation that is finite; `ValueError` after that.
    """

    def __init__(self, env: gym.Env, most_resets: int = 10):
        super().__init__(env)
        self.most_resets, self.bad_observations = most_resets, 0
        self._last: Any = None

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode whose first observation is finite."""
        for _ in range(self.most_resets):
            obs, info = self.env.reset(**options)
            if is_finite(obs):
                self._last = deepcopy(obs)
                return obs, info
            self._tell()
            options.pop("seed", None)  # the same seed would give the same again
        raise ValueError(f"{self.most_resets} episodes in a row began with an observation that is not finite")

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; one that cannot be learned from ends the episode."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if is_finite(obs) and is_finite(reward):
            self._last = deepcopy(obs)
            return obs, reward, terminated, truncated, info
        self._tell()
        return self._last, 0.0, False, True, {**info, "bad_observation": True}

    def _tell(self) -> None:
        self.bad_observations += 1
        if self.bad_observations == 1:
            warnings.warn(
                "an observation or reward was not finite: the episode ends at the last good one, as will others",
                stacklevel=3,
            )
