"""Stopping in good order: a signal is noted when it comes, and heeded where nothing is half done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_noted: list[int] = []  # signals are the process's, and so is the note of them


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def poll() -> None:
    """Raise `Interrupted` if a signal has been noted. Collection, updates, evaluation and planning ask at every turn."""
    if _noted:
        raise Interrupted(_noted[0])


@contextmanager
def noting_signals() -> Iterator[None]:
    """Inside, a first SIGINT or SIGTERM waits for the next `poll`; a second one is heeded at once."""

    def note(signum: int, _: FrameType | None) -> None:
        if _noted:
            raise Interrupted(signum)
        _noted.append(signum)

    before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _noted.clear()
