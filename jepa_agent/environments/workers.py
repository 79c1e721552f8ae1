"""Environments that fail: each in a process of its own, which may hang or be killed, and made anew where it fails."""

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

from jepa_agent.environments.observations import RESTARTED
from jepa_agent.interruption import poll

MOST_SECONDS = 100_000  # of a step; ten times that is as long as a pipe can be waited for
_START = 60.0  # seconds that making an environment may take at least, which imports what it is made of
_FAREWELL = 5.0  # seconds that a worker may take to close its environment
_MOST_LOST = 3  # workers in a row, without a step between


class WorkerError(RuntimeError):
    """An environment in a worker raised; the first line says what, the others where."""


class WorkerLost(RuntimeError):
    """A worker was killed, ended by itself, or gave no answer in time."""


class Worker(gym.Env):
    """An environment in a process of its own. Its spaces, metadata, render mode and spec are here, all else is there.

    Args:
        make: Makes the environment, in the worker.
        timeout: Seconds that a step or a reset may take; making the environment may take ten times that, and a minute.

    Raises:
        WorkerError: What the environment raised, when it was made and from `step` and `reset`.
        WorkerLost: From the same, if there is no answer in time; the worker is killed then.
    """

    def __init__(self, make: Callable[[], gym.Env], timeout: float):
        if not 0 < timeout <= MOST_SECONDS:
            raise ValueError(f"timeout must be above 0 and at most {MOST_SECONDS:,} seconds, got {timeout}")
        self._timeout = timeout
        context = _context()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, CloudpickleWrapper(make)), daemon=True)
        self._process.start()
        theirs.close()  # or the end of the worker would not be the end of the pipe
        self._deadline: float | None = time.monotonic() + max(_START, 10 * timeout)  # of an answer that is waited for
        try:
            about = self._answer()()
        except BaseException:
            self.close()
            raise
        self.observation_space, self.action_space, self.metadata, self.render_mode, self.spec = about

    def begin_step(self, action: Any) -> None:
        """Begin a step, whose outcome the next `step` waits for: so several workers step at the same time."""
        self._ask("step", action)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; the one that has begun already, if there is one."""
        if self._deadline is None:
            self._ask("step", action)
        return self._answer()

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        if self._deadline is not None:
            self._answer()  # to a step that nobody waited for
        self._ask("reset", **options)
        return self._answer()

    def close(self) -> None:
        """Close the environment and end the worker, which is killed if that takes it too long."""
        if self._process.is_alive():
            with suppress(OSError):
                self._pipe.send(("close", (), {}))
            self._process.join(_FAREWELL)
        self._kill()
        self._pipe.close()

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> None:
        self._deadline = time.monotonic() + self._timeout
        with suppress(OSError):  # a worker that is gone is found out where its answer is waited for
            self._pipe.send((method, args, kwargs))

    def _answer(self) -> Any:
        assert self._deadline is not None
        try:
            if not self._pipe.poll(max(self._deadline - time.monotonic(), 0.0)):
                self._lose(f"gave no answer within {self._timeout:g} s")
            result, error = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(_FAREWELL)
            code = self._process.exitcode
            self._lose(f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}")
        self._deadline = None
        if error is not None:
            raise WorkerError(error)
        return result

    def _lose(self, how: str) -> NoReturn:
        self._kill()
        raise WorkerLost(f"its worker, process {self._process.pid}, {how}")

    def _kill(self) -> None:
        self._process.kill()
        self._process.join(_FAREWELL)


def _context() -> Any:
    """How workers are started: never by a copy of this process, whose threads, locks and graphics card do not bear it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imported once, not by each worker
    return context


def _serve(pipe: Connection, make: CloudpickleWrapper) -> None:
    """A worker's life: make the environment, then do what is asked, until told to close or left alone."""
    for signum in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
        signal.signal(signum, signal.SIG_IGN)  # a terminal sends these to all; whoever started this decides
    env: Any = None

    def begin() -> Any:
        nonlocal env
        env = make.fn()
        about = env.observation_space, env.action_space, env.metadata, env.render_mode, env.spec
        return CloudpickleWrapper(lambda: about)  # a spec may hold a function, which pickle itself cannot take

    what: Callable[[], Any] = begin
    try:
        while True:
            try:
                answer = pickle.dumps((what(), None))
            except BaseException as error:
                answer = pickle.dumps((None, f"{_told(error)}\n\n{traceback.format_exc()}"))
            pipe.send_bytes(answer)
            method, args, kwargs = pipe.recv()
            if method == "close":
                return
            what = partial(_call, env, method, args, kwargs)
    except (EOFError, OSError):
        pass  # nobody is there any more
    finally:
        if env is not None:
            env.close()


def _call(env: gym.Env, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return getattr(env, method)(*args, **kwargs)


def _told(error: BaseException) -> str:
    """What was raised, in one line."""
    if isinstance(error, (WorkerError, WorkerLost)):
        return str(error).splitlines()[0]
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


class RestartingEnv(gym.Wrapper):
    """An environment that is closed and made anew where it fails. The episode ends there, as by a time limit, at its last
    observation and with a reward of 0; what the info tells of that step keeps it from being learned from. Each time is told
    in a warning. Episodes after that begin from seeds of their own, which follow from the last one given.

    Args:
        make: Makes the environment.
        restarts: How often it may raise; the next error goes through. A `Worker` that is lost is not counted, but the
            fourth in a row that is lost without a step between.
        name: What warnings call it.
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
        """Begin an episode, if need be in an environment made anew."""
        seed = options.pop("seed", None)
        self._seed = self._seed if seed is None else seed
        while True:
            try:
                obs, info = self.env.reset(seed=self._next_seed if seed is None else seed, **options)
            except Exception as error:
                self._restart(error)
                seed = None  # the same one might fail again
            else:
                self._next_seed, self._last = None, deepcopy(obs)
                return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; one that fails ends the episode."""
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            self._restart(error)
            return self._last, 0.0, False, True, {RESTARTED: True}
        self._lost_in_a_row, self._last = 0, deepcopy(obs)
        return obs, reward, terminated, truncated, info

    def _restart(self, error: Exception) -> None:
        """Close the environment and make it anew; raises the error if that was often enough."""
        while True:
            poll()  # what ends this process may have ended the worker
            self._count(error)
            with suppress(Exception):
                self.env.close()
            try:
                self.env = self._make()
                break
            except Exception as next_error:
                error = next_error
        if self._seed is not None:
            self._next_seed = int(np.random.SeedSequence([self._seed, self.restarts]).generate_state(1)[0] >> 1)

    def _count(self, error: Exception) -> None:
        if isinstance(error, WorkerLost):
            self._lost_in_a_row += 1
            if self._lost_in_a_row > _MOST_LOST:
                raise error
            what = f"{_told(error)}; it is begun anew"
        else:
            if self._raised == self._most:
                raise error
            self._raised += 1
            what = f"raised {_told(error)}; it is rebuilt, {self._most - self._raised} restart(s) left"
        self.restarts += 1
        warnings.warn(f"{self._name}: {what} (restart {self.restarts}); its episode ends as by a time limit", stacklevel=4)
