"""The algorithms to compare with, as others tuned them."""

from __future__ import annotations

import copy
import difflib
import functools
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

BASELINES: dict[str, type[BaseAlgorithm]] = {"PPO": PPO, "DQN": DQN, "SAC": SAC, "TD3": TD3}

_ACTION_SPACES: dict[str, tuple[type[spaces.Space], ...]] = {
    "PPO": (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary),
    "DQN": (spaces.Discrete,),
    "SAC": (spaces.Box,),
    "TD3": (spaces.Box,),
}
_NOISES: dict[str, type[NormalActionNoise] | type[OrnsteinUhlenbeckActionNoise]] = {
    "normal": NormalActionNoise,
    "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise,
}


def fits(algorithm: str, action_space: spaces.Space) -> bool:
    """Whether the baseline can act in this action space; ValueError if there is no such baseline."""
    return isinstance(action_space, _ACTION_SPACES[_known(algorithm)])


def settings(algorithm: str, env_id: str) -> dict[str, Any]:
    """The tuned settings for an environment, or the default ones, as `baselines.yaml` has them (a copy).

    Raises ValueError if there is no such baseline.
    """
    entries = _table()[_known(algorithm)]
    return copy.deepcopy(entries.get(env_id.split(":")[-1], entries["default"]))


def make_baseline(
    algorithm: str,
    env_id: str,
    seed: int,
    env_kwargs: dict[str, Any] | None = None,
    overrides: dict[str, Any] | None = None,
) -> BaseAlgorithm:
    """A baseline on the CPU with its own seeded environments and tuned settings, some replaced by ``overrides``.

    Raises ValueError if there is no such baseline or it cannot act in the environment.
    """
    chosen = {**settings(algorithm, env_id), **(overrides or {})}
    chosen.pop("source", None)
    normalize = chosen.pop("normalize", False)
    env: VecEnv = make_vec_env(env_id, chosen.pop("n_envs", 1), seed=seed, env_kwargs=env_kwargs)
    if not fits(algorithm, env.action_space):
        env.close()
        able = ", ".join(name for name in BASELINES if fits(name, env.action_space)) or "none"
        raise ValueError(
            f"{algorithm} cannot act in {env_id}, whose actions are {env.action_space}; baselines that can: {able}"
        )
    if normalize:
        discount = {"gamma": chosen["gamma"]} if "gamma" in chosen else {}
        env = VecNormalize(env, **{**discount, **(normalize if isinstance(normalize, dict) else {})})
    if "noise_type" in chosen:
        chosen["action_noise"] = _noise(chosen.pop("noise_type"), chosen.pop("noise_std"), env.action_space)
    policy = chosen.pop("policy", "MlpPolicy")
    arguments = {name: _schedule(value) for name, value in chosen.items()}
    return BASELINES[algorithm](policy, env, seed=seed, device="cpu", **arguments)


@functools.cache
def _table() -> dict[str, dict[str, dict[str, Any]]]:
    return yaml.safe_load(Path(__file__).with_name("baselines.yaml").read_text())


def _known(algorithm: str) -> str:
    if algorithm in BASELINES:
        return algorithm
    near = difflib.get_close_matches(algorithm.upper(), BASELINES, n=2, cutoff=0.5)
    hint = f", did you mean {' or '.join(near)}?" if near else ";"
    raise ValueError(f"there is no baseline {algorithm!r}{hint} Choose from {', '.join(BASELINES)}")


def _noise(kind: str, std: float, action_space: spaces.Space) -> ActionNoise:
    if kind not in _NOISES:
        raise ValueError(f"noise_type must be one of {', '.join(_NOISES)}, got {kind!r}")
    shape = action_space.shape
    assert shape is not None
    return _NOISES[kind](mean=np.zeros(shape), sigma=np.full(shape, std))


def _schedule(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("lin_"):
        return LinearSchedule(float(value.removeprefix("lin_")), 0.0, 1.0)
    return value
