"""Statistics over a few seeds: bootstrap intervals, aggregates over environments, and censored medians."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jepa_agent.experiments.records import Curve
from jepa_agent.extras import needs

with needs("compare"):
    from scipy import stats

Interval = tuple[float, float]
Statistic = Callable[[np.ndarray], float]
Scores = Sequence[ArrayLike]
"""Normalised scores of one algorithm, task by task: per task one score per run. 0 is a random policy, 1 the threshold."""


class Spread(NamedTuple):
    """Median and range of a quantity over runs.

    For what was needed to reach a threshold, runs that never reached it count as infinity in the median.
    """

    median: float | None  # None unless more than half of the runs reached it
    low: float | None  # minimum of the runs that reached it; None if none did
    high: float | None  # maximum of the runs that reached it; None if none did


class Summary(NamedTuple):
    """Results of all runs of one algorithm, mode and environment."""

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
    last_three: Spread  # mean of a run's last three evaluations: shows whether learning is stable
    ms_per_step: float  # median CPU milliseconds per step while evaluating: decision and environment
    eval_freq: int  # environment steps between evaluations, the resolution of `steps`


def bootstrap_interval(
    scores: ArrayLike,
    statistic: Statistic = np.mean,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval | None:
    """Compute a percentile bootstrap interval over seeds.

    Args:
        scores: One score per seed, ``(n,)``.
        statistic: Statistic of the scores.
        confidence: Confidence level.
        n_resamples: Number of bootstrap samples.
        seed: Seed of the bootstrap samples, so that a report can be reproduced.

    Returns:
        The low and high end; None for fewer than two seeds.
    """
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
    """Return the first step whose mean return reaches a threshold.

    Args:
        steps: Steps ``(E,)``, or another quantity that grows with them.
        means: Mean returns ``(E,)`` at these steps.
        threshold: Mean return to reach.

    Returns:
        One of ``steps``; None if the threshold is never reached.
    """
    reached = np.flatnonzero(np.asarray(means) >= threshold)
    return float(np.asarray(steps)[reached[0]]) if reached.size else None


def group(curves: Sequence[Curve]) -> dict[tuple[str, str, str], list[Curve]]:
    """Group curves by (environment, algorithm, mode), in the order in which these first appear."""
    groups: dict[tuple[str, str, str], list[Curve]] = {}
    for curve in curves:
        groups.setdefault((curve.spec.env, curve.spec.algorithm, curve.mode), []).append(curve)
    return groups


def summarise(curves: Sequence[Curve], threshold: float) -> list[Summary]:
    """Summarise curves by environment, algorithm and mode.

    Args:
        curves: Curves of finished runs.
        threshold: Mean return that counts as solved.

    Returns:
        One summary per group, in the order in which groups first appear.
    """
    return [_summary(own, threshold) for own in group(curves).values()]


def _summary(curves: list[Curve], threshold: float) -> Summary:
    """Summarise the curves of one environment, algorithm and mode."""
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
    """Return median and range, None standing for runs that never reached the threshold."""
    reached = [value for value in needed if value is not None]
    if not reached:
        return Spread(None, None, None)
    # Dropping them instead would reward an algorithm for failing on hard seeds.
    median = float(np.median([np.inf if value is None else value for value in needed]))
    return Spread(median if np.isfinite(median) else None, min(reached), max(reached))


# ---------------------------------------------------------------------- over tasks (Agarwal et al., 2108.13264)


class Estimate(NamedTuple):
    """An estimate with its uncertainty and sample size."""

    value: float
    interval: Interval | None  # 95%; None where some environment has a single run
    n: int  # runs, over all environments


def iqm(scores: Scores) -> float:
    """Return the interquartile mean: the mean of the middle half of all runs of all environments."""
    return float(stats.trim_mean(_pooled(scores), 0.25))


def median(scores: Scores) -> float:
    """Return the median over environments of the mean over runs."""
    return float(np.median([np.asarray(task, dtype=float).mean() for task in scores]))


def optimality_gap(scores: Scores, target: float = 1.0) -> float:
    """Return by how much runs fall short of a target on average; scores above the target count as the target.

    Args:
        scores: Normalised scores, one array of runs per environment.
        target: Score to reach.
    """
    return float(target - np.mean([np.minimum(np.asarray(task, dtype=float), target).mean() for task in scores]))


def performance_profile(scores: Scores, levels: ArrayLike) -> np.ndarray:
    """Return the share of runs above each of several scores, with equal weight for every environment.

    Args:
        scores: Normalised scores, one array of runs per environment.
        levels: Scores ``(L,)``.

    Returns:
        Shares ``(L,)``.
    """
    return np.mean(
        [[np.mean(np.asarray(task, dtype=float) > level) for level in np.asarray(levels)] for task in scores], axis=0
    )


def profile_interval(
    scores: Scores, levels: ArrayLike, n_resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray] | None:
    """Compute a 95% interval of a performance profile, by bootstrap samples of the runs of each environment.

    Args:
        scores: Normalised scores, one array of runs per environment.
        levels: Scores ``(L,)``.
        n_resamples: Number of bootstrap samples.
        seed: Seed of the bootstrap samples.

    Returns:
        Low and high shares, each ``(L,)``; None where some environment has a single run, which cannot be resampled.
    """
    above = [np.asarray(task, dtype=float)[:, None] > np.asarray(levels) for task in scores]  # (runs, L) by environment
    if any(len(task) < 2 for task in above):
        return None
    rng = np.random.default_rng(seed)
    drawn = [
        np.mean([task[rng.integers(0, len(task), len(task))].mean(0) for task in above], axis=0) for _ in range(n_resamples)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return low, high


def probability_of_improvement(scores: Scores, others: Scores) -> float:
    """Return the probability that a run of one agent beats one of another in the same environment, as a mean over these.

    Args:
        scores: Scores of the one, one array of runs per environment.
        others: Scores of the other, for the same environments; ties count one half.
    """
    chances = []
    for own, other in zip(scores, others, strict=True):
        first, second = np.asarray(own, dtype=float)[:, None], np.asarray(other, dtype=float)
        chances.append(np.mean(first > second) + np.mean(first == second) / 2)  # Mann-Whitney U, divided by its maximum
    return float(np.mean(chances))


def estimate(statistic: Callable[..., float], *scores: Scores, n_resamples: int = 2000, seed: int = 0) -> Estimate:
    """Estimate a statistic with its 95% stratified bootstrap interval: runs are resampled within each environment.

    Args:
        statistic: Statistic of as many tables of scores as are given.
        scores: Tables of scores, each with one array of runs per environment.
        n_resamples: Number of bootstrap samples.
        seed: Seed of the bootstrap samples.

    Returns:
        The estimate; ``n`` counts the runs of the first table.
    """
    tables = [[np.asarray(task, dtype=float) for task in table] for table in scores]
    runs = sum(task.size for task in tables[0])
    value = statistic(*tables)
    # A single run cannot be resampled: its environment would seem to have no variance.
    if any(task.size < 2 for table in tables for task in table):
        return Estimate(value, None, runs)
    rng = np.random.default_rng(seed)
    drawn = [statistic(*[[rng.choice(task, task.size) for task in table] for table in tables]) for _ in range(n_resamples)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(value, (float(low), float(high)), runs)


def paired_difference(scores: ArrayLike, others: ArrayLike, seed: int = 0) -> Estimate:
    """Estimate the mean difference between paired runs.

    Args:
        scores: Scores ``(n,)`` of the one.
        others: Scores ``(n,)`` of the other, with the same seeds in the same order.
        seed: Seed of the bootstrap samples.
    """
    differences = np.asarray(scores, dtype=float) - np.asarray(others, dtype=float)
    return Estimate(float(differences.mean()), bootstrap_interval(differences, seed=seed), differences.size)


class Censored(NamedTuple):
    """The median of what runs needed to reach a threshold, some of which never reached it."""

    median: float | None  # Kaplan-Meier estimate; None where survival never falls below one half
    interval: Interval | None  # 95% of the median; unknown ends are inf; None for fewer than five runs
    n: int
    n_reached: int


def censored_median(reached: Sequence[float | None], given_up: Sequence[float]) -> Censored:
    """Estimate the median of what runs needed to reach a threshold, treating runs that never reached it as right-censored.

    Args:
        reached: What each run needed; None for a run that never reached the threshold.
        given_up: For each run, the amount at which it ended; used where ``reached`` is None.

    Source:
        Kaplan and Meier (1958) for the survival function, Brookmeyer and Crowley (1982) for the interval of the median.
    """
    events = np.array([limit if value is None else value for value, limit in zip(reached, given_up, strict=True)])
    late = np.array([value is None for value in reached])
    n_reached = int((~late).sum())
    if n_reached == 0:
        return Censored(None, None, len(events), 0)
    survival = stats.ecdf(stats.CensoredData.right_censored(events, late)).sf
    interval = None
    if len(events) >= 5:  # even the range of n runs encloses the median only with probability 1 - 2 / 2^n
        # Greenwood's interval of survival on the log-log scale, read where it crosses one half (Brookmeyer and Crowley).
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the formula divides by 0 where survival is 0 or 1
            bounds = survival.confidence_interval(0.95, method="log-log")
        # Where survival is 0 the formula gives nan; both bounds are 0 there.
        over = survival.probabilities == 0.0
        bands = (np.where(over, 0.0, band.probabilities) for band in (bounds.low, bounds.high))
        ends = (_first_at_or_below(survival.quantiles, band, 0.5) for band in bands)
        low, high = (np.inf if end is None else end for end in ends)
        interval = (float(low), float(high))
    return Censored(_middle(survival.quantiles, survival.probabilities), interval, len(events), n_reached)


def _middle(quantiles: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Return where survival falls below one half; the middle of the interval if it is one half for a while."""
    # As with the median of an even number of values; the tolerance allows for rounding in products of fractions.
    below, half = np.flatnonzero(probabilities < 0.5 - 1e-9), np.flatnonzero(np.isclose(probabilities, 0.5))
    if not below.size:
        return None
    return float((quantiles[half[0]] + quantiles[below[0]]) / 2.0 if half.size else quantiles[below[0]])


def _first_at_or_below(quantiles: np.ndarray, probabilities: np.ndarray, level: float) -> float | None:
    """Return the first quantile whose probability is at most ``level``; None if there is none."""
    below = np.flatnonzero(probabilities <= level)
    return float(quantiles[below[0]]) if below.size else None


def _pooled(scores: Scores) -> np.ndarray:
    """Return the scores of all environments as one array."""
    return np.concatenate([np.ravel(task) for task in scores])
