"""What a handful of seeds allows to say."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jepa_agent.experiments.records import Curve

Interval = tuple[float, float]
Statistic = Callable[[np.ndarray], float]
Scores = Sequence[ArrayLike]
"""Normalised scores of one algorithm, task by task: per task one score per run. 0 is a random policy, 1 the threshold."""


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
    ms_per_step: float  # median CPU milliseconds per step while evaluating: deciding, and the environment's own
    eval_freq: int  # environment steps between evaluations: nothing is known of what lies between them


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
        eval_freq=first.spec.eval_freq,
    )


def _spread(needed: list[float | None]) -> Spread:
    reached = [value for value in needed if value is not None]
    if not reached:
        return Spread(None, None, None)
    median = float(np.median([np.inf if value is None else value for value in needed]))
    return Spread(median if np.isfinite(median) else None, min(reached), max(reached))


# ---------------------------------------------------------------------- over tasks (Agarwal et al., 2108.13264)


class Estimate(NamedTuple):
    """A number, what is known of it, and on how much it rests."""

    value: float
    interval: Interval | None  # 95%; None where some task has a single run
    n: int  # runs, over all tasks


def iqm(scores: Scores) -> float:
    """Interquartile mean: of all runs of all tasks, the mean of the middle half."""
    return float(stats.trim_mean(_pooled(scores), 0.25))


def median(scores: Scores) -> float:
    """Median over tasks of each task's mean."""
    return float(np.median([np.asarray(task, dtype=float).mean() for task in scores]))


def optimality_gap(scores: Scores, target: float = 1.0) -> float:
    """How far below ``target`` runs lie on average; what lies above counts as having reached it."""
    return float(target - np.mean([np.minimum(np.asarray(task, dtype=float), target).mean() for task in scores]))


def performance_profile(scores: Scores, levels: ArrayLike) -> np.ndarray:
    """Share of runs above each of ``levels`` ``(L,)``, every task weighing the same."""
    return np.mean(
        [[np.mean(np.asarray(task, dtype=float) > level) for level in np.asarray(levels)] for task in scores], axis=0
    )


def probability_of_improvement(scores: Scores, others: Scores) -> float:
    """Chance that a run of the one beats a run of the other on the same task, ties counting half; mean over tasks."""
    chances = []
    for own, other in zip(scores, others, strict=True):
        first, second = np.asarray(own, dtype=float)[:, None], np.asarray(other, dtype=float)
        chances.append(np.mean(first > second) + np.mean(first == second) / 2)  # Mann and Whitney's U over its largest
    return float(np.mean(chances))


def estimate(statistic: Callable[..., float], *scores: Scores, n_resamples: int = 2000, seed: int = 0) -> Estimate:
    """``statistic(*scores)`` with its stratified bootstrap interval: runs are drawn anew within each task."""
    tables = [[np.asarray(task, dtype=float) for task in table] for table in scores]
    runs = sum(task.size for task in tables[0])
    value = statistic(*tables)
    if any(task.size < 2 for table in tables for task in table):
        return Estimate(value, None, runs)
    rng = np.random.default_rng(seed)
    drawn = [statistic(*[[rng.choice(task, task.size) for task in table] for table in tables]) for _ in range(n_resamples)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(value, (float(low), float(high)), runs)


def paired_difference(scores: ArrayLike, others: ArrayLike, seed: int = 0) -> Estimate:
    """Mean of ``scores - others`` over pairs of runs with the same seed, ``(n,)`` each."""
    differences = np.asarray(scores, dtype=float) - np.asarray(others, dtype=float)
    return Estimate(float(differences.mean()), bootstrap_interval(differences, seed=seed), differences.size)


class Censored(NamedTuple):
    """What it took to get somewhere, when some never got there."""

    median: float | None  # Kaplan and Meier's; None unless more than half can be expected to get there
    interval: Interval | None  # 95% of the median, an end that is not known being inf; None for fewer than five runs
    n: int
    n_reached: int


def censored_median(reached: Sequence[float | None], given_up: Sequence[float]) -> Censored:
    """Median of what the runs needed; ``reached`` holds None for a run that was given up after ``given_up``."""
    events = np.array([limit if value is None else value for value, limit in zip(reached, given_up, strict=True)])
    late = np.array([value is None for value in reached])
    n_reached = int((~late).sum())
    if n_reached == 0:
        return Censored(None, None, len(events), 0)
    survival = stats.ecdf(stats.CensoredData.right_censored(events, late)).sf
    interval = None
    if len(events) >= 5:  # even from the least to the most, n runs enclose the median only in 1 - 2 / 2^n of all cases
        # Greenwood's interval on the log-log scale, read where it crosses one half (Brookmeyer and Crowley).
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # where survival is 0 or 1 there is no interval, as told
            bounds = survival.confidence_interval(0.95, method="log-log")
        # Once all runs got there nothing is left to doubt; the formula has no number there.
        over = survival.probabilities == 0.0
        bands = (np.where(over, 0.0, band.probabilities) for band in (bounds.low, bounds.high))
        ends = (_first_at_or_below(survival.quantiles, band, 0.5) for band in bands)
        low, high = (np.inf if end is None else end for end in ends)
        interval = (float(low), float(high))
    return Censored(_middle(survival.quantiles, survival.probabilities), interval, len(events), n_reached)


def _middle(quantiles: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Where survival falls below one half; where it is one half for a while, the middle of that, as of any even number."""
    below, half = np.flatnonzero(probabilities < 0.5 - 1e-9), np.flatnonzero(np.isclose(probabilities, 0.5))
    if not below.size:
        return None
    return float((quantiles[half[0]] + quantiles[below[0]]) / 2.0 if half.size else quantiles[below[0]])


def _first_at_or_below(quantiles: np.ndarray, probabilities: np.ndarray, level: float) -> float | None:
    below = np.flatnonzero(probabilities <= level)
    return float(quantiles[below[0]]) if below.size else None


def _pooled(scores: Scores) -> np.ndarray:
    return np.concatenate([np.ravel(task) for task in scores])
