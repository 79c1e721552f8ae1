"""How many times fewer steps JEPA needs than the best baseline, over all environments of a study, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jepa_agent.experiments.records import AGENT, Curve
from jepa_agent.experiments.statistics import first_reaching
from jepa_agent.experiments.study import Study


class Speedup(NamedTuple):
    """A baseline's median steps to the threshold over JEPA's."""

    ratio: float
    low: float  # 95% bootstrap interval over runs
    high: float
    is_bound: bool  # whether a median counts runs that never got there, at the steps at which they ended


def speedups(study: Study, curves: Sequence[Curve], mode: str, resamples: int = 2000) -> tuple[dict[str, Speedup], Speedup]:
    """Compare steps to the threshold, no environment left out: a run that never got there counts as if its last step did it.

    Args:
        study: Gives the thresholds.
        curves: Curves of the finished runs.
        mode: Of JEPA.
        resamples: Number of bootstrap samples, each drawn of the runs of each algorithm in each environment.

    Returns:
        The comparison with the baseline of the lowest median by environment, for those that have runs of both, and the
        geometric mean over them.

    Raises:
        ValueError: No environment has runs of both.
    """
    rng = np.random.default_rng(0)
    found: dict[str, Speedup] = {}
    drawn = []  # the logarithm of the ratio in each bootstrap sample, by environment
    for env, threshold in study.thresholds().items():
        needed: dict[str, np.ndarray] = {}
        reached: dict[str, list[bool]] = {}
        for curve in curves:
            if curve.spec.env != env or curve.mode not in (mode, "policy"):
                continue
            step = first_reaching(curve.steps, curve.means, threshold)
            name = curve.spec.algorithm
            needed[name] = np.append(needed.get(name, []), curve.steps[-1] if step is None else step)
            reached.setdefault(name, []).append(step is not None)
        baselines = [name for name in needed if name != AGENT]
        if AGENT not in needed or not baselines:
            continue
        best = min(baselines, key=lambda name: float(np.median(needed[name])))
        ours, theirs = (_medians(needed[name], resamples, rng) for name in (AGENT, best))
        logs = np.log(theirs) - np.log(ours)
        drawn.append(logs)
        ratio = float(np.median(needed[best]) / np.median(needed[AGENT]))
        bound = any(2 * sum(reached[name]) <= len(reached[name]) for name in (AGENT, best))
        found[env] = Speedup(ratio, *_interval(logs), bound)
    if not found:
        raise ValueError("no environment has finished runs of JEPA and of a baseline")
    mean = float(np.exp(np.mean([np.log(one.ratio) for one in found.values()])))
    return found, Speedup(mean, *_interval(np.mean(drawn, axis=0)), any(one.is_bound for one in found.values()))


def _medians(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return the median of each bootstrap sample of ``values``, ``(resamples,)``."""
    return np.median(rng.choice(values, size=(resamples, len(values))), axis=1)


def _interval(logs: np.ndarray) -> tuple[float, float]:
    """Return the central 95% of ratios, given their logarithms."""
    low, high = np.exp(np.percentile(logs, [2.5, 97.5]))
    return float(low), float(high)
