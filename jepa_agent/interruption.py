"""Stopping in good order: a signal is recorded when it arrives, and acted on where no work is half done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE = 5.0  # seconds that whatever is under way may take to come to its next poll
_ALARM = getattr(signal, "SIGALRM", None)  # not on Windows
_noted: list[int] = []  # signals are the process's, and so is the note of them
_saving: list[bool] = []  # one for each `undisturbed` that is under way


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def poll() -> None:
    """Raise `Interrupted` if a signal has been recorded. Collecting, updates, evaluation and planning call it.

    Raises:
        Interrupted: A signal asked the process to end.
    """
    if _noted:
        _set_alarm(0.0)
        raise Interrupted(_noted[0])


def heeded() -> list[int]:
    """The signals that ask the process to end, less those it was started to ignore, as `nohup` has it ignore SIGHUP."""
    known = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None)]
    return [signum for signum in known if signum is not None and signal.getsignal(signum) is not signal.SIG_IGN]


def _set_alarm(seconds: float) -> None:
    if _ALARM:
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)


@contextmanager
def noting_signals() -> Iterator[None]:
    """Inside, the first signal that asks to end is recorded for the next `poll`. After `PATIENCE` seconds without one, as in
    an environment that hangs, or at a second signal, `Interrupted` is raised at once; never within `undisturbed`."""

    def note(signum: int, _: FrameType | None) -> None:
        if not _noted:
            _noted.append(signum)
            if _ALARM:  # taken no sooner: an environment may have an alarm of its own
                before[_ALARM] = signal.signal(_ALARM, insist)
            _set_alarm(PATIENCE)
        elif not _saving:
            raise Interrupted(signum)

    def insist(*_: object) -> None:
        if not _saving:
            raise Interrupted(_noted[0])

    before = {signum: signal.signal(signum, note) for signum in heeded()}
    try:
        yield
    finally:
        if _noted:
            _set_alarm(0.0)
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _noted.clear()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, as while saving, signals are recorded and nothing more."""
    _saving.append(True)
    try:
        yield
    finally:
        _saving.pop()
