"""One door: ``jepa-agent <verb>``. Each verb is a file here and holds no logic of its own."""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import ModuleType

from jepa_agent.interruption import Interrupted, heeded

VERBS = {
    "train": "train an agent on a Gymnasium environment",
    "evaluate": "measure a trained agent in Mode-1 and Mode-2",
    "enjoy": "record a video of a trained agent",
    "compare": "set JEPA beside Stable-Baselines3 baselines over several seeds",
    "plot": "draw learning curves from any mix of run folders",
    "speed": "time updates, plans and actions on this machine beside Stable-Baselines3's SAC",
    "plan-bench": "set planners side by side on a trained agent, at equal compute",
    "explain": "draw one episode: who acted, what was expected and what came",
    "envs": "list the installed environments and whether they are supported",
    "doctor": "say what this machine has and whether anything will be missed",
    "completion": "print a script that completes verbs and flags in bash or zsh",
}


def _terminate(signum: int, _: object) -> None:
    """End things at SIGTERM and SIGHUP as orderly as at Ctrl-C."""
    raise Interrupted(signum)


def _print_nowhere() -> None:
    """Let what is printed from now on go nowhere, down to the flush at the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _help() -> str:
    verbs = "\n".join(f"  {verb:<12}{what}" for verb, what in VERBS.items())
    return (
        f"usage: jepa-agent <verb> [options]\n\n{verbs}\n\n"
        "jepa-agent <verb> --help tells more; for a start: jepa-agent train --env CartPole-v1 -n 5000 -P"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0, 2 for input that cannot be used (told in one line), 130 or 143 if stopped."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        try:
            print(_help(), flush=True)
        except BrokenPipeError:
            _print_nowhere()
        return 0
    if arguments[0] == "--version":
        from jepa_agent._version import __version__

        print(f"jepa-agent {__version__}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(VERBS)}"
        print(f"jepa-agent: error: unknown verb {verb!r}; {hint}", file=sys.stderr)
        return 2
    # Imported late: torch takes seconds, and a mistyped verb should not.
    from jepa_agent.cli.common import UsageError
    from jepa_agent.experiments.folders import FolderError

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does, so that --env module:EnvId finds a module of the user's
    previous = {signum: signal.signal(signum, _terminate) for signum in heeded() if signum != signal.SIGINT}
    try:
        code = int(module_of(verb).run(rest) or 0)
        sys.stdout.flush()
        return code
    except (UsageError, FolderError) as error:
        print(f"jepa-agent {verb}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"jepa-agent {verb}: interrupted", file=sys.stderr)
        return exit_code(stop)
    except BrokenPipeError:  # whoever read what is printed has gone
        _print_nowhere()
        return 0
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def module_of(verb: str) -> ModuleType:
    """The file of a verb, imported."""
    return importlib.import_module(f"jepa_agent.cli.{verb.replace('-', '_')}")


def exit_code(stop: KeyboardInterrupt) -> int:
    """What a shell expects of a process stopped by a signal: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + (stop.signum if isinstance(stop, Interrupted) else signal.SIGINT)
