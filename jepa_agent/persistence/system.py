"""What the operating system tells about memory and processes, by the standard library alone."""

from __future__ import annotations

import math
import os


def total_memory() -> float:
    """Return the machine's memory in bytes; infinity where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not POSIX, or a POSIX system without these names
        return math.inf


def process_exists(pid: int) -> bool:
    """Return whether a process is alive.

    Args:
        pid: Its number. Outside POSIX every process counts as alive, since asking there could end it.
    """
    if os.name != "posix":
        return True
    if pid <= 0:
        return False  # these numbers stand for groups of processes
    try:
        os.kill(pid, 0)  # signal 0 is never delivered; only the process is looked for
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # it is another user's
    return True
