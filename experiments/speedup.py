"""How many times fewer steps JEPA needs than the best baseline, over all environments of a study, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jepa_agent.experiments.records import AGENT, Curve
from jepa_agent.experiments.statistics import first_reaching
from jepa_agent.experiments.study import Study


class Speedup(NamedTuple):
    """A baseline's median steps to the threshold over JEPA's, or the geometric mean of several such ratios."""

    ratio: float
    low: float  # 95% bootstrap interval over runs
    high: float
    bound: str = ""  # "≤" or "≥" where a median is that of the first evaluation or counts runs that never got there


class Speedups(NamedTuple):
    """How JEPA compares with the best baseline of each environment."""

    by_env: dict[str, Speedup]
    reached: Speedup | None  # geometric mean over the environments where half of JEPA's runs or more got there
    n_reached: int
    every: Speedup  # geometric mean over all


def speedups(study: Study, curves: Sequence[Curve], mode: str, resamples: int = 2000) -> Speedups:
    """Compare steps to the threshold, no environment left out: a run that never got there counts as if its last step did it.

    All agents are judged equally often: of those that were evaluated more often than the others on an environment, only the
    first evaluation at or after each step of the coarsest grid counts.

    Args:
        study: Gives the thresholds.
        curves: Curves of the finished runs.
        mode: Of JEPA.
        resamples: Number of bootstrap samples, each drawn of the runs of each algorithm in each environment.

    Returns:
        The comparison with the baseline of the lowest median by environment, for those that have runs of both.

    Raises:
        ValueError: No environment has runs of both.
    """
    rng = np.random.default_rng(0)
    found: dict[str, Speedup] = {}
    drawn: dict[str, np.ndarray] = {}  # the logarithm of the ratio in each bootstrap sample
    got_there: list[str] = []
    for env, threshold in study.thresholds().items():
        judged = [curve for curve in curves if curve.spec.env == env and curve.mode in (mode, "policy")]
        grid = max((curve.spec.eval_freq for curve in judged), default=1)
        needed: dict[str, list[_Needed]] = {}
        for curve in judged:
            needed.setdefault(curve.spec.algorithm, []).append(_needed(curve, threshold, grid))
        baselines = [name for name in needed if name != AGENT]
        if AGENT not in needed or not baselines:
            continue
        best = min(baselines, key=lambda name: _median(needed[name]))
        ours, theirs = (_medians(needed[name], resamples, rng) for name in (AGENT, best))
        drawn[env] = np.log(theirs) - np.log(ours)
        # What JEPA needed may be less where its first evaluation sufficed, and more where it never got there.
        less, more = _at_ends(needed[AGENT])
        fewer, further = _at_ends(needed[best])
        bound = "≤" if more or fewer else "≥" if less or further else ""
        found[env] = Speedup(_median(needed[best]) / _median(needed[AGENT]), *_interval(drawn[env]), bound)
        if not more:
            got_there.append(env)
    if not found:
        raise ValueError("no environment has finished runs of JEPA and of a baseline")
    reached = _mean(found, drawn, got_there) if got_there else None
    return Speedups(found, reached, len(got_there), _mean(found, drawn, list(found)))


class _Needed(NamedTuple):
    """What a run needed."""

    steps: float  # to the threshold; its last step if it never got there
    reached: bool
    at_once: bool  # at the first evaluation


def _needed(curve: Curve, threshold: float, grid: int) -> _Needed:
    """Read off a curve what a run needed, judged every ``grid`` steps."""
    steps = np.asarray(curve.steps)
    index = np.unique(np.searchsorted(steps, np.arange(grid, steps[-1] + 1, grid)))
    index = index if len(index) else np.array([len(steps) - 1])
    step = first_reaching(steps[index], np.asarray(curve.means)[index], threshold)
    return _Needed(float(steps[-1] if step is None else step), step is not None, step == steps[index[0]])


def _at_ends(runs: Sequence[_Needed]) -> tuple[bool, bool]:
    """Return whether half of the runs or more got there at once, and whether half or more never did."""
    at_once, lost = sum(run.at_once for run in runs), sum(not run.reached for run in runs)
    return 2 * at_once >= len(runs), 2 * lost >= len(runs)


def _mean(found: dict[str, Speedup], drawn: dict[str, np.ndarray], envs: Sequence[str]) -> Speedup:
    """Return the geometric mean over some environments; of bounds both ways, neither is said."""
    bounds = {found[env].bound for env in envs} - {""}
    ratio = float(np.exp(np.mean([np.log(found[env].ratio) for env in envs])))
    return Speedup(
        ratio, *_interval(np.mean([drawn[env] for env in envs], axis=0)), bounds.pop() if len(bounds) == 1 else ""
    )


def _median(runs: Sequence[_Needed]) -> float:
    """Return the median of what runs needed."""
    return float(np.median([run.steps for run in runs]))


def _medians(runs: Sequence[_Needed], resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return the median of each bootstrap sample of what runs needed, ``(resamples,)``."""
    return np.median(rng.choice([run.steps for run in runs], size=(resamples, len(runs))), axis=1)


def _interval(logs: np.ndarray) -> tuple[float, float]:
    """Return the central 95% of ratios, given their logarithms."""
    low, high = np.exp(np.percentile(logs, [2.5, 97.5]))
    return float(low), float(high)
