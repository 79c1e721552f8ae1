"""Training runs: one in this process, or many in parallel processes; finished runs are not repeated."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env

from jepa_agent.config import PlannerConfig, did_you_mean
from jepa_agent.experiments.baselines import EXTRAS, algorithm_class, make_baseline, settings, with_classes
from jepa_agent.experiments.evaluation import Evaluator
from jepa_agent.experiments.folders import locked
from jepa_agent.experiments.kept_agents import keep_agent, statistics_file
from jepa_agent.experiments.machine import cpu_model, pinned_instructions, versions
from jepa_agent.experiments.records import (
    BEST_AGENT,
    EVALUATIONS,
    LAST_AGENT,
    LOG,
    RESULT,
    SPEC,
    Curve,
    RunSpec,
    is_agent,
    read_curves,
    read_run,
    read_spec,
    spec_as_dict,
    write_json,
)
from jepa_agent.persistence.logs import recorded_settings
from jepa_agent.persistence.system import process_exists
from jepa_agent.spaces import policy_name

__all__ = ["Curve", "Event", "Failure", "RunSpec", "read_curves", "run", "run_all"]


@dataclass(frozen=True)
class Event:
    """A change in the state of a run, for progress displays."""

    kind: Literal["skipped", "started", "finished", "failed"]
    spec: RunSpec
    folder: Path


@dataclass(frozen=True)
class Failure:
    """A failed run and the reason: the last line of its log, or the signal that killed it."""

    spec: RunSpec
    reason: str
    log: Path


def run(spec: RunSpec, folder: Path) -> None:
    """Train from scratch in this process on one thread, evaluating on the way.

    evaluations.jsonl grows during training; result.json is written last, so it marks the run as finished. Files of an
    earlier run in the folder are replaced.

    Args:
        spec: The run.
        folder: Folder of the run.

    Raises:
        FolderInUseError: Another process works in the folder.
        FolderError: The folder holds a symbolic link.
        Exception: Whatever building or training the algorithm raises.
    """
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        # The result goes first: without it the folder counts as unfinished, whatever else it holds.
        agents = [folder / name for name in (BEST_AGENT, LAST_AGENT)]
        for file in (folder / RESULT, folder / EVALUATIONS, *agents, *map(statistics_file, agents)):
            file.unlink(missing_ok=True)
        write_json(folder / RESULT, _train(spec, folder))


def _train(spec: RunSpec, folder: Path) -> dict[str, Any]:
    """Train and evaluate a run; return the content of its result file."""
    began = time.process_time()
    model = _build(spec)
    env = model.get_env()
    assert env is not None
    with closing(env), closing(Evaluator(spec, folder / EVALUATIONS)) as evaluator:
        # The evaluator may end training earlier, see `stop_at`.
        model.learn(spec.n_timesteps, callback=evaluator)
        training_seconds, _ = evaluator.clock.read()
        keep_agent(model, folder / LAST_AGENT)
    return {
        "spec": spec_as_dict(spec),
        "finished": True,
        "steps": model.num_timesteps,
        "training_cpu_seconds": training_seconds,
        "total_cpu_seconds": time.process_time() - began,
        "cpu": cpu_model(),
        "versions": versions(),
        "settings": _settings(spec, model),
    }


class Job(Protocol):
    """A run that has been started."""

    def poll(self) -> int | None:
        """Return the exit code; None while the run goes on."""

    def stop(self) -> None:
        """End the run and wait until it has ended."""


class Launcher(Protocol):
    """Starts runs somewhere; folders must have the same path there as here."""

    def start(self, spec: RunSpec, folder: Path) -> Job:
        """Start a run whose spec has been written to its folder.

        Args:
            spec: The run.
            folder: Folder of the run, which also receives its output as a log.
        """

    def places(self) -> int:
        """Return how many runs can go on at the same time."""


class LocalLauncher:
    """Starts every run in a process of this machine, on one torch thread; it ends when this process does."""

    def places(self) -> int:
        """Return the number of this machine's cores."""
        return os.cpu_count() or 1

    def start(self, spec: RunSpec, folder: Path) -> Job:
        """Start a run; see `Launcher.start`."""
        # Thread pools are sized when the libraries are loaded, so the limit must be in the environment.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **pinned_instructions()}
        command = [*command_of(folder), str(os.getpid())]
        with (folder / LOG).open("wb") as log:
            return LocalJob(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))


@dataclass(frozen=True)
class LocalJob:
    """A run in a process of its own."""

    process: subprocess.Popen[bytes]

    def poll(self) -> int | None:
        """Return the process's exit code; None while it runs."""
        return self.process.poll()

    def stop(self) -> None:
        """Terminate the process and wait for its end."""
        self.process.terminate()
        self.process.wait()


def command_of(folder: Path) -> list[str]:
    """Return the command that does the run whose spec lies in ``folder``."""
    return [sys.executable, "-m", "jepa_agent.experiments.runner", str(folder / SPEC), str(folder)]


def run_all(
    specs: Sequence[RunSpec],
    root: Path,
    jobs: int,
    on_event: Callable[[Event], None] = lambda event: None,
    on_wait: Callable[[], None] = lambda: None,
    launcher: Launcher | None = None,
) -> list[Failure]:
    """Do all unfinished runs in processes of their own, each in ``spec.folder(root)``.

    A finished run is skipped, an unfinished one starts from scratch. When interrupted, e.g. by KeyboardInterrupt, it stops
    the runs that are under way.

    Args:
        specs: Runs to do.
        root: Folder that holds the runs' folders.
        jobs: Runs at a time, at least 1.
        on_event: Called when a run is skipped, started, finished or failed.
        on_wait: Called about every 50 ms while waiting for runs.
        launcher: Starts the runs; `LocalLauncher` by default.

    Returns:
        The runs that failed.

    Raises:
        ValueError: ``jobs`` is below 1, two specs share a folder, or a folder holds an unreadable result or that of another
            spec. Nothing has been started then.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs!r}")
    launcher = launcher or LocalLauncher()
    waiting = unfinished(specs, root, on_event)
    running: list[tuple[Job, RunSpec]] = []
    failures = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                spec = waiting.pop(0)
                folder = spec.folder(root)
                # The new process reads its run from this file.
                write_json(folder / SPEC, spec_as_dict(spec))
                running.append((launcher.start(spec, folder), spec))
                on_event(Event("started", spec, folder))
            time.sleep(0.05)
            on_wait()
            # A list of its own: `running` shrinks inside the loop.
            for job, spec in [(job, spec) for job, spec in running if job.poll() is not None]:
                running.remove((job, spec))
                folder = spec.folder(root)
                # The result file, not the exit code, decides later whether a run is finished.
                finished = job.poll() == 0 and (folder / RESULT).exists()
                if not finished:
                    reason = _reason(job.poll(), folder / LOG)
                    failures.append(Failure(spec, reason, folder / LOG))
                on_event(Event("finished" if finished else "failed", spec, folder))
    finally:
        # Also after KeyboardInterrupt: no process may go on writing once this function has returned.
        for job, _ in running:
            job.stop()
    return failures


def unfinished(
    specs: Sequence[RunSpec], root: Path, on_event: Callable[[Event], None] = lambda event: None
) -> list[RunSpec]:
    """Return the runs that are still to be done.

    Args:
        specs: Runs to check.
        root: Folder that holds the runs' folders.
        on_event: Called with "skipped" for every finished run.

    Raises:
        ValueError: Two specs share a folder, or a folder holds an unreadable result or that of another spec.
    """
    owners: dict[Path, RunSpec] = {}
    finished = []
    for spec in specs:
        folder = spec.folder(root)
        if folder in owners:
            raise ValueError(f"two runs would share the folder {folder}: give each of them a root of its own")
        owners[folder] = spec
        if (folder / RESULT).exists():
            if read_spec(folder / RESULT) != spec:
                raise ValueError(f"{folder} holds the result of another spec: move it away or choose another root")
            read_run(folder)
            finished.append(spec)
    # Only once all folders have been checked, so that nothing is reported before an error.
    for spec in finished:
        on_event(Event("skipped", spec, spec.folder(root)))
    return [spec for spec in specs if spec not in finished]


def _build(spec: RunSpec) -> BaseAlgorithm:
    """Build the untrained algorithm of a run with its environments."""
    if not is_agent(spec.algorithm):
        return make_baseline(spec.algorithm, spec.env, spec.seed, spec.env_kwargs, spec.overrides)
    from jepa_agent.agent import JEPA
    from jepa_agent.learning.terms import make_terms

    chosen = with_classes(spec.overrides)
    if "planner" in chosen:
        chosen["planner"] = PlannerConfig(**chosen["planner"])
    if "representation" in chosen:
        chosen["representation"] = make_terms(chosen["representation"])
    with ExitStack() as opened:
        env = make_vec_env(spec.env, chosen.pop("n_envs", 1), seed=spec.seed, env_kwargs=spec.env_kwargs)
        # Until the model owns the environments, any error must close them.
        opened.callback(env.close)
        model = JEPA(policy_name(env.observation_space), env, seed=spec.seed, device="cpu", **chosen)
        opened.pop_all()
    return model


def check_overrides(algorithm: str, overrides: dict[str, Any]) -> None:
    """Check that an algorithm has the settings that a study overrides.

    Args:
        algorithm: JEPA, a variant of it, or a baseline.
        overrides: Settings by name; for JEPA also those of ``policy_kwargs`` and ``planner``.

    Raises:
        ValueError: It has no setting of that name; the message suggests similar names.
    """
    if not is_agent(algorithm):
        _check_names(algorithm_class(algorithm), overrides, EXTRAS)
        return
    from jepa_agent.agent import JEPA
    from jepa_agent.learning.terms import make_terms
    from jepa_agent.policy import JEPAPolicy

    _check_names(JEPA, overrides, ("n_envs",))
    _check_names(JEPAPolicy, overrides.get("policy_kwargs", {}))
    _check_names(PlannerConfig, overrides.get("planner", {}))
    # Names have been checked; the constructor checks values.
    PlannerConfig(**overrides.get("planner", {}))
    if "representation" in overrides:
        make_terms(overrides["representation"])


def _check_names(kind: type, given: dict[str, Any], more: Sequence[str] = ()) -> None:
    """Raise ValueError for a name that is neither a parameter of ``kind``'s constructor nor in ``more``."""
    parameters = inspect.signature(kind).parameters
    known = [*parameters, *more]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return  # the constructor accepts any name
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known) or f", which has {', '.join(known)}"
            raise ValueError(f"{name!r} is no setting of {kind.__name__}{hint}")


def _settings(spec: RunSpec, model: Any) -> dict[str, Any]:
    """Return the settings of a run to record; JEPA's include defaults, which may change between versions."""
    if not is_agent(spec.algorithm):
        return {**settings(spec.algorithm, spec.env), **spec.overrides}
    return recorded_settings(model)


def _reason(code: int | None, log: Path) -> str:
    """Return why a run failed: the signal that killed it, or the last line of its log."""
    # `subprocess` reports death by signal n as -n; signal 9 often is the kernel's out-of-memory killer.
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}" + (", perhaps for want of memory" if code == -9 else "")
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else f"exit code {code}, with an empty log"


def _exit_with_parent(parent: int) -> None:
    """End this process soon after another has ended; an orphaned run would write where a new run writes."""

    def watch() -> None:
        """Wait for the other process to end, then exit."""
        while process_exists(parent):
            time.sleep(0.5)
        # `sys.exit` would end only this thread.
        os._exit(1)

    # A daemon thread does not keep a finished run alive.
    threading.Thread(target=watch, daemon=True).start()


def main(arguments: Sequence[str]) -> None:
    """Do the run that a JSON file describes.

    Args:
        arguments: ``SPEC.json FOLDER``, and optionally a process id: the run ends when that process does.

    Raises:
        SystemExit: There are not two or three arguments.
    """
    if len(arguments) not in (2, 3):
        raise SystemExit("usage: python -m jepa_agent.experiments.runner SPEC.json FOLDER [PARENT]")
    if len(arguments) == 3:
        _exit_with_parent(int(arguments[2]))
    run(read_spec(Path(arguments[0])), Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
