"""How far runs are, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jepa_agent.experiments.records import EVALUATIONS, RESULT, RunSpec
from jepa_agent.persistence.plain_data import parse_json

# Milliseconds of CPU per environment step, evaluations included, on one core of a server of 2023, JEPA evaluated in three
# modes; a first guess for an algorithm of which no run has been finished yet.
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
    """How far a run is; step 0 and no means before its first evaluation."""
    path = spec.folder(root) / EVALUATIONS
    lines = path.read_text().splitlines() if path.exists() else []
    rows = []
    for line in lines[-len(spec.modes) :]:
        try:
            rows.append(parse_json(line))
        except ValueError:  # being written
            continue
    last = max((row["step"] for row in rows), default=0)
    return Progress(last, {row["mode"]: row["mean"] for row in rows if row["step"] == last})


def cost_per_step(specs: Sequence[RunSpec], root: Path) -> dict[RunKey, float]:
    """CPU seconds per environment step by environment and algorithm: of finished runs, else of the same algorithm
    elsewhere in the study, else typical ones."""
    spent: dict[RunKey, list[float]] = {}
    for spec in specs:
        result = spec.folder(root) / RESULT
        if result.exists():
            content = parse_json(result.read_text())
            rate = content["total_cpu_seconds"] / max(content["steps"], 1)
            spent.setdefault(key(spec), []).append(rate)
            spent.setdefault(RunKey("", spec.algorithm), []).append(rate)
    known = {where: sum(rates) / len(rates) for where, rates in spent.items()}
    typical = {spec.algorithm: _TYPICAL.get(spec.algorithm, _UNKNOWN) / 1e3 for spec in specs}
    return {
        key(spec): known.get(key(spec), known.get(RunKey("", spec.algorithm), typical[spec.algorithm])) for spec in specs
    }


def remaining_seconds(
    waiting: Sequence[RunSpec], running: Sequence[RunSpec], specs: Sequence[RunSpec], root: Path, jobs: int
) -> float:
    """Seconds until all runs are done with ``jobs`` at a time, if each goes to its last step. What lies about of a run
    that is still waiting does not count: it starts afresh."""
    rates = cost_per_step(specs, root)
    total = sum(spec.n_timesteps * rates[key(spec)] for spec in waiting)
    total += sum((spec.n_timesteps - read_progress(spec, root).step) * rates[key(spec)] for spec in running)
    return total / max(min(jobs, len(waiting) + len(running)), 1)


class RunKey(NamedTuple):
    """What runs of equal cost share."""

    env: str
    algorithm: str


def key(spec: RunSpec) -> RunKey:
    """The environment and algorithm of a run."""
    return RunKey(spec.env, spec.algorithm)
