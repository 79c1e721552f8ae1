"""Logs, written beside a run: one that cannot be written is dropped with a warning, and training goes on."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.logger import DISABLED, KVWriter, Logger, make_output_format
from stable_baselines3.common.monitor import Monitor, ResultsWriter


class LastingLogger(Logger):
    """SB3's logger, which a full disk does not stop: a format whose file cannot be written is dropped."""

    def dump(self, step: int = 0) -> None:
        """Write what was recorded to every format that is left."""
        if self.level == DISABLED:
            return
        for form in [form for form in self.output_formats if isinstance(form, KVWriter)]:
            try:
                form.write(self.name_to_value, self.name_to_excluded, step)
            except OSError as error:
                self.output_formats.remove(form)
                _tell(f"the {type(form).__name__.removesuffix('OutputFormat')} log", error)
                with suppress(OSError):
                    form.close()
        self.name_to_value.clear()
        self.name_to_count.clear()
        self.name_to_excluded.clear()


def lasting_logger(folder: str, names: Iterable[str]) -> LastingLogger:
    """A logger of several formats, less those that cannot be opened, for which a warning is given.

    Args:
        folder: Where the files go.
        names: SB3's names of formats, as ``"csv"``.
    """
    formats = []
    for name in names:
        try:
            formats.append(make_output_format(name, folder))
        except OSError as error:
            _tell(f"the {name} log", error)
    return LastingLogger(folder, formats)


def lasting(logger: Logger) -> Logger:
    """The logger, of which formats may fail; one of another class than SB3's is left as it is."""
    return LastingLogger(logger.dir, logger.output_formats) if type(logger) is Logger else logger


def _tell(what: str, error: OSError) -> None:
    warnings.warn(f"{what} is no longer written: {error}; training goes on", stacklevel=3)


class _LastingRows:
    """The rows of a `Monitor`'s file, until one cannot be written."""

    def __init__(self, writer: ResultsWriter):
        self._writer: ResultsWriter | None = writer

    def write_row(self, row: dict[str, Any]) -> None:
        """Add an episode."""
        if self._writer is None:
            return
        try:
            self._writer.write_row(row)
        except OSError as error:
            _tell(str(self._writer.file_handler.name), error)
            self.close()

    def close(self) -> None:
        """Close the file."""
        writer, self._writer = self._writer, None
        with suppress(OSError):  # what could not be written before cannot be now
            if writer is not None:
                writer.close()


def with_lasting_rows(env: gym.Env) -> gym.Env:
    """The environment itself; if it is a `Monitor`, its file may fail from now on."""
    if isinstance(env, Monitor) and env.results_writer is not None:
        env.results_writer = _LastingRows(env.results_writer)  # type: ignore[assignment]
    return env


def mend_monitor_file(file: Path, env_id: str) -> None:
    """See that rows appended to a monitor file are read: a row cut short is removed, and a file without a head begins anew.

    Args:
        file: Of a `Monitor`; need not exist.
        env_id: Written into a new head.
    """
    content = file.read_bytes() if file.is_file() else b""
    if re.match(rb"#\{[^\n]*\}\nr,l,t[^\n]*\n", content):
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(file, whole)
    else:
        head = json.dumps({"t_start": time.time(), "env_id": env_id})
        file.write_text(f"#{head}\nr,l,t\n")


@contextmanager
def events_told_once() -> Iterator[None]:
    """Inside, TensorBoard's writer thread does not print why it ended: the next one to hand it something hears it."""
    before = threading.excepthook

    def told_elsewhere(args: threading.ExceptHookArgs) -> None:
        if not (issubclass(args.exc_type, OSError) and type(args.thread).__name__ == "_AsyncWriterThread"):
            before(args)

    threading.excepthook = told_elsewhere
    try:
        yield
    finally:
        threading.excepthook = before
