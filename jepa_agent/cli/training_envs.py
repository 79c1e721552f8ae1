"""The environments of ``jepa-agent train``: wrapped, monitored, side by side, and closed in the end."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import gymnasium as gym
from jsonargparse import Namespace
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from jepa_agent.cli import continuing
from jepa_agent.cli.common import first_line, make_env
from jepa_agent.environments.guards import EndOnBadObservation, WorkerVecEnv
from jepa_agent.environments.workers import RestartingEnv, Worker
from jepa_agent.persistence.logs import mend_monitor_file, with_resumable_rows


def _wrapped(options: Namespace, name: str, wrapper_class: Any) -> gym.Env:
    """One environment, all wrapped but for the monitor, which is to see every end of an episode."""
    make: Callable[[], gym.Env] = partial(make_env, options.env, options.env_kwargs)
    if options.step_timeout is not None:
        make = partial(Worker, partial(gym.make, options.env, **options.env_kwargs), options.step_timeout)
    restarting = options.step_timeout is not None or options.env_restarts
    env = RestartingEnv(make, options.env_restarts, name) if restarting else make()
    env = EndOnBadObservation(env) if options.on_bad_obs == "end-episode" else env
    return wrapper_class(env) if wrapper_class else env


def monitored_env(options: Namespace, folder: Path, resumed: bool) -> VecEnv:
    """The environments to learn in; without monitor files, and with a warning, if those cannot be written.

    Args:
        options: Parsed flags.
        folder: Of the run.
        resumed: Whether monitor files are appended to.
    """
    try:
        for rank in range(options.n_envs if resumed else 0):
            mend_monitor_file(folder / f"{rank}.monitor.csv", options.env)
        return vec_env(options, options.n_envs, options.seed, folder)
    except OSError as error:
        warnings.warn(f"episodes are not written: {error}; training goes on", stacklevel=2)
        return vec_env(options, options.n_envs, options.seed, None)


def vec_env(
    options: Namespace, n_envs: int, seed: int, folder: Path | None, name: str = "environment", wrapper_class: Any = None
) -> VecEnv:
    """Monitored environments side by side. All are closed if one of them fails.

    Args:
        options: Parsed flags.
        n_envs: How many.
        seed: Of the first; the others get those that follow.
        folder: Of monitor files, whose rows stay; None writes none.
        name: Of an environment, for messages.
        wrapper_class: Around each, below the monitor.
    """
    resumed = bool(folder and list(folder.glob("*.monitor.csv")))
    ranks = count()
    with ExitStack() as opened:

        def make() -> gym.Env:
            env = _wrapped(options, f"{name} {next(ranks)}", wrapper_class)
            opened.callback(close, env)
            return env

        env = make_vec_env(
            make,
            n_envs,
            seed,
            monitor_dir=str(folder) if folder else None,
            monitor_kwargs={"override_existing": not resumed},
            wrapper_class=with_resumable_rows,
            vec_env_cls=DummyVecEnv if options.step_timeout is None else WorkerVecEnv,
        )
        if folder and resumed:
            env.set_attr("t_start", continuing.start_of_monitoring(folder))
        opened.pop_all()
    return env


def close(env: gym.Env | VecEnv) -> None:
    """Close environments; one that fails at it has nothing to lose any more."""
    try:
        env.close()
    except Exception as error:
        warnings.warn(f"the environment could not be closed: {first_line(error)}", stacklevel=2)
