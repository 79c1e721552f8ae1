"""One door: ``jepa-agent <verb>``. Each verb is a file here and holds no logic of its own."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from types import ModuleType
from typing import Any, TextIO

from jepa_agent.extras import MissingExtraError, needs
from jepa_agent.interruption import Interrupted, stop_signals

VERBS = {
    "train": "train an agent on a Gymnasium environment",
    "pretrain": "fit a world model without rewards, for train --from or a goal",
    "evaluate": "measure a trained agent in Mode-1 and Mode-2",
    "enjoy": "record a video of a trained agent",
    "compare": "set JEPA beside Stable-Baselines3 baselines over several seeds",
    "plot": "draw learning curves from any mix of run folders",
    "speed": "time updates, plans and actions on this machine beside SB3's SAC",
    "plan-bench": "set planners side by side on a trained agent, at equal compute",
    "explain": "draw one episode: who acted, what was expected and what came",
    "audit": "set what an agent expects beside what came, energy by energy",
    "envs": "list the installed environments and whether they are supported",
    "doctor": "say what this machine has and whether anything will be missed",
    "completion": "print a script that completes verbs and flags in bash or zsh",
}


_READ_FIRST = ("--resume", "--from", "--data")  # settings lie there, which the verb reads before it parses


class UsageError(ValueError):
    """Input that cannot be used; the message is the one line the user sees."""


def _terminate(signum: int, _: object) -> None:
    """End things at SIGTERM and SIGHUP as orderly as at Ctrl-C."""
    raise Interrupted(signum)


class _Printed:
    """Standard output, where work is not over because `head` has seen enough: once nobody reads, it leads nowhere, down to
    the flush at the interpreter's end.

    Attributes:
        is_read: Whether somebody still reads.
    """

    def __init__(self, stream: TextIO):
        self._stream, self.is_read = stream, True

    def write(self, text: str) -> int:
        """Print."""
        try:
            return self._stream.write(text)
        except OSError:
            self._lead_nowhere()
            return len(text)

    def flush(self) -> None:
        """Print what is left."""
        try:
            self._stream.flush()
        except OSError:
            self._lead_nowhere()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lead_nowhere(self) -> None:
        self.is_read = False
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def _tell(text: str) -> None:
    """Print to stderr, if anybody reads it."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _one_line(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """A warning without the place in the code that it came from."""
    return f"jepa-agent: warning: {' '.join(str(message).split())}\n"


def _help() -> str:
    verbs = "\n".join(f"  {verb:<12}{what}" for verb, what in VERBS.items())
    return (
        f"usage: jepa-agent VERB [flags]\n\n{verbs}\n\n"
        "For a start: jepa-agent train --env CartPole-v1 -n 5000 -P\n"
        "jepa-agent VERB --help shows the flags to begin with, --help-all shows them all."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0, 1 for what failed, 2 for input that cannot be used (told in one line),
    129, 130 or 143 if stopped by SIGHUP, SIGINT or SIGTERM."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    before, warnings.formatwarning = warnings.formatwarning, _one_line
    previous = {signum: signal.signal(signum, _terminate) for signum in stop_signals() if signum != signal.SIGINT}
    printed: Any = _Printed(sys.stdout) if sys.stdout is not None else None
    try:
        with redirect_stdout(printed):
            return _run(arguments)
    finally:
        if printed is not None:
            printed.flush()
        warnings.formatwarning = before
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "--help-all"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        from jepa_agent._version import __version__

        print(f"jepa-agent {__version__}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        from jepa_agent.config import did_you_mean

        if verb.startswith("-"):
            _tell(f"jepa-agent: error: {verb} comes before a verb; write a verb first: jepa-agent train --env CartPole-v1")
        else:
            _tell(f"jepa-agent: error: unknown verb {verb!r}{did_you_mean(verb, VERBS)}")
        return 2
    # Imported late: a verb imports torch, which takes seconds, and what is mistyped should not.
    from jepa_agent.experiments.folders import FolderError

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does, so that --env module:EnvId finds a module of the user's
    try:
        with needs("cli"):
            from jepa_agent.cli.flags import parser_of
        parser = parser_of(verb)
        if parser.print_asked_help(rest):
            return 0
        if not any(word.partition("=")[0] in _READ_FIRST for word in rest):
            parser.parse_plain(rest)
        return int(module_of(verb).run(rest) or 0)
    except (UsageError, FolderError, MissingExtraError) as error:
        _tell(f"jepa-agent {verb}: error: {error}")
        return 2
    except KeyboardInterrupt as stop:
        _tell(f"jepa-agent {verb}: interrupted")
        return exit_code(stop)
    except OSError as error:  # a disk that is full, a file that is no file
        _tell(f"jepa-agent {verb}: error: {error}")
        return 1


def module_of(verb: str) -> ModuleType:
    """The file of a verb, imported; `MissingExtraError` if an extra is missing that it needs."""
    with needs("cli"):  # here for all verbs, whose files then import what they like
        return importlib.import_module(f"jepa_agent.cli.{verb.replace('-', '_')}")


def exit_code(stop: KeyboardInterrupt) -> int:
    """What a shell expects of a process stopped by a signal: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + (stop.signum if isinstance(stop, Interrupted) else signal.SIGINT)
