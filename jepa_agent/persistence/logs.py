"""Logs of a run: one that cannot be written is dropped with a warning, and training continues."""

from __future__ import annotations

import json
import os
import re
import textwrap
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.logger import (
    DISABLED,
    HParam,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
    make_output_format,
)
from stable_baselines3.common.monitor import Monitor, ResultsWriter
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

from jepa_agent.config import as_kwargs

# SB3's tags, of training and of `EvalCallback`. The hparams tab shows their last values: the final scores.
_SCORES = ("rollout/ep_rew_mean", "eval/mean_reward")


class ResumableLogger(Logger):
    """SB3's logger, but a format whose file cannot be written is dropped instead of ending the training."""

    def dump(self, step: int = 0) -> None:
        """Write the recorded values to every format that is left, and clear them.

        Args:
            step: Environment steps so far.
        """
        if self.level == DISABLED:
            return
        # A copy of the list, because formats are removed during the loop.
        for form in [form for form in self.output_formats if isinstance(form, KVWriter)]:
            _write_or_drop(self, form, self.name_to_value, self.name_to_excluded, step)
        self.name_to_value.clear()
        self.name_to_count.clear()
        self.name_to_excluded.clear()


def _write_or_drop(
    logger: Logger, form: KVWriter, values: dict[str, Any], excluded: dict[str, tuple[str, ...]], step: int
) -> None:
    """Write values to one format of a logger; drop the format if its file cannot be written."""
    try:
        form.write(values, excluded, step)
    except OSError as error:
        logger.output_formats.remove(form)
        _warn(f"the {type(form).__name__.removesuffix('OutputFormat')} log", error)
        with suppress(OSError):
            form.close()


def tensorboard_of(logger: Logger) -> list[TensorBoardOutputFormat]:
    """Return those formats of a logger that write TensorBoard's events."""
    return [form for form in logger.output_formats if isinstance(form, TensorBoardOutputFormat)]


def write_events(logger: Logger, values: Mapping[str, Any], step: int) -> None:
    """Write values to TensorBoard alone and at once, without waiting for the next dump.

    Args:
        logger: Without a TensorBoard format nothing is written.
        values: What SB3's TensorBoard format takes, by tag: numbers, text, `HParam`, `Image`.
        step: Environment steps so far.
    """
    for form in tensorboard_of(logger):
        _write_or_drop(logger, form, dict(values), dict.fromkeys(values, ()), step)


def recorded_settings(agent: Any) -> dict[str, Any]:
    """Return an agent's settings, defaults included, as plain data; objects are told by their text.

    Args:
        agent: A `JEPA`.
    """
    planner = agent.policy.planner
    kind = {"kind": type(planner).__name__, **getattr(planner, "__dict__", {})}  # one of a user's may have slots
    return _plain({**as_kwargs(agent.settings), "model": as_kwargs(agent.policy.sizes), "planner": kind})


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of JSON's own types, whatever subclasses of them there are; other objects as their text."""
    return json.loads(json.dumps(content, default=str, skipkeys=True))


def log_configuration(agent: Any) -> None:
    """Write the configuration of a run to TensorBoard, as text and in the hparams tab, beside the scores that belong to it.

    Args:
        agent: A `JEPA` whose logger is set up; one without a TensorBoard format writes nothing.
    """
    run = {"algorithm": type(agent).__name__, "env": _env_id(agent.env), "n_envs": agent.n_envs, "seed": agent.seed}
    settings = _plain({**run, "mode": agent.mode, **recorded_settings(agent)})
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat.update({f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value})
    # The hparams tab takes numbers and text only.
    told = {name: value if isinstance(value, (bool, int, float)) else str(value) for name, value in flat.items()}
    text = textwrap.indent(json.dumps(settings, indent=2), "    ")  # Markdown shows what is indented as it is
    values = {"configuration": text, "hparams": HParam(told, dict.fromkeys(_SCORES, 0.0))}
    write_events(agent.logger, values, agent.num_timesteps)


def _env_id(env: Any) -> str:
    """Return the id of the environments of a VecEnv, "unknown" if they have none."""
    while isinstance(env, VecEnvWrapper):  # `unwrapped` asks attributes of vectorised environments that may have none
        env = env.venv
    if isinstance(env, DummyVecEnv):
        spec = env.envs[0].unwrapped.spec
        return "unknown" if spec is None else spec.id
    # An environment in a process of its own is asked for its text, which holds the id: a spec might not be picklable.
    with suppress(AttributeError, NotImplementedError):
        found = re.search(r"<([^<> ]+)>+$", str(env.env_method("__str__", indices=0)[0]))
        return found[1] if found else "unknown"
    return "unknown"


def log_final_score(agent: Any) -> None:
    """Write the mean return of the latest episodes to TensorBoard, for the end of a run is seldom when it is logged.

    Args:
        agent: A `JEPA`; before its first episode has ended nothing is written.
    """
    if agent.ep_info_buffer:
        score = float(np.mean([episode["r"] for episode in agent.ep_info_buffer]))
        write_events(agent.logger, {_SCORES[0]: score}, agent.num_timesteps)


def resumable_logger(folder: str, names: Iterable[str]) -> ResumableLogger:
    """Create a logger of several formats; those that cannot be opened are left out, with a warning.

    Args:
        folder: The folder of the files.
        names: SB3's names of formats, such as ``"csv"``.

    Returns:
        The logger.
    """
    formats = []
    for name in names:
        try:
            formats.append(make_output_format(name, folder))
        except OSError as error:
            _warn(f"the {name} log", error)
    return ResumableLogger(folder, formats)


def make_resumable(logger: Logger) -> Logger:
    """Return a logger that drops failing formats; one that is not exactly SB3's `Logger` is returned unchanged."""
    return ResumableLogger(logger.dir, logger.output_formats) if type(logger) is Logger else logger


def _warn(what: str, error: OSError) -> None:
    """Warn that a log is no longer written."""
    warnings.warn(f"{what} is no longer written: {error}; training goes on", stacklevel=3)


class _LastingRows:
    """Writer of the rows of a `Monitor`'s file; after the first row that cannot be written it does nothing."""

    def __init__(self, writer: ResultsWriter):
        self._writer: ResultsWriter | None = writer

    def write_row(self, row: dict[str, Any]) -> None:
        """Append the row of an episode, if the file is still written.

        Args:
            row: Values by column: return ``r``, length ``l``, time ``t`` and whatever else the monitor keeps.
        """
        if self._writer is None:
            return
        try:
            self._writer.write_row(row)
        except OSError as error:
            _warn(str(self._writer.file_handler.name), error)
            self.close()

    def close(self) -> None:
        """Close the file."""
        writer, self._writer = self._writer, None
        with suppress(OSError):  # closing flushes the buffer, which fails again on a full disk
            if writer is not None:
                writer.close()


def with_resumable_rows(env: gym.Env) -> gym.Env:
    """Let the file of a `Monitor` fail without ending the training.

    Args:
        env: An environment; only a `Monitor` that writes a file is changed, in place.

    Returns:
        The same environment.
    """
    if isinstance(env, Monitor) and env.results_writer is not None:
        env.results_writer = _LastingRows(env.results_writer)  # type: ignore[assignment]
    return env


def mend_monitor_file(file: Path, env_id: str) -> None:
    """Repair a monitor file before rows are appended to it.

    An incomplete last row is removed. A file that is missing or has no valid header is replaced by one with a header only.

    Args:
        file: The file of a `Monitor`; it need not exist.
        env_id: The environment's id, written into a new header.
    """
    content = file.read_bytes() if file.is_file() else b""
    # The header that SB3's `Monitor` writes and its readers expect: a JSON comment and the columns.
    if re.match(rb"#\{[^\n]*\}\nr,l,t[^\n]*\n", content):
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            # A row without its newline was cut short when the process was killed.
            os.truncate(file, whole)
    else:
        # `Monitor` writes no header when it appends, as to a run that is continued.
        head = json.dumps({"t_start": time.time(), "env_id": env_id})
        file.write_text(f"#{head}\nr,l,t\n")


@contextmanager
def events_told_once() -> Iterator[None]:
    """Inside the block, do not print the traceback with which TensorBoard's writer thread ends on an ``OSError``.

    The same error is raised where the next value is written, and reported there.
    """
    # The hook is global to the process: it is restored at the end.
    before = threading.excepthook

    def told_elsewhere(args: threading.ExceptHookArgs) -> None:
        """Ignore an ``OSError`` of TensorBoard's writer thread; pass everything else on."""
        if not (issubclass(args.exc_type, OSError) and type(args.thread).__name__ == "_AsyncWriterThread"):
            before(args)

    threading.excepthook = told_elsewhere
    try:
        yield
    finally:
        threading.excepthook = before
