"""The pictures of a comparison study's report and their captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jepa_agent.experiments.figures import (
    plot_cost_of_acting,
    plot_curves,
    plot_estimates,
    plot_needed,
    plot_profiles,
)
from jepa_agent.experiments.ratios import headline, times_fewer
from jepa_agent.experiments.records import AGENT, Curve
from jepa_agent.experiments.scores import is_ours, quickness
from jepa_agent.experiments.statistics import Estimate, Summary, estimate, probability_of_improvement, summarise
from jepa_agent.experiments.study import Study

FIGURES = "figures"
NEEDED = (
    "Environment steps until an evaluation first reached the threshold: a mark per run, a bar at the median. Open marks are "
    "runs that ended without it, at their last step. Beside the names: how many runs got there; "
    "on the right: JEPA beside the best baseline, by medians."
)


class Picture(NamedTuple):
    """A figure of the report and its caption."""

    file: str  # path relative to the report's folder
    caption: str


def draw(
    study: Study,
    summaries: Sequence[Summary],
    curves: Sequence[Curve],
    scores: dict[str, list[np.ndarray]],
    folder: Path,
) -> list[Picture]:
    """Draw all figures of a report.

    Args:
        study: Holds the thresholds.
        summaries: Summaries of the curves, at least one.
        curves: Curves of the finished runs.
        scores: Normalised scores by agent; without any, the performance profile is left out.
        folder: The report's folder; figures go to `FIGURES` below it.

    Returns:
        The figures, in the order in which the report shows them.
    """
    plot_needed(curves, study.thresholds(), folder / FIGURES / "needed.png", remarks(study, curves))
    pictures = [Picture(f"{FIGURES}/needed.png", NEEDED)]
    for env in dict.fromkeys(summary.env for summary in summaries):
        own = [curve for curve in curves if curve.spec.env == env]
        file = f"{FIGURES}/{own[0].spec.folder(folder).parent.name}.png"
        threshold = next(summary.threshold for summary in summaries if summary.env == env)
        plot_curves(own, threshold, folder / file)
        pictures.append(Picture(file, f"{env}: mean return while learning, against environment steps and CPU seconds."))
    plot_cost_of_acting(summaries, folder / FIGURES / "acting.png")
    pictures.append(
        Picture(
            f"{FIGURES}/acting.png", "What a step costs, the environment's included, and what it brings; JEPA in each mode."
        )
    )
    if scores:
        plot_profiles(scores, folder / FIGURES / "profile.png")
        pictures.append(Picture(f"{FIGURES}/profile.png", "Performance profile: the share of runs that end above a score."))
    chances = {**improvement(quickness(study, curves), "needs fewer steps than"), **improvement(scores, "ends better than")}
    if chances:
        label = "probability that a run of the one does so beside a run of the other, ties counting half"
        plot_estimates(chances, label, 0.5, folder / FIGURES / "improvement.png")
        pictures.append(Picture(f"{FIGURES}/improvement.png", "Probability of improvement, 95% interval."))
    return pictures


def remarks(study: Study, curves: Sequence[Curve]) -> dict[str, str]:
    """Say by environment how many times fewer steps JEPA needs in its first mode than the best baseline, by medians.

    Args:
        study: Holds the thresholds.
        curves: Curves of the finished runs.
    """
    mode = next((curve.mode for curve in curves if curve.spec.algorithm == AGENT), None)
    if mode is None:
        return {}
    said = {}
    for ratio in headline([s for env in study.tasks for s in _of_mode(study, curves, env, mode)])["ratios"]:
        if ratio.steps is None:
            reached = any(s.n_reached for s in _of_mode(study, curves, ratio.env, mode) if s.algorithm == AGENT)
            said[ratio.env] = "" if reached else f"{AGENT}: not reached"
            continue
        factor = times_fewer(max(ratio.steps, 1 / ratio.steps))
        words = "as many" if factor == "1" else f"{factor} times {'fewer' if ratio.steps > 1.0 else 'as many'}"
        said[ratio.env] = f"{AGENT}: {words} steps"
    return said


def _of_mode(study: Study, curves: Sequence[Curve], env: str, mode: str) -> list[Summary]:
    """Summarise the baselines and JEPA's runs in one mode, in one environment."""
    own = [curve for curve in curves if curve.spec.env == env and curve.mode in (mode, "policy")]
    return summarise(own, study.tasks[env].threshold)


def improvement(scores: dict[str, list[np.ndarray]], beats: str) -> dict[str, Estimate]:
    """Estimate the probability that a run of JEPA beats a run of each other agent.

    Args:
        scores: By agent, one array of runs per environment; higher is better.
        beats: Verb of the labels, such as "ends better than".

    Returns:
        Estimates with 95% intervals by label, for every mode of JEPA and every other agent.
    """
    return {
        f"{name} {beats} {other}": estimate(probability_of_improvement, own, against)
        for name, own in scores.items()
        for other, against in scores.items()
        if is_ours(name) and not is_ours(other)
    }
