"""The report of a study: Markdown for reading here, one HTML file for sending on."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from scipy.stats import gmean

from jepa_agent.experiments.events import write_events
from jepa_agent.experiments.figures import (
    name_of,
    plot_cost_of_acting,
    plot_curves,
    plot_estimates,
    plot_needed,
    plot_profiles,
)
from jepa_agent.experiments.provenance import (
    key,
    machines,
    on_several_processors,
    results_of,
    unrecorded,
    with_several_settings,
)
from jepa_agent.experiments.records import AGENT, Curve, RunSpec
from jepa_agent.experiments.report import HEADINGS, cells, write_summary
from jepa_agent.experiments.scores import is_ours, normalised_scores, quickness, random_returns
from jepa_agent.experiments.statistics import (
    Censored,
    Estimate,
    Summary,
    censored_median,
    estimate,
    first_reaching,
    group,
    iqm,
    median,
    optimality_gap,
    paired_difference,
    probability_of_improvement,
    summarise,
)
from jepa_agent.experiments.study import Study

FIGURES, MARKDOWN, HTML = "figures", "report.md", "report.html"


class Picture(NamedTuple):
    """A figure of the report."""

    file: str  # below the report's folder
    caption: str


def write_report(study: Study, curves: Sequence[Curve], folder: Path, command: str) -> list[Summary]:
    """Write summary.json, report.md, report.html, the figures they show and TensorBoard's events into ``folder``; return
    the summaries.

    ``curves`` are those of the study's finished runs, at least one.
    """
    curves = _in_order(study, curves)
    summaries = [
        summary
        for env, threshold in study.thresholds().items()
        for summary in summarise([curve for curve in curves if curve.spec.env == env], threshold)
    ]
    write_summary(summaries, command, folder / "summary.json")
    write_events(curves, study.thresholds(), folder)
    lows = random_returns(study, curves)
    scores = normalised_scores(study, curves, lows)
    pictures = draw(study, summaries, curves, scores, folder)
    specs = list({key(curve.spec): curve.spec for curve in curves}.values())
    results = results_of(specs, folder)
    content: dict[str, Any] = {
        "title": ", ".join(dict.fromkeys(summary.env for summary in summaries)),
        "command": command,
        "rule": "a run ends once all its modes reach the threshold in one evaluation"
        if study.stop_early
        else "every run goes to its end",
        "stop_early": study.stop_early,
        "episodes": study.n_eval_episodes,
        "finished": len(specs),
        "planned": len(study.specs()),
        "missing": missing(study, specs),
        "apart": on_several_processors(results),
        "settings_apart": with_several_settings(results),
        "unrecorded": unrecorded(results),
        "left_out": [env for env, low in lows.items() if low >= study.tasks[env].threshold],
        "headline": headline(summaries),
        "table": {"columns": ["environment", "agent", *HEADINGS], "rows": [_row(summary) for summary in summaries]},
        "needed": needed(study, curves),
        "paired": paired(curves),
        "aggregates": aggregates(scores),
        "pictures": pictures,
        "machines": machines(results),
    }
    templates = Environment(loader=PackageLoader("jepa_agent.experiments", "templates"), undefined=StrictUndefined)
    templates.trim_blocks = templates.lstrip_blocks = True
    templates.filters["times"], templates.filters["times_fewer"] = _times, times_fewer
    (folder / MARKDOWN).write_text(templates.get_template("report.md.j2").render(content))
    templates.autoescape = True
    images = {picture.file: _inline(folder / picture.file) for picture in pictures}
    (folder / HTML).write_text(templates.get_template("report.html.j2").render(**content, images=images))
    return summaries


# ---------------------------------------------------------------------- numbers


class Ratio(NamedTuple):
    """One of JEPA's modes against the best baseline of an environment, both by the median run."""

    env: str
    mode: str
    n: int  # JEPA's runs
    steps: float | None  # how many times fewer steps to the threshold; None where one of the two has no median
    fewest: str  # the baseline that needs the fewest steps, and its runs
    cpu_seconds: float | None  # as `steps`, for CPU seconds
    quickest: str  # the baseline that needs the least CPU seconds, and its runs


def headline(summaries: Sequence[Summary]) -> dict[str, Any]:
    """Ratios to the best baseline of each environment and, by mode, their geometric means over environments."""
    envs = list(dict.fromkeys(summary.env for summary in summaries))
    ratios = [ratio for env in envs for ratio in _ratios(env, summaries)]
    means = {}
    for mode in dict.fromkeys(ratio.mode for ratio in ratios):
        own = [ratio for ratio in ratios if ratio.mode == mode]
        steps, seconds = ([r for r in values if r] for values in ([o.steps for o in own], [o.cpu_seconds for o in own]))
        means[mode] = {
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
    own = [summary for summary in summaries if summary.env == env]
    baselines = [summary for summary in own if summary.algorithm != AGENT]
    if not baselines:
        return []

    def best(field: str) -> Summary:
        return min(baselines, key=lambda s: np.inf if getattr(s, field).median is None else getattr(s, field).median)

    def ratio(ours: Summary, field: str) -> float | None:
        theirs, mine = getattr(best(field), field).median, getattr(ours, field).median
        return None if theirs is None or mine is None else theirs / mine

    def name(field: str) -> str:
        found = best(field)
        return "-" if getattr(found, field).median is None else f"{found.algorithm}, n={found.n_seeds}"

    return [
        Ratio(env, s.mode, s.n_seeds, ratio(s, "steps"), name("steps"), ratio(s, "cpu_seconds"), name("cpu_seconds"))
        for s in own
        if s.algorithm == AGENT
    ]


def aggregates(scores: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """Interquartile mean, median and optimality gap of every agent, with intervals, as rows of text."""
    rows = []
    for name, own in scores.items():
        found = [estimate(statistic, own) for statistic in (iqm, median, optimality_gap)]
        rows.append([name, str(found[0].n), *(_text(one) for one in found)])
    return {"columns": ["agent", "runs", "IQM", "median", "optimality gap"], "rows": rows}


def needed(study: Study, curves: Sequence[Curve]) -> dict[str, Any]:
    """What it took to the threshold, runs that never got there counted as given up at their end, as rows of text."""
    rows = []
    for (env, algorithm, mode), own in group(curves).items():
        threshold = study.tasks[env].threshold
        found = [
            censored_median(
                [first_reaching(x, curve.means, threshold) for x, curve in zip(axis, own, strict=True)],
                [float(x[-1]) for x in axis],
            )
            for axis in ([curve.steps for curve in own], [curve.cpu_seconds for curve in own])
        ]
        reached = f"{found[0].n_reached}/{found[0].n}"
        rows.append([env, name_of(algorithm, mode), reached, _needed(found[0], ",.0f"), _needed(found[1], ",.1f")])
    return {"columns": ["environment", "agent", "reached", "steps", "CPU s"], "rows": rows}


def paired(curves: Sequence[Curve]) -> dict[str, Any]:
    """How much better than Mode-1 every other mode of the same runs is, at their ends and on the way, as rows of text."""
    groups = group(curves)
    rows = []
    for (env, algorithm, mode), own in groups.items():
        actor = groups.get((env, algorithm, "actor"))
        if algorithm != AGENT or mode == "actor" or actor is None:
            continue
        by_seed = {curve.spec.seed: curve.means for curve in actor}
        ends = paired_difference([c.means[-1] for c in own], [by_seed[c.spec.seed][-1] for c in own])
        ways = paired_difference([c.means.mean() for c in own], [by_seed[c.spec.seed].mean() for c in own])
        rows.append([env, f"{mode} - actor", str(ends.n), _text(ends), _text(ways)])
    return {"columns": ["environment", "difference", "n", "last evaluation", "all evaluations"], "rows": rows}


# ---------------------------------------------------------------------- pictures


def draw(
    study: Study,
    summaries: Sequence[Summary],
    curves: Sequence[Curve],
    scores: dict[str, list[np.ndarray]],
    folder: Path,
) -> list[Picture]:
    """All figures, written below ``folder``."""
    pictures = []
    for env in dict.fromkeys(summary.env for summary in summaries):
        own = [curve for curve in curves if curve.spec.env == env]
        file = f"{FIGURES}/{own[0].spec.folder(folder).parent.name}.png"
        threshold = next(summary.threshold for summary in summaries if summary.env == env)
        plot_curves(own, threshold, folder / file)
        pictures.append(Picture(file, f"{env}: mean return while learning, against environment steps and CPU seconds."))
    plot_needed(summaries, folder / FIGURES / "needed.png")
    pictures.append(Picture(f"{FIGURES}/needed.png", "Environment steps until an evaluation first reached the threshold."))
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


def improvement(scores: dict[str, list[np.ndarray]], beats: str) -> dict[str, Estimate]:
    """Chances that a run of JEPA's beats one of each other agent, more being better."""
    return {
        f"{name} {beats} {other}": estimate(probability_of_improvement, own, against)
        for name, own in scores.items()
        for other, against in scores.items()
        if is_ours(name) and not is_ours(other)
    }


def missing(study: Study, finished: Sequence[RunSpec]) -> list[str]:
    """The runs that have not finished, by environment and algorithm."""
    done, waiting = {key(spec) for spec in finished}, dict[tuple[str, str], list[str]]()
    for spec in study.specs():
        if key(spec) not in done:
            waiting.setdefault((spec.env, spec.algorithm), []).append(str(spec.seed))
    return [f"{algorithm} in {env}, seed {', '.join(seeds)}" for (env, algorithm), seeds in waiting.items()]


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


# ---------------------------------------------------------------------- words


def _row(summary: Summary) -> list[str]:
    return [f"{summary.env}, {summary.threshold:g}", *cells(summary)]


def _needed(found: Censored, style: str) -> str:
    median = "-" if found.median is None else format(found.median, style)
    if found.interval is None:
        return f"{median} (-)"
    low, high = ("inf" if end == np.inf else format(end, style) for end in found.interval)
    return f"{median} ({low}..{high})"


def _times(ratio: float) -> str:
    if f"{max(ratio, 1 / ratio):.1f}" == "1.0":
        return "as many"
    return f"{ratio:.1f} times fewer" if ratio > 1.0 else f"{1 / ratio:.1f} times as many"


def times_fewer(ratio: float | None) -> str:
    """A ratio in two digits; "-" where there is none."""
    return "-" if ratio is None else f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}"


def _text(found: Estimate) -> str:
    interval = "(-)" if found.interval is None else f"({found.interval[0]:.2f}..{found.interval[1]:.2f})"
    return f"{found.value:.2f} {interval}"


def _in_order(study: Study, curves: Sequence[Curve]) -> list[Curve]:
    """As the study has them: JEPA before its baselines, so that it looks the same in all figures."""
    places = {agent: place for place, agent in enumerate(dict.fromkeys((s.env, s.algorithm) for s in study.specs()))}
    return sorted(curves, key=lambda curve: places.get((curve.spec.env, curve.spec.algorithm), len(places)))
