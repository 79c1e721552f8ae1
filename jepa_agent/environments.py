"""What the algorithm needs of environments that are not its own: the right kind, seeds, a last observation that lasts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import gymnasium as gym
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


def keep_last_observations(env: VecEnv) -> None:
    """See that the last observation of an episode is not overwritten by the first of the next.

    `DummyVecEnv` resets an environment before it copies what that returned last, so an environment that fills the same array
    again and again would lose it. Other observations are copied in time."""
    while isinstance(env, VecEnvWrapper):
        env = env.venv
    for one in env.envs if isinstance(env, DummyVecEnv) else ():
        if not (isinstance(one.step, partial) and one.step.func is _step):
            one.step = partial(_step, one.step)  # type: ignore[method-assign]


def _step(step: Callable[[Any], tuple[Any, ...]], action: Any) -> tuple[Any, ...]:
    obs, reward, terminated, truncated, info = step(action)
    return (deepcopy(obs) if terminated or truncated else obs), reward, terminated, truncated, info
