"""The report of a comparison study: Markdown with figures, and a single HTML file with the figures embedded."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from jepa_agent.experiments.events import write_events
from jepa_agent.experiments.figures import name_of
from jepa_agent.experiments.gallery import draw
from jepa_agent.experiments.provenance import (
    key,
    machines,
    on_several_processors,
    results_of,
    unrecorded,
    with_several_instruction_sets,
    with_several_settings,
)
from jepa_agent.experiments.ratios import as_much, headline, ratio_in_words, times_fewer
from jepa_agent.experiments.records import AGENT, Curve, RunSpec
from jepa_agent.experiments.report import HEADINGS, cells, write_summary
from jepa_agent.experiments.scores import normalised_scores, random_returns
from jepa_agent.experiments.speedup import Speedups, speedups
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
    summarise,
)
from jepa_agent.experiments.study import Study
from jepa_agent.extras import needs

with needs("compare"):
    from jinja2 import Environment, PackageLoader, StrictUndefined

MARKDOWN, HTML = "report.md", "report.html"


def write_report(study: Study, curves: Sequence[Curve], folder: Path, command: str) -> list[Summary]:
    """Write the report of a study: summary.json, report.md, report.html, figures and TensorBoard events.

    Args:
        study: The study, of which only some runs may have finished.
        curves: Curves of the finished runs, at least one.
        folder: The study's folder, which holds the runs' results and receives the report.
        command: Shell command that reproduces the report, shown in it.

    Returns:
        A summary per environment, algorithm and mode, in the study's order of environments.
    """
    # Colours and markers follow the order of curves.
    curves = _in_study_order(study, curves)
    summaries = [
        summary
        for env, threshold in study.thresholds().items()
        for summary in summarise([curve for curve in curves if curve.spec.env == env], threshold)
    ]
    write_summary(summaries, command, folder / "summary.json")
    write_events(curves, study.thresholds(), folder)
    # Measured once: where the study gives no value, random episodes are played for it.
    lows = random_returns(study, curves)
    scores = normalised_scores(study, curves, lows)
    pictures = draw(study, summaries, curves, scores, folder)
    # One spec per run: a run of JEPA has a curve for each mode.
    specs = list({key(curve.spec): curve.spec for curve in curves}.values())
    results = results_of(specs, folder)
    content: dict[str, Any] = {
        "title": ", ".join(dict.fromkeys(summary.env for summary in summaries)),
        "command": command,
        "rule": _rule(study),
        "stop_early": any(spec.stop_at is not None for spec in specs),
        "episodes": study.n_eval_episodes,
        "finished": len(specs),
        "planned": len(study.specs()),
        "missing": missing(study, specs),
        "apart": on_several_processors(results),
        "settings_apart": with_several_settings(results),
        "instructions_apart": with_several_instruction_sets(results),
        "unrecorded": unrecorded(results),
        "left_out": [env for env, low in lows.items() if low >= study.tasks[env].threshold],
        "headline": headline(summaries),
        "overall": _overall(study, curves),
        "table": {"columns": ["environment", "agent", *HEADINGS], "rows": [_row(summary) for summary in summaries]},
        "needed": steps_needed(study, curves),
        "paired": paired(curves),
        "aggregates": aggregates(scores),
        "pictures": pictures,
        "machines": machines(results),
    }
    templates = Environment(loader=PackageLoader("jepa_agent.experiments", "templates"), undefined=StrictUndefined)
    templates.trim_blocks = templates.lstrip_blocks = True
    templates.filters.update(times=ratio_in_words, times_fewer=times_fewer, as_much=as_much)
    (folder / MARKDOWN).write_text(templates.get_template("report.md.j2").render(content))
    # Only HTML is escaped: Markdown shows <, > and & as they are.
    templates.autoescape = True
    images = {picture.file: _as_data_url(folder / picture.file) for picture in pictures}
    (folder / HTML).write_text(templates.get_template("report.html.j2").render(**content, images=images))
    return summaries


def _rule(study: Study) -> str:
    """Return in words when runs end."""
    ends = "once all its modes reach the threshold in one evaluation"
    if study.baselines_stop_early in (None, study.stop_early):
        return f"a run ends {ends}" if study.stop_early else "every run goes to its end"
    who, other = ("JEPA", "a baseline") if study.stop_early else ("a baseline", "JEPA")
    return f"a run of {who} ends {ends}, one of {other} goes to its end"


# ---------------------------------------------------------------------- numbers


def _overall(study: Study, curves: Sequence[Curve]) -> dict[str, Speedups]:
    """Return times fewer steps by JEPA's mode; {} without baselines."""
    found = {}
    for mode in dict.fromkeys(curve.mode for curve in curves if curve.spec.algorithm == AGENT):
        with suppress(ValueError):  # no environment has finished runs of both
            found[mode] = speedups(study, curves, mode)
    return found


def aggregates(scores: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """Aggregate the normalised scores of every agent over environments.

    Args:
        scores: By agent, one array of runs per environment, as `normalised_scores` returns them.

    Returns:
        ``columns``, and ``rows`` of text: interquartile mean, median and optimality gap with 95% intervals.

    Source:
        Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", arXiv 2108.13264.
    """
    rows = []
    for name, own in scores.items():
        found = [estimate(statistic, own) for statistic in (iqm, median, optimality_gap)]
        rows.append([name, str(found[0].n), *(_format_estimate(one) for one in found)])
    return {"columns": ["agent", "runs", "IQM", "median", "optimality gap"], "rows": rows}


def steps_needed(study: Study, curves: Sequence[Curve]) -> dict[str, Any]:
    """Tabulate the median steps and CPU seconds to the threshold, with runs that never reached it as censored data.

    Args:
        study: Holds the threshold of each environment.
        curves: Curves of the finished runs.

    Returns:
        ``columns``, and ``rows`` of text, one per environment, algorithm and mode.
    """
    rows = []
    for (env, algorithm, mode), own in group(curves).items():
        threshold = study.tasks[env].threshold
        found = [
            censored_median(
                [first_reaching(x, curve.means, threshold) for x, curve in zip(axis, own, strict=True)],
                # A run without success is censored at its end: the threshold may lie anywhere beyond.
                [float(x[-1]) for x in axis],
            )
            for axis in ([curve.steps for curve in own], [curve.cpu_seconds for curve in own])
        ]
        reached = f"{found[0].n_reached}/{found[0].n}"
        rows.append([env, name_of(algorithm, mode), reached, _needed(found[0], ",.0f"), _needed(found[1], ",.1f")])
    return {"columns": ["environment", "agent", "reached", "steps", "CPU s"], "rows": rows}


def paired(curves: Sequence[Curve]) -> dict[str, Any]:
    """Tabulate by how much each of JEPA's modes beats Mode-1 (the actor) on the same runs.

    Args:
        curves: Curves of the finished runs; modes of one run share its weights, so they are paired by seed.

    Returns:
        ``columns``, and ``rows`` of text: mean difference in return with its 95% interval, at the last evaluation and as a
        mean over all evaluations.
    """
    groups = group(curves)
    rows = []
    for (env, algorithm, mode), own in groups.items():
        actor = groups.get((env, algorithm, "actor"))
        # Variants (JEPA+name) are left out: the table is about modes of the same weights.
        if algorithm != AGENT or mode == "actor" or actor is None:
            continue
        by_seed = {curve.spec.seed: curve.means for curve in actor}
        ends = paired_difference([c.means[-1] for c in own], [by_seed[c.spec.seed][-1] for c in own])
        # The mean over all evaluations stands for the area under the learning curve.
        ways = paired_difference([c.means.mean() for c in own], [by_seed[c.spec.seed].mean() for c in own])
        rows.append([env, f"{mode} - actor", str(ends.n), _format_estimate(ends), _format_estimate(ways)])
    return {"columns": ["environment", "difference", "n", "last evaluation", "all evaluations"], "rows": rows}


def missing(study: Study, finished: Sequence[RunSpec]) -> list[str]:
    """List the runs of a study that have not finished.

    Args:
        study: The study.
        finished: Specs of its finished runs.

    Returns:
        A line per environment and algorithm that names the missing seeds.
    """
    done, waiting = {key(spec) for spec in finished}, dict[tuple[str, str], list[str]]()
    for spec in study.specs():
        if key(spec) not in done:
            waiting.setdefault((spec.env, spec.algorithm), []).append(str(spec.seed))
    return [f"{algorithm} in {env}, seed {', '.join(seeds)}" for (env, algorithm), seeds in waiting.items()]


def _as_data_url(path: Path) -> str:
    """Return a PNG file as a data URL, so that the HTML report is a single file."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


# ---------------------------------------------------------------------- words


def _row(summary: Summary) -> list[str]:
    """Return a row of the report's main table."""
    return [f"{summary.env}, {summary.threshold:g}", *cells(summary)]


def _needed(found: Censored, style: str) -> str:
    """Format a median and its interval; "-" where there is none."""
    median = "-" if found.median is None else format(found.median, style)
    if found.interval is None:
        return f"{median} (-)"
    low, high = ("inf" if end == np.inf else format(end, style) for end in found.interval)
    return f"{median} ({low}..{high})"


def _format_estimate(found: Estimate) -> str:
    """Format an estimate and its interval; "(-)" where there is none."""
    interval = "(-)" if found.interval is None else f"({found.interval[0]:.2f}..{found.interval[1]:.2f})"
    return f"{found.value:.2f} {interval}"


def _in_study_order(study: Study, curves: Sequence[Curve]) -> list[Curve]:
    """Sort curves as the study lists them: JEPA first, so that it has the same colour in all figures."""
    places = {agent: place for place, agent in enumerate(dict.fromkeys((s.env, s.algorithm) for s in study.specs()))}
    return sorted(curves, key=lambda curve: places.get((curve.spec.env, curve.spec.algorithm), len(places)))
