"""Going on with a run: whether a folder holds one, whether it is the one asked for, whether it is finished."""

from __future__ import annotations

import argparse
import math
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from jsonargparse import Namespace

from jepa_agent.cli.common import CONFIG, UsageError, program
from jepa_agent.cli.parser import Parser
from jepa_agent.persistence import archive, checkpoint_folder
from jepa_agent.persistence.archive import CheckpointError, FormatError
from jepa_agent.persistence.checkpoint_folder import CHECKPOINTS
from jepa_agent.persistence.yaml_file import read_yaml

_OF_NO_MATTER = frozenset(
    (
        *("config", "resume", "output", "log_folder", "tensorboard_log", "progress", "verbose", "device"),
        *("n_timesteps", "save_freq", "keep_last", "step_timeout", "env_restarts"),
    )
)
_LOGS = ("*.monitor.csv", "events.out.tfevents.*")


def with_settings_of_run(argv: Sequence[str]) -> list[str]:
    """Replace ``--resume RUN`` by the settings of that run and its folder as output.

    Args:
        argv: Of ``train``.

    Raises:
        UsageError: No run is there.
    """
    flag = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flag.add_argument("--resume", nargs="?")
    asked, rest = flag.parse_known_args(list(argv))
    if asked.resume is None:
        return list(argv)
    config = Path(asked.resume) / CONFIG
    if not config.is_file():
        raise UsageError(f"--resume {asked.resume}: no run there, expected a folder with {CONFIG}")
    return ["--config", str(config), *rest, "--output", asked.resume]


def steps_done(folder: Path, parser: Parser, asked: Namespace) -> int | None:
    """Steps at the newest checkpoint of the run in a folder.

    Args:
        folder: Of the run.
        parser: Reads the run's settings.
        asked: Settings that were given now.

    Returns:
        0 if the run was stopped before its first checkpoint, None if no run is there.

    Raises:
        UsageError: The run has other settings than those asked for, or cannot be continued.
    """
    if not (folder / CONFIG).is_file():
        return None
    refuse_other_settings(folder, parser, asked)
    try:
        return checkpoint_folder.entries(folder / CHECKPOINTS)[-1].num_timesteps
    except CheckpointError as error:
        raise UsageError(f"{error}; to begin anew, name another --output") from error
    except FileNotFoundError as error:
        if (folder / "last_model.zip").exists():
            raise UsageError(f"{folder} is in use by a run that left no checkpoint: name another --output") from error
        return 0


def refuse_other_settings(
    folder: Path, parser: Parser, asked: Namespace, may_differ: frozenset[str] = _OF_NO_MATTER
) -> None:
    """`UsageError` if the run in a folder has other settings than those asked for now.

    Args:
        folder: Of the run.
        parser: Reads the run's settings.
        asked: Settings that were given now.
        may_differ: Names of settings, or of groups of them, that are not compared.
    """
    # The environment's module is named anew by the user: the recorded one is compared, never imported.
    config = str(folder / CONFIG)
    recorded = vars(parser.parse_plain(["--config", config, "--env", asked.env]).as_flat())  # whose module is named anew
    recorded["env"] = read_yaml(folder / CONFIG).get("env")
    wanted = vars(asked.as_flat())
    names = [name for name in {**recorded, **wanted} if name.split(".")[0] not in may_differ]
    other = [f"{n} {recorded.get(n)}, now {wanted.get(n)}" for n in names if recorded.get(n) != wanted.get(n)]
    if other:
        raise UsageError(f"{folder} is in use by a run with other settings ({'; '.join(other)}): name another --output")


def clear(folder: Path) -> None:
    """Remove what a run left that was stopped before its first checkpoint."""
    for pattern in (*_LOGS, "evaluations.npz", "best_model.zip", "error.txt"):
        for file in folder.glob(pattern):
            file.unlink()


def logs(folder: Path) -> list[Path]:
    """The files of a run folder that grow."""
    return [file for pattern in _LOGS for file in sorted(folder.glob(pattern))]


def start_of_monitoring(folder: Path) -> float:
    """When the run would have begun if it had never paused: now, less the time its monitor files tell of."""
    rows = [row for file in folder.glob("*.monitor.csv") for row in file.read_text(errors="replace").splitlines()[2:]]
    ended = [0.0]
    for row in rows:
        with suppress(ValueError, IndexError):  # a damaged row
            ended.append(float(row.split(",")[2]))
    return time.time() - max(end for end in ended if math.isfinite(end))


def newest(folder: Path) -> int | None:
    """The step of the newest checkpoint of the run in a folder, if there is one."""
    try:
        return checkpoint_folder.entries(folder / CHECKPOINTS)[-1].num_timesteps
    except (OSError, CheckpointError):
        return None


def is_finished(folder: Path, steps: int) -> bool:
    """Whether a run has saved its last agent: it may have been killed between its last step and that.

    Args:
        folder: Of the run.
        steps: That it was to make.

    Raises:
        UsageError: The agent is of a format that this version does not read, and must not be overwritten.
    """
    try:
        manifest = archive.read(folder / "last_model.zip", "agent").manifest
    except FormatError as error:  # not to be written over
        raise UsageError(str(error)) from error
    except (OSError, CheckpointError):
        return False
    return manifest.get("counters", {}).get("num_timesteps") == steps


def command(verb: str, folder: Path, env: str) -> str:
    """The command line of a verb on a run.

    Args:
        verb: As ``evaluate``.
        folder: Of the run.
        env: Its environment. A module of the user's is named in the command, for a run folder may not say what is imported.
    """
    named = f" --env {shlex.quote(env)}" if ":" in env else ""
    flag = " --resume" if verb == "train" else ""
    return f"{program('jepa-agent')} {verb}{flag} {shlex.quote(str(folder))}{named}"
