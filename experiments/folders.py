"""Who is at work in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_NOTE = ".running"


class FolderInUseError(ValueError):
    """Another process is at work there."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Inside, no other process of ours may write into the folder; `FolderInUseError` if one does. What a process left that
    was killed does not count."""
    note, process = folder / _NOTE, psutil.Process()
    owner, _, began = note.read_text().partition(" ") if note.is_file() else ("", "", "")
    if owner.isdigit() and psutil.pid_exists(int(owner)) and str(psutil.Process(int(owner)).create_time()) == began:
        raise FolderInUseError(f"{folder} is in use by process {owner}, which works there: wait for it, or stop it")
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(f"{os.getpid()} {process.create_time()}")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)
