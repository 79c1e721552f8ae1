"""The baselines JEPA is compared with: SB3 and sb3_contrib algorithms with hyperparameters that others tuned.

`baselines.yaml` holds the hyperparameters by algorithm and environment, with the source of each entry.
"""

from __future__ import annotations

import copy
import functools
import importlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn

from jepa_agent.config import did_you_mean
from jepa_agent.extras import needs, pip_line
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
# Action spaces by algorithm; an algorithm that is not listed takes Box actions only.
_ANY = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
_ACTION_SPACES: dict[str, tuple[type[spaces.Space], ...]] = {
    "PPO": _ANY,
    "A2C": _ANY,
    "DQN": (spaces.Discrete,),
    "QRDQN": (spaces.Discrete,),
}
EXTRAS = ("n_envs", "normalize", "noise_type", "noise_std")
"""Settings beside those of an algorithm's constructor, see baselines.yaml."""
# rl_zoo3's names of action noise.
_NOISES: dict[str, type[NormalActionNoise] | type[OrnsteinUhlenbeckActionNoise]] = {
    "normal": NormalActionNoise,
    "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise,
}


def algorithm_class(algorithm: str) -> type[BaseAlgorithm]:
    """Return the class of an algorithm.

    Args:
        algorithm: Name of a baseline, as in `BASELINES`, or ``module:Class`` for any other SB3 algorithm. The module is
            imported.

    Returns:
        A subclass of SB3's ``BaseAlgorithm``.

    Raises:
        ValueError: There is no such baseline, module or class, importing the module fails, or the class is no SB3 algorithm.
    """
    module, _, name = (algorithm if ":" in algorithm else BASELINES[_baseline_key(algorithm)]).partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        # The name of the missing module tells an extra that is not installed from a misspelt module.
        hint = f": {pip_line('baselines')}" if error.name == "sb3_contrib" else ""
        raise ValueError(f"{algorithm} needs the module {error.name!r}, which is not installed{hint}") from error
    except AttributeError as error:
        raise ValueError(f"{algorithm}: module {module!r} has no {name!r}") from error
    except Exception as error:  # a module of the user's may raise anything while it is imported
        raise ValueError(f"{algorithm}: importing {module!r} raised {error!r}") from error
    if not (isinstance(found, type) and issubclass(found, BaseAlgorithm)):
        raise ValueError(f"{algorithm} is no Stable-Baselines3 algorithm")
    return found


def fits(algorithm: str, action_space: spaces.Space) -> bool:
    """Return whether an algorithm supports an action space.

    Args:
        algorithm: Name of a baseline, or ``module:Class``, which is not checked and always counts as fitting.
        action_space: Action space of the environment.

    Raises:
        ValueError: There is no such baseline.
    """
    return ":" in algorithm or isinstance(action_space, _ACTION_SPACES.get(_baseline_key(algorithm), (spaces.Box,)))


def settings(algorithm: str, env_id: str) -> dict[str, Any]:
    """Return the tuned hyperparameters of an algorithm for an environment, or its defaults where none are tuned.

    Args:
        algorithm: Name of a baseline, or ``module:Class``, which has no tuned settings.
        env_id: Gymnasium id; the part before a colon, a module to import, is ignored.

    Returns:
        A copy of the entry in `baselines.yaml`: constructor arguments, those in `EXTRAS`, and ``source``. Empty for
        ``module:Class``.

    Raises:
        ValueError: There is no such baseline.
    """
    if ":" in algorithm:
        return {}
    entries = _tuned_settings()[_baseline_key(algorithm)]
    # A copy down to nested dictionaries, since the table is cached and callers may change what they get.
    return copy.deepcopy(entries.get(env_id.split(":")[-1], entries["default"]))


def make_baseline(
    algorithm: str,
    env_id: str,
    seed: int,
    env_kwargs: dict[str, Any] | None = None,
    overrides: dict[str, Any] | None = None,
) -> BaseAlgorithm:
    """Build an untrained baseline on the CPU, with its own seeded environments.

    Args:
        algorithm: Name of a baseline, or ``module:Class``.
        env_id: Gymnasium id.
        seed: Seed of the algorithm and of its environments.
        env_kwargs: Arguments of the environment.
        overrides: Settings that replace the tuned ones, by the names of `settings`.

    Raises:
        ValueError: There is no such baseline, it does not support the action space, or a setting has an unknown value.
    """
    chosen = {**settings(algorithm, env_id), **(overrides or {})}
    # The rest of `chosen` goes to the constructor, which does not take these.
    chosen.pop("source", None)
    normalize = chosen.pop("normalize", False)
    with ExitStack() as opened:
        env = make_vec_env(env_id, chosen.pop("n_envs", 1), seed=seed, env_kwargs=env_kwargs)
        # Until the model owns the environments, any error must close them.
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
    """Build the baseline on ``env``, adding reward and observation normalisation and action noise where ``chosen`` asks."""
    if normalize:
        # VecNormalize scales rewards by the spread of discounted returns, so its discount must be the algorithm's.
        discount = {"gamma": chosen["gamma"]} if "gamma" in chosen else {}
        env = VecNormalize(env, **{**discount, **(normalize if isinstance(normalize, dict) else {})})
    if "noise_type" in chosen:
        if "noise_std" not in chosen:
            raise ValueError(f"noise_type {chosen['noise_type']!r} was given without noise_std, its spread: give both")
        chosen["action_noise"] = _noise(chosen.pop("noise_type"), chosen.pop("noise_std"), env.action_space)
    policy = chosen.pop("policy", policy_name(env.observation_space))
    arguments = {name: _schedule(value) for name, value in with_classes(chosen).items()}
    return algorithm_class(algorithm)(policy, env, seed=seed, device="cpu", **arguments)


def with_classes(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of constructor arguments read from a file, with ``activation_fn`` as a class.

    Args:
        arguments: Constructor arguments; ``policy_kwargs["activation_fn"]`` may be the name of a class of `torch.nn`.

    Raises:
        ValueError: `torch.nn` has no class of that name.
    """
    # The caller's dictionary stays as JSON has it: it is written beside the results.
    given = copy.deepcopy(arguments)
    chosen = given.get("policy_kwargs", {})
    if isinstance(chosen.get("activation_fn"), str):
        name = chosen["activation_fn"]
        if not isinstance(getattr(nn, name, None), type):
            raise ValueError(f"activation_fn must be the name of a class of torch.nn, such as ReLU, got {name!r}")
        chosen["activation_fn"] = getattr(nn, name)
    return given


@functools.cache
def _tuned_settings() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the content of `baselines.yaml`, read once: settings by algorithm and environment."""
    with needs("compare"):
        import yaml
    return yaml.safe_load(Path(__file__).with_name("baselines.yaml").read_text())


def _baseline_key(algorithm: str) -> str:
    """Return the key of a baseline in `BASELINES`; ValueError with similar names if there is none."""
    if algorithm.replace("-", "") in BASELINES:
        return algorithm.replace("-", "")  # its paper writes QR-DQN
    raise ValueError(f"there is no baseline {algorithm!r}{did_you_mean(algorithm, BASELINES)}")


def _noise(kind: str, std: float, action_space: spaces.Space) -> ActionNoise:
    """Build action noise of standard deviation ``std`` for every action dimension."""
    if kind not in _NOISES:
        raise ValueError(f"noise_type must be one of {', '.join(_NOISES)}, got {kind!r}")
    shape = action_space.shape
    assert shape is not None
    return _NOISES[kind](mean=np.zeros(shape), sigma=np.full(shape, std))


def _schedule(value: Any) -> Any:
    """Turn rl_zoo3's ``lin_x`` into a schedule that falls linearly from x to 0 over training; pass other values through."""
    if isinstance(value, str) and value.startswith("lin_"):
        return LinearSchedule(float(value.removeprefix("lin_")), 0.0, 1.0)
    return value
