"""How much less JEPA needs than the best baseline of each environment, by medians over runs, in numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jepa_agent.experiments.records import AGENT
from jepa_agent.experiments.statistics import Summary
from jepa_agent.extras import needs

with needs("compare"):
    from scipy.stats import gmean


class Ratio(NamedTuple):
    """JEPA in one mode against the best baseline of an environment, by the medians over runs."""

    env: str
    mode: str
    n: int  # number of JEPA's runs
    steps: float | None  # the baseline's median steps to the threshold over JEPA's; None where either has no median
    fewest: str  # name of the baseline with the fewest steps, and its number of runs
    cpu_seconds: float | None  # the same ratio for CPU seconds of training
    quickest: str  # name of the baseline with the fewest CPU seconds, and its number of runs


def headline(summaries: Sequence[Summary]) -> dict[str, Any]:
    """Compute how much less JEPA needs to reach the thresholds than the best baseline of each environment.

    Args:
        summaries: Summaries of any number of environments.

    Returns:
        ``ratios``, a list of `Ratio`, and ``means`` by mode. Each of these holds the geometric means over environments of
        ``steps`` and ``cpu_seconds`` (None where no ratio is known), and counts: ``known`` ratios of steps, ``tasks``
        (environments in all), environments where JEPA needs ``fewer``, ``as_many`` or ``more`` steps, and ``no_dearer``
        where it needs no more CPU seconds.
    """
    envs = list(dict.fromkeys(summary.env for summary in summaries))
    ratios = [ratio for env in envs for ratio in _ratios(env, summaries)]
    means = {}
    for mode in dict.fromkeys(ratio.mode for ratio in ratios):
        own = [ratio for ratio in ratios if ratio.mode == mode]
        steps, seconds = ([r for r in values if r] for values in ([o.steps for o in own], [o.cpu_seconds for o in own]))
        means[mode] = {
            # Ratios multiply: only their geometric mean is the same whichever of the two is the numerator.
            "steps": float(gmean(steps)) if steps else None,
            "cpu_seconds": float(gmean(seconds)) if seconds else None,
            "known": len(steps),
            "tasks": len(envs),
            "fewer": sum(ratio > 1.0 for ratio in steps),
            "as_many": sum(ratio == 1.0 for ratio in steps),
            "more": sum(ratio < 1.0 for ratio in steps),
            "no_dearer": sum(ratio >= 1.0 for ratio in seconds),
        }
    return {"ratios": ratios, "means": means}


def _ratios(env: str, summaries: Sequence[Summary]) -> list[Ratio]:
    """Return a ratio for each of JEPA's modes in one environment; none where no baseline has run."""
    own = [summary for summary in summaries if summary.env == env]
    baselines = [summary for summary in own if summary.algorithm != AGENT]
    if not baselines:
        return []

    def best(field: str) -> Summary:
        """Return the baseline with the smallest median of ``field``; baselines without a median come last."""
        return min(baselines, key=lambda s: np.inf if getattr(s, field).median is None else getattr(s, field).median)

    def ratio(ours: Summary, field: str) -> float | None:
        """Return the best baseline's median of ``field`` over JEPA's, None where either is unknown."""
        theirs, mine = getattr(best(field), field).median, getattr(ours, field).median
        return None if theirs is None or mine is None else theirs / mine

    def name(field: str) -> str:
        """Return the name and number of runs of the best baseline, "-" where no baseline has a median."""
        found = best(field)
        return "-" if getattr(found, field).median is None else f"{found.algorithm}, n={found.n_seeds}"

    return [
        Ratio(env, s.mode, s.n_seeds, ratio(s, "steps"), name("steps"), ratio(s, "cpu_seconds"), name("cpu_seconds"))
        for s in own
        if s.algorithm == AGENT
    ]


def ratio_in_words(ratio: float) -> str:
    """Say in words how many times fewer, or times as many, steps or seconds a ratio means."""
    if f"{max(ratio, 1 / ratio):.1f}" == "1.0":
        return "as many"
    return f"{ratio:.1f} times fewer" if ratio > 1.0 else f"{1 / ratio:.1f} times as many"


def times_fewer(ratio: float | None) -> str:
    """Format a ratio with two significant digits, without decimals from 10 on; "-" for None."""
    return "-" if ratio is None else f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}"


def as_much(ratio: float | None) -> str:
    """Format what JEPA costs beside a baseline, given the baseline's cost over JEPA's: "12x as much", or "1.5x less" where
    JEPA is cheaper; "-" for None."""
    if ratio is None:
        return "-"
    return f"{times_fewer(1.0 / ratio)}x as much" if ratio <= 1.0 else f"{times_fewer(ratio)}x less"
