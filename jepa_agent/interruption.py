"""Orderly stopping: a signal is recorded when it arrives, and raised as an exception where no work is half done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE = 5.0  # seconds between a signal and the next poll, after which the signal is raised anyway
_ALARM = getattr(signal, "SIGALRM", None)  # does not exist on Windows
_pending_signals: list[int] = []  # global, because signals are sent to the whole process
_deferrals: list[bool] = []  # one item for each active `undisturbed` block, since they may be nested


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end.

    Args:
        signum: Number of the signal.
    """

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def poll() -> None:
    """Raise `Interrupted` if a signal has been recorded.

    Every iteration of collection, updates, evaluation and planning calls it.

    Raises:
        Interrupted: A signal has been recorded.
    """
    if _pending_signals:
        _set_alarm(0.0)
        raise Interrupted(_pending_signals[0])


def stop_signals() -> list[int]:
    """Return the signals that ask the process to end: SIGINT, SIGTERM and, where it exists, SIGHUP.

    Signals that the process was started to ignore are left out, such as SIGHUP under ``nohup``.
    """
    known = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None)]
    return [signum for signum in known if signum is not None and signal.getsignal(signum) is not signal.SIG_IGN]


def _set_alarm(seconds: float) -> None:
    """Send SIGALRM after this many seconds and again at that interval; 0 cancels it. No effect on Windows."""
    if _ALARM:
        # Repeated, because an alarm within `undisturbed` is ignored.
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)


@contextmanager
def noting_signals() -> Iterator[None]:
    """Record signals that ask the process to end inside the block, instead of raising at once.

    The first signal is raised by the next `poll`, or after `PATIENCE` seconds without one, because an environment may hang
    in a step. A second signal is raised at once. Within `undisturbed` neither is raised. The previous signal handlers are
    restored at the end.

    Raises:
        Interrupted: A second signal arrived, or `PATIENCE` seconds passed without a `poll`.
    """

    def note(signum: int, _: FrameType | None) -> None:
        """Record the first signal and set the alarm; raise `Interrupted` at a further signal."""
        if not _pending_signals:
            _pending_signals.append(signum)
            if _ALARM:  # installed only now, because an environment may use SIGALRM itself
                before[_ALARM] = signal.signal(_ALARM, insist)
            _set_alarm(PATIENCE)
        elif not _deferrals:
            raise Interrupted(signum)

    def insist(*_: object) -> None:
        """Raise `Interrupted` when the alarm goes off, unless a file is being saved."""
        if not _deferrals:
            raise Interrupted(_pending_signals[0])

    before = {signum: signal.signal(signum, note) for signum in stop_signals()}
    try:
        yield
    finally:
        if _pending_signals:
            _set_alarm(0.0)
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _pending_signals.clear()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Defer `Interrupted` inside the block, as while saving: signals are only recorded."""
    _deferrals.append(True)
    try:
        yield
    finally:
        _deferrals.pop()
