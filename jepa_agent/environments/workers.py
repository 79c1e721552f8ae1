"""Environments that may fail: each runs in a process of its own, which can be killed, and is rebuilt after a failure."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper

from jepa_agent.config import MOST_SECONDS
from jepa_agent.environments.observations import RESTARTED
from jepa_agent.interruption import poll

_START_TIMEOUT = 60.0  # least timeout in seconds for creating an environment, which includes its imports
_CLOSE_TIMEOUT = 5.0  # timeout in seconds for closing an environment
_MAX_LOST = 3  # workers in a row without a step in between


class WorkerError(RuntimeError):
    """An environment in a worker raised; the first line of the message says what, the rest is the traceback."""


class WorkerLost(RuntimeError):
    """A worker was killed, exited, or did not answer in time."""


class Worker(gym.Env):
    """An environment in a process of its own.

    Spaces, metadata, render mode and spec are copied to this process; everything else stays in the worker.

    Args:
        make: Creates the environment, in the worker.
        timeout: Seconds that a step or a reset may take. Creating the environment may take ten times as long, and at least a
            minute.

    Raises:
        ValueError: ``timeout`` is out of range.
        WorkerError: The environment raised when it was created; also from `step` and `reset`.
        WorkerLost: The worker exited or did not answer in time, and was killed; also from `step` and `reset`.
    """

    def __init__(self, make: Callable[[], gym.Env], timeout: float):
        if not 0 < timeout <= MOST_SECONDS:
            raise ValueError(f"timeout must be above 0 and at most {MOST_SECONDS:,} seconds, got {timeout}")
        self._timeout = timeout
        context = _context()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, CloudpickleWrapper(make)), daemon=True)
        self._process.start()
        theirs.close()  # with this copy open, the pipe would not report the end of the worker
        # The time at which the pending answer is due; None if no answer is pending.
        self._deadline: float | None = time.monotonic() + max(_START_TIMEOUT, 10 * timeout)
        try:
            about = self._answer()()
        except BaseException:
            self.close()
            raise
        self.observation_space, self.action_space, self.metadata, self.render_mode, self.spec = about

    def begin_step(self, action: Any) -> None:
        """Begin a step whose result the next `step` returns, so that several workers can step at the same time.

        Args:
            action: The action.
        """
        self._ask("step", action)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment, or wait for the step that `begin_step` began.

        Args:
            action: The action; it is ignored if a step has begun.

        Returns:
            Observation, reward, terminated, truncated and info, as in Gymnasium.
        """
        if self._deadline is None:
            self._ask("step", action)
        return self._answer()

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Args:
            options: Keyword arguments of the environment's ``reset``.

        Returns:
            Observation and info, as in Gymnasium.
        """
        if self._deadline is not None:
            self._answer()  # discard the result of a step that was begun but not waited for
        self._ask("reset", **options)
        return self._answer()

    def close(self) -> None:
        """Close the environment and end the worker, which is killed if it takes too long."""
        if self._process.is_alive():
            with suppress(OSError):
                self._pipe.send(("close", (), {}))
            self._process.join(_CLOSE_TIMEOUT)
        self._kill()
        self._pipe.close()

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Send a method call to the worker and start the clock for its answer."""
        self._deadline = time.monotonic() + self._timeout
        with suppress(OSError):  # a lost worker is reported by `_answer`
            self._pipe.send((method, args, kwargs))

    def _answer(self) -> Any:
        """Return the worker's answer; raise `WorkerError` or `WorkerLost`."""
        assert self._deadline is not None
        try:
            if not self._pipe.poll(max(self._deadline - time.monotonic(), 0.0)):
                self._kill_and_raise(f"gave no answer within {self._timeout:g} s")
            result, error = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(_CLOSE_TIMEOUT)
            # A negative exit code is the number of the signal that killed the process.
            code = self._process.exitcode
            self._kill_and_raise(
                f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
            )
        self._deadline = None
        if error is not None:
            raise WorkerError(error)
        return result

    def _kill_and_raise(self, how: str) -> NoReturn:
        """Kill the worker and raise `WorkerLost`."""
        self._kill()
        raise WorkerLost(f"its worker, process {self._process.pid}, {how}")

    def _kill(self) -> None:
        """Kill the worker and wait for its end."""
        self._process.kill()
        self._process.join(_CLOSE_TIMEOUT)


def _context() -> Any:
    """Return the start method of workers: ``forkserver`` if available, else ``spawn``."""
    # Not ``fork``: a forked copy of this process would share locks held by other threads, and CUDA does not survive it.
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imported once instead of by each worker
    return context


def _serve(pipe: Connection, make: CloudpickleWrapper) -> None:
    """Run in a worker: create the environment, then answer method calls until told to close or the pipe ends."""
    for signum in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
        signal.signal(signum, signal.SIG_IGN)  # a terminal sends these to all processes; only the parent acts on them
    env: Any = None

    def begin() -> Any:
        """Create the environment and return what `Worker` copies of it."""
        nonlocal env
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="gymnasium")  # of the id, told where the environment was checked
            env = make.fn()
        about = env.observation_space, env.action_space, env.metadata, env.render_mode, env.spec
        return CloudpickleWrapper(lambda: about)  # a spec may hold a function, which plain pickle cannot serialise

    what: Callable[[], Any] = begin
    try:
        while True:
            try:
                answer = pickle.dumps((what(), None))
            except BaseException as error:
                # As text, because an exception may not be picklable. `BaseException`, because an environment may call
                # `sys.exit`.
                answer = pickle.dumps((None, f"{_told(error)}\n\n{traceback.format_exc()}"))
            pipe.send_bytes(answer)
            method, args, kwargs = pipe.recv()
            if method == "close":
                return
            what = partial(_call, env, method, args, kwargs)
    except (EOFError, OSError):
        pass  # the parent has exited or closed the pipe
    finally:
        if env is not None:
            env.close()


def _call(env: gym.Env, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a method of the environment."""
    return getattr(env, method)(*args, **kwargs)


def _told(error: BaseException) -> str:
    """Describe an exception in one line."""
    if isinstance(error, (WorkerError, WorkerLost)):
        return str(error).splitlines()[0]
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


class RestartingEnv(gym.Wrapper):
    """An environment that is closed and rebuilt when it fails.

    The failed step truncates the episode: it returns the last observation again and a reward of 0, and
    ``environment_restarted`` in its info keeps it from being learned from. Every failure is warned about. The first
    episode after a restart begins from a seed derived from the last seed given and the number of restarts.

    Args:
        make: Creates the environment.
        restarts: How often the environment may raise; the next error is raised to the caller. The loss of a `Worker` does
            not count, but the fourth loss in a row without a step in between is raised too.
        name: Name of the environment in warnings.

    Raises:
        ValueError: ``restarts`` is negative.
    """

    def __init__(self, make: Callable[[], gym.Env], restarts: int, name: str = "the environment"):
        if restarts < 0:
            raise ValueError(f"restarts must not be negative, got {restarts}")
        super().__init__(make())
        self.restarts, self._raised, self._lost_in_a_row = 0, 0, 0
        self._make, self._most, self._name = make, restarts, name
        self._seed: int | None = None
        self._next_seed: int | None = None  # of the first episode after a restart
        self._last: Any = None

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; the environment is rebuilt as long as that fails.

        Args:
            options: Keyword arguments of the environment's ``reset``.

        Returns:
            Observation and info, as in Gymnasium.
        """
        seed = options.pop("seed", None)
        self._seed = self._seed if seed is None else seed
        while True:
            try:
                obs, info = self.env.reset(seed=self._next_seed if seed is None else seed, **options)
            except Exception as error:
                self._restart(error)
                seed = None  # the same seed might fail again
            else:
                self._next_seed, self._last = None, deepcopy(obs)
                return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment; a step that fails truncates the episode.

        Args:
            action: The action.

        Returns:
            Observation, reward, terminated, truncated and info, as in Gymnasium.
        """
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            self._restart(error)
            return self._last, 0.0, False, True, {RESTARTED: True}
        self._lost_in_a_row, self._last = 0, deepcopy(obs)
        return obs, reward, terminated, truncated, info

    def _restart(self, error: Exception) -> None:
        """Close the environment and rebuild it; raise the error if the restarts are used up."""
        while True:
            poll()  # a signal that asks this process to end may have ended the worker too
            self._count(error)
            with suppress(Exception):
                self.env.close()
            try:
                self.env = self._make()
                break
            except Exception as next_error:
                error = next_error
        if self._seed is not None:
            # Another seed after each restart: the same episode might fail at the same step again.
            self._next_seed = int(np.random.SeedSequence([self._seed, self.restarts]).generate_state(1)[0] >> 1)

    def _count(self, error: Exception) -> None:
        """Count and warn about a failure; raise the error if the restarts are used up."""
        if isinstance(error, WorkerLost):
            self._lost_in_a_row += 1
            if self._lost_in_a_row > _MAX_LOST:
                raise error
            what = f"{_told(error)}; it is begun anew"
        else:
            if self._raised == self._most:
                raise error
            self._raised += 1
            what = f"raised {_told(error)}; it is rebuilt, {self._most - self._raised} restart(s) left"
        self.restarts += 1
        warnings.warn(f"{self._name}: {what} (restart {self.restarts}); its episode ends as by a time limit", stacklevel=4)
