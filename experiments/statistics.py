"""What a handful of seeds allows to say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jepa_agent.experiments.records import Curve

Interval = tuple[float, float]
Statistic = Callable[[np.ndarray], float]


class Spread(NamedTuple):
    """A quantity over all runs; where it is what it took to get somewhere, runs that never did count as infinity."""

    median: float | None  # None unless more than half got there
    low: float | None  # least among the runs that got there; None if none did
    high: float | None  # most among the runs that got there


class Summary(NamedTuple):
    """What the runs of one algorithm in one environment, with one mode acting, have in common."""

    algorithm: str
    mode: str
    env: str
    threshold: float  # mean return of an evaluation that counts as solved
    n_seeds: int
    n_reached: int  # runs that reached the threshold
    steps: Spread  # environment steps to the threshold
    cpu_seconds: Spread  # CPU seconds of training to the threshold
    final_return: float  # mean over seeds of the last evaluation
    final_interval: Interval | None  # its 95% bootstrap interval; None for a single seed
    last_three: Spread  # over seeds, the mean of the last three evaluations: has learning held?
    ms_per_step: float  # median CPU milliseconds per step while evaluating


def bootstrap_interval(
    scores: ArrayLike,
    statistic: Statistic = np.mean,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval | None:
    """Percentile bootstrap interval of ``statistic`` of one score per seed ``(n,)``; None for fewer than two seeds."""
    values = np.asarray(scores, dtype=float)
    if values.size < 2:
        return None
    result = stats.bootstrap(
        (values,),
        statistic,
        confidence_level=confidence,
        n_resamples=n_resamples,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def first_reaching(steps: ArrayLike, means: ArrayLike, threshold: float) -> float | None:
    """The first of ``steps`` ``(E,)`` whose mean ``(E,)`` is at least ``threshold``; None if there is none."""
    reached = np.flatnonzero(np.asarray(means) >= threshold)
    return float(np.asarray(steps)[reached[0]]) if reached.size else None


def group(curves: Sequence[Curve]) -> dict[tuple[str, str, str], list[Curve]]:
    """The curves by (environment, algorithm, mode), in the order in which these first appear."""
    groups: dict[tuple[str, str, str], list[Curve]] = {}
    for curve in curves:
        groups.setdefault((curve.spec.env, curve.spec.algorithm, curve.mode), []).append(curve)
    return groups


def summarise(curves: Sequence[Curve], threshold: float) -> list[Summary]:
    """One summary per environment, algorithm and mode; ``threshold`` is the mean return to reach."""
    return [_summary(own, threshold) for own in group(curves).values()]


def _summary(curves: list[Curve], threshold: float) -> Summary:
    first = curves[0]
    steps = [first_reaching(curve.steps, curve.means, threshold) for curve in curves]
    seconds = [first_reaching(curve.cpu_seconds, curve.means, threshold) for curve in curves]
    finals = [curve.means[-1] for curve in curves]
    return Summary(
        algorithm=first.spec.algorithm,
        mode=first.mode,
        env=first.spec.env,
        threshold=threshold,
        n_seeds=len(curves),
        n_reached=sum(step is not None for step in steps),
        steps=_spread(steps),
        cpu_seconds=_spread(seconds),
        final_return=float(np.mean(finals)),
        final_interval=bootstrap_interval(finals),
        last_three=_spread([float(curve.means[-3:].mean()) for curve in curves]),
        ms_per_step=float(np.median(np.concatenate([curve.ms_per_step for curve in curves]))),
    )


def _spread(needed: list[float | None]) -> Spread:
    reached = [value for value in needed if value is not None]
    if not reached:
        return Spread(None, None, None)
    median = float(np.median([np.inf if value is None else value for value in needed]))
    return Spread(median if np.isfinite(median) else None, min(reached), max(reached))
