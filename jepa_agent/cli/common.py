"""What the verbs share: a parser that answers in one line, environments by name, run folders."""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import gymnasium as gym
import torch
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import restricted_number_type
from rich.console import Console
from rich.progress import Progress

from jepa_agent.acting.exploration import EXPLORATIONS
from jepa_agent.acting.mode_switch import BUDGETED, make_mode_switch, modes
from jepa_agent.cli import UsageError
from jepa_agent.environments.workers import MOST_SECONDS
from jepa_agent.experiments.folders import refuse_if_held
from jepa_agent.extras import pip_line
from jepa_agent.model.encoders import ENCODERS
from jepa_agent.model.memory import MEMORIES
from jepa_agent.persistence.plain_data import check_import
from jepa_agent.persistence.yaml_file import read_yaml
from jepa_agent.planning import kinds
from jepa_agent.spaces import check_spaces

CONFIG = "config.yml"
_LISTED: dict[str, Callable[[], Iterable[str]]] = {  # by flag, the parts it may name
    "planner.kind": kinds,
    "agent.memory": lambda: ["none", *MEMORIES],
    "agent.exploration": lambda: EXPLORATIONS,
    "model.encoder": lambda: ENCODERS,
}


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
_GONE = ("agent.exploration_std", "agent.target_noise")  # settings that recorded runs may still name


class Parser(ArgumentParser):
    """jsonargparse with errors of one line and near names for what was mistyped."""

    def __init__(self, verb: str, description: str, example: str):
        super().__init__(
            prog=f"jepa-agent {verb}",
            description=f"{description} Example: {example}",
            exit_on_error=False,
            default_env=False,
        )

    def add_argument(self, *names: str, **settings: Any) -> Any:
        """As jsonargparse's; where a setting names a part, its help lists those that are registered."""
        added = super().add_argument(*names, **settings)
        for action in self._actions:
            listed = _LISTED.get(action.dest)
            if listed and action.help and " One of " not in action.help:
                action.help = f"{action.help} One of {', '.join(listed())}."
        return added

    def parse(self, argv: Sequence[str]) -> Namespace:
        """Parsed and instantiated settings; `UsageError` for anything that does not fit."""
        return self.build(self.parse_plain(argv))

    def parse_plain(self, argv: Sequence[str]) -> Namespace:
        """Settings as plain values, as they are written to a config file."""
        names = [f"[{one.dest}]" if one.nargs in ("?", "*") else one.dest for one in self._actions if not one.option_strings]
        self.usage = " ".join(["%(prog)s", *names, "[flags]"])  # what the verb is for comes first in its help, not all flags
        with self._one_line_errors():
            self._check_data(argv)
            return self.parse_args(_zoo_style(argv))

    def _check_data(self, argv: Sequence[str]) -> None:
        """``ValueError`` if settings name a class to be built, or a config file an environment's module that the user did
        not name himself."""
        for option, value in pairwise([*argv, ""]):
            name, equals, inline = option.partition("=")
            if name == "--config":
                content = read_yaml(Path(inline if equals else value))
                env = content.get("env") if isinstance(content, dict) else None
                if isinstance(env, str) and env not in argv and f"--env={env}" not in argv:
                    check_import(env, inline or value, "--env")
            elif "class_path" in option:
                raise ValueError(f"{option}: class_path names what is to be called, which settings may not: leave it out")

    def given(self, argv: Sequence[str]) -> Namespace:
        """Plain values of what is said in ``argv``, and nothing else."""
        with self._one_line_errors():
            return self.parse_args(_zoo_style(argv), defaults=False)

    def build(self, plain: Namespace) -> Namespace:
        """Plain values turned into the objects they describe, their ranges checked."""
        with self._one_line_errors():
            return self.instantiate(plain)

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        try:
            yield
        except UsageError:
            raise
        except Exception as error:  # jsonargparse and the dataclasses' range checks raise many kinds
            raise UsageError(self._one_line(str(error))) from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # type: ignore[override]
        """As argparse's, but what is wrong is raised, for `main` to print in one line.

        Raises:
            UsageError: Always.
        """
        raise UsageError(self._one_line(str(message)))

    def _one_line(self, message: str) -> str:
        lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
        text = "; ".join(lines[:3]) if lines else message
        text = re.sub(r'Parser key "([^"]+)"( element \d+)?:;? (Not of type \w+: )?', r"\1: ", text)
        flags = {option for action in self._actions for option in action.option_strings if option.startswith("--")}
        keys = {option[2:].replace("-", "_") for option in flags}
        mistyped = re.search(r"(--[\w.\-]+)|'([\w.\-]+)' is not accepted|Group '(\w+)' does not accept option '(\w+)'", text)
        if mistyped:
            flag, key, group, inner = mistyped.groups()
            word = flag or key or f"{group}.{inner}"
            if word.removeprefix("--") in _GONE:
                return f"{text}; since 0.2.0 the actor explores by draws of its own: leave it out"
            names = sorted(flags if flag else keys)
            near = [] if word in names else difflib.get_close_matches(word, names, n=2, cutoff=0.6)
            if near:
                return f"{text}; did you mean {' or '.join(near)}?"
        return text


def _zoo_style(argv: Sequence[str]) -> list[str]:
    """``--env-kwargs g:9.8 k:'8x8'`` as rl_zoo3 has it, and ``--env-kwargs.g 9.8``, whose values are Python literals, as one
    ``--env-kwargs`` of JSON."""
    words: list[str] = []
    found: dict[str, Any] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        dotted = re.fullmatch(r"--env-kwargs\.(\w+)(?:=(.*))?", word, re.DOTALL)
        if dotted and (dotted[2] is not None or rest):
            found[dotted[1]] = _literal(rest.pop(0) if dotted[2] is None else dotted[2])
            continue
        pairs = []
        while word == "--env-kwargs" and rest and (pair := re.fullmatch(r"(\w+):(.+)", rest[0], re.DOTALL)):
            pairs.append((pair[1], _literal(pair[2])))
            rest.pop(0)
        found.update(pairs)
        if not pairs:
            words.append(word)
    return [*words, f"--env-kwargs={json.dumps(found)}"] if found else words


def _literal(text: str) -> Any:
    """What a Python literal means, or YAML's words for some of them; anything else is a text."""
    words = {"true": True, "false": False, "null": None}
    try:
        value = ast.literal_eval(text)
        json.dumps(value)
        return value
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return words.get(text, text)


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
        raise UsageError(f"environment {env_id!r}: {first_line(error)}; install it, or check the name") from error
    except gym.error.DependencyNotInstalled as error:
        extra = _extra_for(env_id)
        hint = pip_line(extra) if extra else str(error).splitlines()[0]
        raise UsageError(f"environment {env_id!r} needs a package that is not installed: {hint}") from error
    except gym.error.UnregisteredEnv as error:
        if isinstance(error, gym.error.DeprecatedEnv):
            raise UsageError(f"environment {env_id!r}: {first_line(error)}") from error
        here = [name for name in gym.registry if name.rpartition("/")[0] == env_id.rpartition("/")[0]]
        near = difflib.get_close_matches(env_id, here, n=3, cutoff=0.6)
        hint = f"did you mean {', '.join(near)}?" if near else "jepa-agent envs lists what is installed"
        if ":" not in env_id:
            package = _REGISTERED_BY.get(re.split(r"[/-]", env_id)[0], "module")
            hint += f"; if a package has it, name its module too, as {package}:{env_id}"
            hint += ", for Gymnasium knows it only once that is imported"
        raise UsageError(f"unknown environment {env_id!r}; {hint}") from error
    except Exception as error:
        raise UsageError(f"environment {env_id!r} could not be made: {first_line(error)}") from error


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


def modes_help() -> str:
    """The modes there are, for a flag's help."""
    return (
        f"{', '.join(modes()).replace('every_k', 'every_4')}; {', '.join(BUDGETED)} may have a budget, a share of the steps "
        "(auto_0.25) or milliseconds of searching per step (auto_2ms)"
    )


def check_mode(*modes: str) -> None:
    """`UsageError` if a mode is none that exists."""
    try:
        for mode in modes:
            make_mode_switch(mode)
    except ValueError as error:
        raise UsageError(str(error)) from error


def check_device(device: str) -> None:
    """`UsageError` if torch cannot compute there; SB3 would quietly take the CPU instead."""
    try:
        if device != "auto":
            torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device} cannot be used: {first_line(error)}; choose cpu or auto") from error


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
SECONDS = restricted_number_type("Seconds", float, [(">", 0), ("<=", MOST_SECONDS)])
SEED = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32 - 20_000)])
