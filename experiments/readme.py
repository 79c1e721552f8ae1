"""The tables of README.md, made from what is committed: ``python -m jepa_agent.experiments.readme``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jepa_agent.experiments.document import headline, times_fewer
from jepa_agent.experiments.records import AGENT, read_curves
from jepa_agent.experiments.statistics import Summary, summarise
from jepa_agent.experiments.study import read_study

CLASSIC = "classic"
SPEED = "speed.json"
MODE = "auto"


def results_table(results: Path) -> str:
    """A row per environment of the classic study: what JEPA in its default mode and the baselines needed."""
    study = read_study(Path(__file__).parent / "studies" / f"{CLASSIC}.yaml")
    curves = read_curves(results / CLASSIC)
    rows: list[tuple[str, ...]] = [
        ("environment, threshold", "JEPA", "baselines", "times fewer steps", "times fewer CPU s"),
        ("---",) * 5,
    ]
    everything = []
    for env, threshold in study.thresholds().items():
        summaries = summarise([curve for curve in curves if curve.spec.env == env], threshold)
        summaries = [summary for summary in summaries if summary.mode in (MODE, "policy")]
        own = [_needed(summary) for summary in summaries if summary.algorithm == AGENT]
        others = [f"{summary.algorithm}: {_needed(summary)}" for summary in summaries if summary.algorithm != AGENT]
        if own and others:
            [ratio] = headline(summaries)["ratios"]
            found = times_fewer(ratio.steps), times_fewer(ratio.cpu_seconds)
            rows.append((f"{env}, {threshold:g}", *own, "<br>".join(others), *found))
            everything += summaries
    mean = headline(everything)["means"][MODE]
    rows.append(("geometric mean", "", "", times_fewer(mean["steps"]), times_fewer(mean["cpu_seconds"])))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _needed(summary: Summary) -> str:
    steps, seconds = summary.steps.median, summary.cpu_seconds.median
    reached = f"{summary.n_reached}/{summary.n_seeds}"
    return f"- ({reached})" if steps is None or seconds is None else f"{steps:,.0f} steps, {seconds:.1f} s ({reached})"


def speed_table(measured: dict[str, Any]) -> str:
    """What matters most of `jepa-agent speed`."""
    rows = [("what", "JEPA", "SAC", "ratio"), ("---", "---:", "---:", "---:")]
    for update in measured["update"]:
        if update["default"]:
            ours, theirs = f"{update['ms_per_env_step']:.1f} ms", f"{update['sac_ms']:.1f} ms"
            rows.append((f"learning, per step of {update['env']}", ours, theirs, f"{update['ratio_per_env_step']:.2f}"))
    ours, theirs = (row["us"] for row in measured["predict"])
    rows.append(("an action in Mode-1", f"{ours:.0f} us", f"{theirs:.0f} us", f"{ours / theirs:.2f}"))
    plans = {(row["planner"], row["n_envs"]): row["ms_per_env"] for row in measured["plan"]}
    for planner in ("MPPI", "ExhaustivePlanner"):
        rows.append((f"an action in Mode-2, {planner}", f"{plans[planner, 1]:.1f} ms", "", ""))
        rows.append(("the same, 64 environments in one batch, each", f"{plans[planner, 64]:.2f} ms", "", ""))
    for training in measured["training"]:
        rate = f"{training['steps_per_cpu_second']:.0f} / CPU s"
        rows.append((f"steps of training on {training['env']}, all included", rate, "", ""))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def with_tables(text: str, results: Path) -> str:
    """``text`` with its tables made anew from the committed numbers."""
    text = between(text, "results", results_table(results))
    return between(text, "speed", speed_table(json.loads((results / SPEED).read_text())))


def between(text: str, name: str, table: str) -> str:
    """``text`` with ``table`` between the two markers of that name."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, rest = text.split(start)
    return f"{before}{start}\n{table}\n{end}{rest.split(end)[1]}"


def main() -> None:
    """Rewrite README.md in the current folder."""
    readme = Path("README.md")
    readme.write_text(with_tables(readme.read_text(), Path("experiments/results")))


if __name__ == "__main__":
    main()
