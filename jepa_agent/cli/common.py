"""What the verbs share: environments by name, run folders, what is printed."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from rich.console import Console
from rich.progress import Progress

from jepa_agent.acting.mode_switch import make_mode_switch
from jepa_agent.cli import UsageError
from jepa_agent.config import did_you_mean, near_names
from jepa_agent.experiments.folders import refuse_if_held
from jepa_agent.extras import pip_line
from jepa_agent.learning.terms import Cost, RepresentationTerm, Termination, make_terms
from jepa_agent.spaces import check_spaces

CONFIG = "config.yml"
# Packages whose environments Gymnasium knows once they are imported, by the first word of their ids.
_REGISTERED_BY = {
    "ALE": "ale_py",
    "MiniGrid": "minigrid",
    "BabyAI": "minigrid",
    "dm_control": "shimmy",
    "Fetch": "gymnasium_robotics",
    "PointMaze": "gymnasium_robotics",
    "AntMaze": "gymnasium_robotics",
    "highway": "highway_env",
    "popgym": "popgym",
}


_PIPED_WIDTH = 200  # characters


# ---------------------------------------------------------------------- environments


def make_env(env_id: str, env_kwargs: dict[str, Any] | None = None, **more: Any) -> gym.Env:
    """An environment by its id.

    Args:
        env_id: As ``CartPole-v1``, or ``module:EnvId`` for one that a module registers.
        env_kwargs: Its arguments.
        more: Arguments of ours, as ``render_mode``; they go before the user's.

    Raises:
        UsageError: It cannot be made; with near names or the missing extra.
    """
    try:
        return gym.make(env_id, **{**(env_kwargs or {}), **more})
    except ModuleNotFoundError as error:
        what = first_line(error).partition(". ")[0]
        raise UsageError(f"environment {env_id!r}: {what}; install it, or check the name") from error
    except gym.error.DependencyNotInstalled as error:
        extra = _extra_for(env_id)
        hint = pip_line(extra) if extra else str(error).splitlines()[0]
        raise UsageError(f"environment {env_id!r} needs a package that is not installed: {hint}") from error
    except gym.error.UnregisteredEnv as error:
        if isinstance(error, gym.error.DeprecatedEnv):
            raise UsageError(f"environment {env_id!r}: {first_line(error)}") from error
        raise UsageError(f"unknown environment {env_id!r}{_way_to(env_id)}") from error
    except Exception as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown and unknown[1] in (env_kwargs or {}):
            names = _arguments_of(env_id)
            raise UsageError(
                f"environment {env_id!r} has no argument {unknown[1]!r}{did_you_mean(unknown[1], names)}"
            ) from error
        raise UsageError(f"environment {env_id!r} could not be made: {first_line(error)}") from error


def newest_envs() -> list[str]:
    """Ids of the newest version of every registered environment."""
    best: dict[str, gym.envs.registration.EnvSpec] = {}
    for spec in gym.registry.values():
        key = f"{spec.namespace or ''}/{spec.name}"
        if key not in best or (spec.version or 0) > (best[key].version or 0):
            best[key] = spec
    return [spec.id for spec in best.values()]


def _arguments_of(env_id: str) -> list[str]:
    """The arguments of an environment; none if its code does not say."""
    point = gym.spec(env_id).entry_point
    make = gym.envs.registration.load_env_creator(point) if isinstance(point, str) else point
    return [name for name in inspect.signature(make).parameters if name != "render_mode"] if callable(make) else []


def _way_to(env_id: str) -> str:
    """What may have been meant by an id that Gymnasium does not know, or how to make it known."""
    family = re.split(r"[/-]", env_id)[0]
    installed = newest_envs()
    own = [name for name in installed if "/" not in name]  # before those of namespaces, whose names may be the same
    names = own if near_names(env_id, own) else installed
    near = did_you_mean(env_id, names) if family not in _REGISTERED_BY else ""
    hint = near or "; jepa-agent envs lists what is installed"
    if near or ":" in env_id:
        return hint
    package = _REGISTERED_BY.get(family, "module")
    return f"{hint}; if a package has it, name its module too: --env {package}:{env_id}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its name if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _extra_for(env_id: str) -> str | None:
    spec = gym.registry.get(env_id.split(":")[-1])
    point = str(spec.entry_point) if spec else ""
    return next((extra for extra in ("mujoco", "box2d") if extra in point), None)


def check_env(env_id: str, env_kwargs: dict[str, Any]) -> None:
    """Make an environment once and see that its spaces are supported.

    Args:
        env_id: As for `make_env`.
        env_kwargs: Its arguments.

    Raises:
        UsageError: It cannot be made, or a space is not supported.
    """
    env = make_env(env_id, env_kwargs)
    try:
        check_spaces(env.observation_space, env.action_space)
    except ValueError as error:
        raise UsageError(f"environment {env_id!r}: {error}") from error
    finally:
        env.close()


def check_mode(*modes: str) -> None:
    """`UsageError` if a mode is none that exists."""
    try:
        for mode in modes:
            make_mode_switch(mode)
    except ValueError as error:
        raise UsageError(str(error)) from error


def chosen_terms(words: Sequence[str] | None) -> list[RepresentationTerm] | None:
    """The representation's terms by the words of ``--terms``; None if there are none. Cost and termination are added unless
    named: without them, plans do not know what steps cost and whether they end the episode.

    Args:
        words: Names with weights, as for `make_terms`.

    Raises:
        UsageError: A term is not known, or its weight is none.
    """
    if words is None:
        return None
    try:
        made = make_terms(words)
    except ValueError as error:
        raise UsageError(f"--terms: {error}") from error
    return [*made, *(term() for term in (Cost, Termination) if not any(isinstance(one, term) for one in made))]


def check_device(device: str) -> None:
    """`UsageError` if torch cannot compute there; SB3 would quietly take the CPU instead."""
    try:
        if device != "auto":
            torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        known = "Expected one of" not in str(error)  # torch then lists all hardware it has a name for
        what = f"cannot be used: {first_line(error)}" if known else "is no device"
        raise UsageError(f"--device {device} {what}; choose cpu or auto, or cuda where there is a GPU") from error


# ---------------------------------------------------------------------- folders and models


def fresh_folder(path: Path) -> Path:
    """Make a folder that does not exist or is empty; `UsageError` if it is in use or cannot be written."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        refuse_if_held(path)
        raise UsageError(f"output folder {path} is in use: name another, or remove it first")
    return writable_folder(path)


def writable_folder(path: Path) -> Path:
    """Make a folder if need be; `UsageError` if it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"folder {path} cannot be written: {error.strerror}") from error
    return path


def numbered_folder(root: Path, name: str) -> Path:
    """The first free folder of a name.

    Args:
        root: Where to look.
        name: What precedes ``_<n>``.
    """
    taken = [int(p.name.rsplit("_", 1)[1]) for p in root.glob(f"{name}_*") if p.name.rsplit("_", 1)[1].isdigit()]
    return root / f"{name}_{max(taken, default=0) + 1}"


@contextmanager
def progress(what: str, episodes: int) -> Iterator[Callable[[dict[str, Any], dict[str, Any]], None]]:
    """A progress bar with the time left.

    Args:
        what: Written before the bar.
        episodes: In all.

    Returns:
        What `evaluate_policy` may call back; the bar advances at every episode's end.
    """
    with Progress(*Progress.get_default_columns(), console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=episodes)
        yield lambda local, _: bar.advance(task, float(bool(local["done"])))


def say(text: str) -> None:
    """Print as it is: paths are neither wrapped nor coloured."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def say_anyway(text: str) -> None:
    """`say`; on stderr where nobody reads stdout any more, and to nobody where nobody reads that."""
    say(text)
    if not getattr(sys.stdout, "is_read", True):
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def program(name: str) -> str:
    """How a program of this environment is called from a shell that starts here: by its name where that finds it, else with
    its folder.

    Args:
        name: As ``jepa-agent``.
    """
    own = Path(sys.executable).with_name(name)  # not resolved: the interpreter of a virtual environment is a link
    found = shutil.which(name)
    if not own.exists() or (found and Path(found).samefile(own)):
        return name
    return shlex.quote(str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own))


def headless() -> None:
    """Let environments render without a screen."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # its greeting is not ours to print


if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)  # networks this small gain nothing from more, and processes side by side would fight


console = Console()
if not console.is_terminal:  # a file or a pipe has no width: rows are not to be broken
    console.width = max(console.width, _PIPED_WIDTH)
