"""Locks on output folders, so that two processes never write into the same one, and checks for symbolic links.

The lock is an `flock` on a hidden file, which also names the process that holds it.
"""

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

_LOCK_FILE = ".running"


class FolderError(ValueError):
    """The folder cannot be used."""


class FolderInUseError(FolderError):
    """Another process uses the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder inside the context, making the folder where needed.

    The operating system holds the lock for this process and releases it however the process ends, so a killed process leaves
    no stale lock.

    Args:
        folder: Folder to lock; other processes of this package respect the lock.

    Raises:
        FolderInUseError: Another process holds the lock; the message names it.
        FolderError: The folder holds a symbolic link, through which files would be written elsewhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refuse_links(folder)
    descriptor = _open_locked(folder / _LOCK_FILE)
    try:
        with suppress(OSError):  # on a full disk the lock still holds, without naming its owner
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {time.ctime()}".encode())
        yield
    finally:
        # Removed before the lock is released: afterwards it could be another process's file.
        (folder / _LOCK_FILE).unlink(missing_ok=True)
        os.close(descriptor)


def saved_to(path: Path) -> str:
    """Return what is told of a file: ``saved to PATH``, or ``replaced PATH`` where one is there; call it before writing."""
    return f"{'replaced' if path.exists() else 'saved to'} {path}"


def refuse_if_held(folder: Path) -> None:
    """Raise if another process holds the lock of a folder; does not take the lock.

    Args:
        folder: Folder to check; it need not exist.

    Raises:
        FolderInUseError: Another process holds the lock; the message names it.
    """
    if fcntl is None or not (folder / _LOCK_FILE).is_file() or (folder / _LOCK_FILE).is_symlink():
        return
    with suppress(FileNotFoundError):  # the owner removed the file in the meantime
        descriptor = os.open(folder / _LOCK_FILE, os.O_RDONLY)
        try:
            # A shared lock conflicts with the owner's exclusive one, but not with other processes that only check.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUseError(f"{folder} is in use by {_owner(descriptor)}: wait for it, or stop it") from None
        finally:
            os.close(descriptor)


def refuse_links(folder: Path) -> None:
    """Raise if a folder holds a symbolic link at any depth: files would be written where it leads.

    Raises:
        FolderError: There is a link; the message names it and its target.
    """
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(where, name)
            if path.is_symlink():
                raise FolderError(
                    f"{path} is a symbolic link to {os.readlink(path)}, which is not written through: remove it"
                )


def _owner(descriptor: int) -> str:
    """Return the description that the owner of the lock writes just after taking it, waiting up to a second for it."""
    for _ in range(20):
        text = os.pread(descriptor, 200, 0).decode(errors="replace")
        if text.startswith("process "):
            return text
        time.sleep(0.05)
    return "another process"


def _lock(descriptor: int, tries: int = 5) -> None:
    """Take the exclusive lock; BlockingIOError if another process still holds it after ``tries`` attempts, 10 ms apart."""
    # `refuse_if_held` holds a shared lock for a moment, which must not look like a process at work.
    for left in reversed(range(tries)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not left:
                raise
            time.sleep(0.01)


def _open_locked(note: Path) -> int:
    """Open the lock file and return a descriptor that holds its lock; the file is the one the path names now."""
    while True:
        descriptor = os.open(note, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if fcntl is None:
                warnings.warn("this system has no flock: nothing keeps two processes out of one folder", stacklevel=4)
                return descriptor
            _lock(descriptor)
            # The lock is worth something only on the file that others will open: the last owner may have unlinked this one.
            if note.exists() and os.path.samestat(os.fstat(descriptor), os.stat(note)):
                return descriptor
        except BlockingIOError:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise FolderInUseError(f"{note.parent} is in use by {owner}: wait for it, or stop it") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the owner removed the file after it was opened here: try again
