"""Progress of runs and an estimate of the remaining time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jepa_agent.experiments.records import EVALUATIONS, RESULT, RunSpec
from jepa_agent.persistence.plain_data import parse_json

# CPU milliseconds per environment step, evaluations included, on one core of a server of 2023, with JEPA evaluated in
# three modes. Used for an algorithm until one of its runs has finished.
_TYPICAL = {
    "JEPA": 50.0,
    "PPO": 0.5,
    "A2C": 0.5,
    "DQN": 1.5,
    "QRDQN": 1.5,
    "SAC": 13.0,
    "TD3": 10.0,
    "TQC": 25.0,
    "CrossQ": 25.0,
}
_UNKNOWN = 13.0


class Progress(NamedTuple):
    """The latest evaluation of a run."""

    step: int  # environment steps done
    means: dict[str, float]  # mean return by mode


def read_progress(spec: RunSpec, root: Path) -> Progress:
    """Read the latest evaluation of a run.

    Args:
        spec: The run.
        root: The study's folder.

    Returns:
        The latest evaluation; step 0 without means before the first one.
    """
    path = spec.folder(root) / EVALUATIONS
    lines = path.read_text().splitlines() if path.exists() else []
    rows = []
    # The latest evaluation has at most one line per mode.
    for line in lines[-len(spec.modes) :]:
        try:
            rows.append(parse_json(line))
        except ValueError:  # a line that is being written
            continue
    last = max((row["step"] for row in rows), default=0)
    return Progress(last, {row["mode"]: row["mean"] for row in rows if row["step"] == last})


def cost_per_step(specs: Sequence[RunSpec], root: Path) -> dict[RunKey, float]:
    """Estimate CPU seconds per environment step.

    Rates come from finished runs of the same environment and algorithm, else from finished runs of the algorithm in other
    environments, else from typical values.

    Args:
        specs: All runs of a study.
        root: The study's folder.

    Returns:
        CPU seconds per environment step, by environment and algorithm.
    """
    spent: dict[RunKey, list[float]] = {}
    for spec in specs:
        result = spec.folder(root) / RESULT
        if result.exists():
            content = parse_json(result.read_text())
            rate = content["total_cpu_seconds"] / max(content["steps"], 1)
            spent.setdefault(key(spec), []).append(rate)
            # The empty environment stands for all environments together.
            spent.setdefault(RunKey("", spec.algorithm), []).append(rate)
    known = {where: sum(rates) / len(rates) for where, rates in spent.items()}
    typical = {spec.algorithm: _TYPICAL.get(spec.algorithm, _UNKNOWN) / 1e3 for spec in specs}
    return {
        key(spec): known.get(key(spec), known.get(RunKey("", spec.algorithm), typical[spec.algorithm])) for spec in specs
    }


def remaining_seconds(
    waiting: Sequence[RunSpec], running: Sequence[RunSpec], specs: Sequence[RunSpec], root: Path, jobs: int
) -> float:
    """Estimate the time until all runs have finished, if each takes all of its steps.

    Args:
        waiting: Runs that have not started; they start afresh, whatever an earlier attempt has left.
        running: Runs under way; the steps of their latest evaluation are done.
        specs: All runs of the study, whose finished ones give the rates.
        root: The study's folder.
        jobs: Runs at a time.

    Returns:
        Seconds.
    """
    rates = cost_per_step(specs, root)
    total = sum(spec.n_timesteps * rates[key(spec)] for spec in waiting)
    total += sum((spec.n_timesteps - read_progress(spec, root).step) * rates[key(spec)] for spec in running)
    return total / max(min(jobs, len(waiting) + len(running)), 1)


class RunKey(NamedTuple):
    """Environment and algorithm, by which the cost of a step is estimated."""

    env: str
    algorithm: str


def key(spec: RunSpec) -> RunKey:
    """Return the environment and algorithm of a run."""
    return RunKey(spec.env, spec.algorithm)
