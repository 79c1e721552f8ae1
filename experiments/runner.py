"""Doing runs: one in this process, or many side by side, resumed where they were left."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import psutil
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env

from jepa_agent.config import AgentConfig, PlannerConfig, as_kwargs
from jepa_agent.experiments.baselines import EXTRAS, algorithm_class, make_baseline, settings, with_classes
from jepa_agent.experiments.evaluation import Evaluator
from jepa_agent.experiments.folders import alone
from jepa_agent.experiments.machine import cpu_model, versions
from jepa_agent.experiments.records import (
    EVALUATIONS,
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
from jepa_agent.spaces import policy_name

__all__ = ["Curve", "Event", "Failure", "RunSpec", "read_curves", "run", "run_all"]


@dataclass(frozen=True)
class Event:
    """What has just become of a run."""

    kind: Literal["skipped", "started", "finished", "failed"]
    spec: RunSpec
    folder: Path


@dataclass(frozen=True)
class Failure:
    """A run that failed, and the last line it wrote to its log."""

    spec: RunSpec
    reason: str
    log: Path


def run(spec: RunSpec, folder: Path) -> None:
    """Train from scratch in this process, on one thread; evaluations.jsonl grows on the way, result.json comes last.

    Whatever an earlier run left in ``folder`` is replaced; `FolderInUseError` if one is under way there. Raises what
    building or training the algorithm raises.
    """
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        for name in (RESULT, EVALUATIONS):
            (folder / name).unlink(missing_ok=True)
        write_json(folder / RESULT, _learn(spec, folder))


def _learn(spec: RunSpec, folder: Path) -> dict[str, Any]:
    """Do it; what is to be said of it afterwards."""
    began = time.process_time()
    model = _build(spec)
    env = model.get_env()
    assert env is not None
    with closing(env), closing(Evaluator(spec, folder / EVALUATIONS)) as evaluator:
        model.learn(spec.n_timesteps, callback=evaluator)
        training_seconds, _ = evaluator.clock.read()
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
    """A run under way."""

    def poll(self) -> int | None:
        """Its exit code; None as long as it goes on."""

    def stop(self) -> None:
        """End it and wait until it has ended."""


class Launcher(Protocol):
    """Starts runs somewhere. Folders are reached by the same path from here and from there."""

    def start(self, spec: RunSpec, folder: Path) -> Job:
        """Start `run` of a spec that has been written to ``folder``; what it prints goes to its log there."""

    def places(self) -> int:
        """How many runs it has room for at a time."""


class LocalLauncher:
    """A process on this machine for every run, with one torch thread; it does not outlive this one."""

    def places(self) -> int:
        """One for each of this machine's cores."""
        return os.cpu_count() or 1

    def start(self, spec: RunSpec, folder: Path) -> Job:
        """Start it."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [*command_of(folder), str(os.getpid())]
        with (folder / LOG).open("wb") as log:
            return LocalJob(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))


@dataclass(frozen=True)
class LocalJob:
    """A run in a process of its own."""

    process: subprocess.Popen[bytes]

    def poll(self) -> int | None:
        """The process's exit code; None as long as it runs."""
        return self.process.poll()

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self.process.terminate()
        self.process.wait()


def command_of(folder: Path) -> list[str]:
    """The command that does the run whose spec lies in ``folder``."""
    return [sys.executable, "-m", "jepa_agent.experiments.runner", str(folder / SPEC), str(folder)]


def run_all(
    specs: Sequence[RunSpec],
    root: Path,
    jobs: int,
    on_event: Callable[[Event], None] = lambda event: None,
    on_wait: Callable[[], None] = lambda: None,
    launcher: Launcher | None = None,
) -> list[Failure]:
    """Do every run in a process of its own, ``jobs`` at a time, each in ``spec.folder(root)``; return the failures.

    A finished run is skipped, an unfinished one starts afresh. Raises ValueError before anything starts if two specs
    share a folder or a folder holds the result of another spec. When interrupted it ends the runs that are under way.
    ``on_wait`` is called again and again in between. ``launcher`` is `LocalLauncher` unless another is given.
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
                write_json(folder / SPEC, spec_as_dict(spec))
                running.append((launcher.start(spec, folder), spec))
                on_event(Event("started", spec, folder))
            time.sleep(0.05)
            on_wait()
            for job, spec in [(job, spec) for job, spec in running if job.poll() is not None]:
                running.remove((job, spec))
                folder = spec.folder(root)
                finished = job.poll() == 0 and (folder / RESULT).exists()
                if not finished:
                    reason = _reason(job.poll(), folder / LOG)
                    failures.append(Failure(spec, reason, folder / LOG))
                on_event(Event("finished" if finished else "failed", spec, folder))
    finally:
        for job, _ in running:
            job.stop()
    return failures


def unfinished(
    specs: Sequence[RunSpec], root: Path, on_event: Callable[[Event], None] = lambda event: None
) -> list[RunSpec]:
    """The runs that are still to be done. Raises ValueError as `run_all` does, and for a result that cannot be read."""
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
    for spec in finished:
        on_event(Event("skipped", spec, spec.folder(root)))
    return [spec for spec in specs if spec not in finished]


def _build(spec: RunSpec) -> BaseAlgorithm:
    if not is_agent(spec.algorithm):
        return make_baseline(spec.algorithm, spec.env, spec.seed, spec.env_kwargs, spec.overrides)
    from jepa_agent.agent import JEPA

    chosen = with_classes(spec.overrides)
    if "planner" in chosen:
        chosen["planner"] = PlannerConfig(**chosen["planner"])
    with ExitStack() as opened:
        env = make_vec_env(spec.env, chosen.pop("n_envs", 1), seed=spec.seed, env_kwargs=spec.env_kwargs)
        opened.callback(env.close)
        model = JEPA(policy_name(env.observation_space), env, seed=spec.seed, device="cpu", **chosen)
        opened.pop_all()
    return model


def check_overrides(algorithm: str, overrides: dict[str, Any]) -> None:
    """ValueError, with near names, if a setting is none that the algorithm has."""
    if not is_agent(algorithm):
        _check_names(algorithm_class(algorithm), overrides, EXTRAS)
        return
    from jepa_agent.agent import JEPA
    from jepa_agent.policy import JEPAPolicy

    _check_names(JEPA, overrides, ("n_envs",))
    _check_names(JEPAPolicy, overrides.get("policy_kwargs", {}))
    _check_names(PlannerConfig, overrides.get("planner", {}))
    PlannerConfig(**overrides.get("planner", {}))


def _check_names(kind: type, given: dict[str, Any], more: Sequence[str] = ()) -> None:
    parameters = inspect.signature(kind).parameters
    known = [*parameters, *more]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return  # whatever it makes of them
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
            hint = f"; did you mean {' or '.join(near)}?" if near else f", which has {', '.join(known)}"
            raise ValueError(f"{name!r} is no setting of {kind.__name__}{hint}")


def _settings(spec: RunSpec, model: BaseAlgorithm) -> dict[str, Any]:
    """What the run was done with, defaults included, for another version may have others."""
    if not is_agent(spec.algorithm):
        return {**settings(spec.algorithm, spec.env), **spec.overrides}
    policy: Any = model.policy
    agent = {field.name: getattr(model, field.name) for field in fields(AgentConfig)}
    planner = {"kind": type(policy.planner).__name__, **vars(policy.planner)}
    return json.loads(json.dumps({**agent, "model": as_kwargs(policy.sizes), "planner": planner}, default=str))


def _reason(code: int | None, log: Path) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}" + (", perhaps for want of memory" if code == -9 else "")
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else f"exit code {code}, with an empty log"


def _end_with(parent: int) -> None:
    """End this process soon after another has ended: a run that nobody waits for would write where a new one does."""

    def watch() -> None:
        while psutil.pid_exists(parent):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: Sequence[str]) -> None:
    """Do the run that a JSON file describes: ``SPEC.json FOLDER``, and no longer than process ``PARENT`` if one is given."""
    if len(arguments) not in (2, 3):
        raise SystemExit("usage: python -m jepa_agent.experiments.runner SPEC.json FOLDER [PARENT]")
    if len(arguments) == 3:
        _end_with(int(arguments[2]))
    run(read_spec(Path(arguments[0])), Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
