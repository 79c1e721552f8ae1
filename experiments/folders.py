"""Who is at work in a folder."""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_NOTE = ".running"


class FolderError(ValueError):
    """The folder cannot be worked in."""


class FolderInUseError(FolderError):
    """Another process is at work there."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Inside, no other process of ours writes into the folder.

    The system holds the lock for this process and releases it however the process ends, so nothing is left by a kill.

    Raises:
        FolderInUseError: Another process holds it; the message says which.
        FolderError: A link in the folder would lead what is written elsewhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refuse_links(folder)
    descriptor = _locked(folder / _NOTE)
    try:
        with suppress(OSError):  # a full disk: the lock holds without saying whose it is
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {time.ctime()}".encode())
        yield
    finally:
        (folder / _NOTE).unlink(missing_ok=True)
        os.close(descriptor)


def refuse_if_held(folder: Path) -> None:
    """`FolderInUseError` if another process is at work in a folder, which need not be there."""
    if fcntl is None or not (folder / _NOTE).is_file() or (folder / _NOTE).is_symlink():
        return
    with suppress(FileNotFoundError):  # its owner removed it meanwhile
        descriptor = os.open(folder / _NOTE, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUseError(f"{folder} is in use by {_owner(descriptor)}: wait for it, or stop it") from None
        finally:
            os.close(descriptor)


def refuse_links(folder: Path) -> None:
    """`FolderError` if a symbolic link lies in the folder or below: what is written would go where it leads."""
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(where, name)
            if path.is_symlink():
                raise FolderError(
                    f"{path} is a symbolic link to {os.readlink(path)}, which is not written through: remove it"
                )


def _owner(descriptor: int) -> str:
    """Who holds the lock, as it says of itself a moment after it took it."""
    for _ in range(20):
        text = os.pread(descriptor, 200, 0).decode(errors="replace")
        if text.startswith("process "):
            return text
        time.sleep(0.05)
    return "another process"


def _lock(descriptor: int, tries: int = 5) -> None:
    """Take the lock; `BlockingIOError` if another process holds it for longer than it takes to ask."""
    for left in reversed(range(tries)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not left:
                raise
            time.sleep(0.01)


def _locked(note: Path) -> int:
    """An open descriptor that holds the lock on a file which is still there."""
    while True:
        descriptor = os.open(note, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if fcntl is None:
                warnings.warn("this system has no flock: nothing keeps two processes out of one folder", stacklevel=4)
                return descriptor
            _lock(descriptor)
            if note.exists() and os.path.samestat(os.fstat(descriptor), os.stat(note)):
                return descriptor
        except BlockingIOError:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise FolderInUseError(f"{note.parent} is in use by {owner}: wait for it, or stop it") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its owner removed it between our opening and locking it
