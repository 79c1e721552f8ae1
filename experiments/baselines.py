"""The algorithms to compare with, as others tuned them."""

from __future__ import annotations

import copy
import difflib
import functools
import importlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn

from jepa_agent.spaces import policy_name

BASELINES = {
    "PPO": "stable_baselines3:PPO",
    "A2C": "stable_baselines3:A2C",
    "DQN": "stable_baselines3:DQN",
    "QRDQN": "sb3_contrib:QRDQN",
    "SAC": "stable_baselines3:SAC",
    "TD3": "stable_baselines3:TD3",
    "TQC": "sb3_contrib:TQC",
    "CrossQ": "sb3_contrib:CrossQ",
}
_ANY = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
_ACTION_SPACES: dict[str, tuple[type[spaces.Space], ...]] = {
    "PPO": _ANY,
    "A2C": _ANY,
    "DQN": (spaces.Discrete,),
    "QRDQN": (spaces.Discrete,),
}
EXTRAS = ("n_envs", "normalize", "noise_type", "noise_std")
"""Settings beside those of an algorithm's constructor, see baselines.yaml."""
_NOISES: dict[str, type[NormalActionNoise] | type[OrnsteinUhlenbeckActionNoise]] = {
    "normal": NormalActionNoise,
    "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise,
}


def algorithm_class(algorithm: str) -> type[BaseAlgorithm]:
    """The class of a baseline by name, or any algorithm of yours as ``module:Class``.

    Raises ValueError if there is no such baseline, class or module, or the class is no SB3 algorithm.
    """
    module, _, name = (algorithm if ":" in algorithm else BASELINES[_known(algorithm)]).partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        hint = ": pip install 'jepa_agent[baselines]'" if error.name == "sb3_contrib" else ""
        raise ValueError(f"{algorithm} needs the module {error.name!r}, which is not installed{hint}") from error
    except AttributeError as error:
        raise ValueError(f"{algorithm}: module {module!r} has no {name!r}") from error
    except Exception as error:  # whatever a module of the user's raises
        raise ValueError(f"{algorithm}: importing {module!r} raised {error!r}") from error
    if not (isinstance(found, type) and issubclass(found, BaseAlgorithm)):
        raise ValueError(f"{algorithm} is no Stable-Baselines3 algorithm")
    return found


def fits(algorithm: str, action_space: spaces.Space) -> bool:
    """Whether the baseline can act in this action space; ValueError if there is no such baseline. An algorithm of yours
    is taken at its word."""
    return ":" in algorithm or isinstance(action_space, _ACTION_SPACES.get(_known(algorithm), (spaces.Box,)))


def settings(algorithm: str, env_id: str) -> dict[str, Any]:
    """The tuned settings for an environment, or the default ones, as `baselines.yaml` has them (a copy).

    An algorithm of yours has its constructor's. Raises ValueError if there is no such baseline.
    """
    if ":" in algorithm:
        return {}
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
    with ExitStack() as opened:
        env = make_vec_env(env_id, chosen.pop("n_envs", 1), seed=seed, env_kwargs=env_kwargs)
        opened.callback(env.close)
        if not fits(algorithm, env.action_space):
            able = ", ".join(name for name in BASELINES if fits(name, env.action_space)) or "none"
            raise ValueError(
                f"{algorithm} cannot act in {env_id}, whose actions are {env.action_space}; baselines that can: {able}"
            )
        model = _baseline_on(env, algorithm, seed, normalize, chosen)
        opened.pop_all()
    return model


def _baseline_on(env: VecEnv, algorithm: str, seed: int, normalize: Any, chosen: dict[str, Any]) -> BaseAlgorithm:
    if normalize:
        discount = {"gamma": chosen["gamma"]} if "gamma" in chosen else {}
        env = VecNormalize(env, **{**discount, **(normalize if isinstance(normalize, dict) else {})})
    if "noise_type" in chosen:
        chosen["action_noise"] = _noise(chosen.pop("noise_type"), chosen.pop("noise_std"), env.action_space)
    policy = chosen.pop("policy", policy_name(env.observation_space))
    arguments = {name: _schedule(value) for name, value in with_classes(chosen).items()}
    return algorithm_class(algorithm)(policy, env, seed=seed, device="cpu", **arguments)


def with_classes(arguments: dict[str, Any]) -> dict[str, Any]:
    """A copy of constructor arguments as a file has them, the name of an activation turned into torch's class."""
    given = copy.deepcopy(arguments)
    chosen = given.get("policy_kwargs", {})
    if isinstance(chosen.get("activation_fn"), str):
        name = chosen["activation_fn"]
        if not isinstance(getattr(nn, name, None), type):
            raise ValueError(f"activation_fn must be the name of a class of torch.nn, such as ReLU, got {name!r}")
        chosen["activation_fn"] = getattr(nn, name)
    return given


@functools.cache
def _table() -> dict[str, dict[str, dict[str, Any]]]:
    return yaml.safe_load(Path(__file__).with_name("baselines.yaml").read_text())


def _known(algorithm: str) -> str:
    if algorithm.replace("-", "") in BASELINES:
        return algorithm.replace("-", "")  # QR-DQN, as its paper has it
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
