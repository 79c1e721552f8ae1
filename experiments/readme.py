"""The tables of README.md and docs/, made from committed results: ``python -m jepa_agent.experiments.readme``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jepa_agent.experiments.laboratory import compared
from jepa_agent.experiments.modes_report import Cell, renamed
from jepa_agent.experiments.ratios import as_much, headline
from jepa_agent.experiments.records import AGENT, read_curves
from jepa_agent.experiments.report import at_first
from jepa_agent.experiments.speedup import Speedup, speedups
from jepa_agent.experiments.statistics import Summary, summarise
from jepa_agent.experiments.study import read_study

CLASSIC, MODES, PLANNERS, GOALS = "classic", "modes", "planners", "goals"
SPEED, GPU = "speed.json", "gpu.json"
PARTIAL = ("memory", "popgym")
MODE = "actor"
PAGES = (
    "README.md",
    "docs/results.md",
    "docs/speed.md",
    "docs/concepts/memory.md",
    "docs/concepts/mode_switch.md",
    "docs/concepts/planner.md",
    "docs/tutorials/goal_at_run_time.md",
    "docs/tutorials/partially_observed.md",
)


def results_table(results: Path) -> str:
    """Make the table of the classic study: what JEPA's actor and the best baseline need, a row per environment.

    Args:
        results: Folder of the committed results.
    """
    study = read_study(Path(__file__).parent / "studies" / f"{CLASSIC}.yaml")
    curves = read_curves(results / CLASSIC)
    rows: list[tuple[str, ...]] = [
        ("environment, threshold", "JEPA", "baselines", "times fewer steps", "CPU s"),
        ("---",) * 5,
    ]
    found = speedups(study, curves, MODE)
    for env, threshold in study.thresholds().items():
        summaries = summarise([curve for curve in curves if curve.spec.env == env], threshold)
        summaries = [summary for summary in summaries if summary.mode in (MODE, "policy")]
        own = [_needed(summary) for summary in summaries if summary.algorithm == AGENT]
        others = [f"{summary.algorithm}: {_needed(summary)}" for summary in summaries if summary.algorithm != AGENT]
        # An environment where JEPA or all baselines are still missing has no ratio.
        if own and others:
            # One mode of JEPA, so one ratio per environment.
            [ratio] = headline(summaries)["ratios"]
            rows.append(
                (
                    f"{env}, {threshold:g}",
                    *own,
                    "<br>".join(others),
                    _speedup(found.by_env[env], own[0]),
                    as_much(ratio.cpu_seconds),
                )
            )
    if found.reached:
        rows.append((f"geometric mean of the {found.n_reached} reached", "", "", _speedup(found.reached), ""))
    return _markdown(rows)


def _speedup(found: Speedup, own: str = "") -> str:
    """Format times fewer steps with the interval; "-" where JEPA's ``own`` median is not known."""
    return (
        "-"
        if own.startswith("-")
        else f"{found.bound and found.bound + ' '}{found.ratio:.2g} ({found.low:.2g} to {found.high:.2g})"
    )


def memory_table(results: Path) -> str:
    """Make the table of partially observable tasks: what JEPA needs with and without a memory network.

    Args:
        results: Folder of the committed results.
    """
    rows: list[tuple[str, ...]] = [
        ("environment, threshold", "budget", "memory", "reached it after", "last evaluation, by seed")
    ]
    rows.append(("---",) * len(rows[0]))
    for name in PARTIAL:
        study = read_study(Path(__file__).parent / "studies" / f"{name}.yaml")
        curves = read_curves(results / name)
        for env, task in study.tasks.items():
            for summary in summarise([curve for curve in curves if curve.spec.env == env], task.threshold):
                last = [curve for curve in curves if (curve.spec.env, curve.spec.algorithm) == (env, summary.algorithm)]
                # Tasks with returns around 1 need decimals.
                shown = ", ".join(f"{curve.returns[-1].mean():.{0 if abs(task.threshold) > 2 else 2}f}" for curve in last)
                kind = study.overrides.get(summary.algorithm, {}).get("memory", "none")
                rows.append(
                    (f"{env.split(':')[-1]}, {task.threshold:g}", f"{task.n_timesteps:,}", kind, _needed(summary), shown)
                )
    return _markdown(rows)


def modes_table(results: Path) -> str:
    """Make the table of modes: normalised scores by environment, share of steps with a search, time of a decision.

    Args:
        results: Folder of the committed results.
    """
    found = [Cell(**renamed(cell)) for cell in json.loads((results / MODES / "summary.json").read_text())["cells"]]
    modes = list(dict.fromkeys(cell.mode for cell in found))
    rows: list[tuple[str, ...]] = [("environment (runs)", *modes)]
    rows.append(("---", *["---:"] * len(modes)))
    for env in dict.fromkeys(cell.env for cell in found):
        own = {cell.mode: cell for cell in found if cell.env == env}
        rows.append((f"{env} ({own[modes[0]].n_seeds})", *(f"{own[mode].score:.3f}" for mode in modes)))
    every = [[cell for cell in found if cell.mode == mode] for mode in modes]
    rows.append(("mean", *(f"{np.mean([cell.score for cell in cells]):.3f}" for cells in every)))
    rows.append(("share of steps with a search", *(f"{np.mean([cell.searched for cell in cells]):.2f}" for cells in every)))
    rows.append(("CPU ms to decide on a step", *(f"{np.mean([cell.decision_ms for cell in cells]):.1f}" for cells in every)))
    return _markdown(rows)


def planners_table(results: Path) -> str:
    """Make the table of planners at equal milliseconds per plan, a row per environment and planner.

    Args:
        results: Folder of the committed results.
    """
    rows: list[tuple[str, ...]] = [
        ("environment", "planner", "mean return", "promised less realised cost", "ms", "sequences scored")
    ]
    rows.append(("---", "---", *["---:"] * 4))
    for file in sorted((results / PLANNERS).glob("*/results.json")):
        measured = json.loads(file.read_text())
        # The first budget is the compute of the default planner.
        found = next(rows for title, rows in compared(measured) if title.endswith(" ms per plan"))
        for row in found:
            gap = "" if row["gap"] is None else f"{row['gap']:+.2f}"
            values = f"{np.mean(row['returns']):.1f}", gap, f"{row['ms']:.1f}", f"{row['candidates']:,}"
            rows.append((file.parent.name, row["planner"], *values))
    return _markdown(rows)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as a Markdown table; the second row is the line of dashes."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _needed(summary: Summary) -> str:
    """Format the median steps and CPU seconds to the threshold, and how many runs reached it; "-" without a median."""
    steps, seconds = summary.steps.median, summary.cpu_seconds.median
    reached = f"{summary.n_reached}/{summary.n_seeds}"
    if steps is None or seconds is None:
        return f"- ({reached})"
    return f"{at_first(summary)}{steps:,.0f} steps, {seconds:.1f} s ({reached})"


def speed_table(measured: dict[str, Any]) -> str:
    """Make the table of the main results of `jepa-agent speed`.

    Args:
        measured: Content of ``speed.json``, as `speed.measure` returns it.
    """
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
    return _markdown(rows)


def gpu_table(measured: dict[str, Any]) -> str:
    """Make the table of updates on a GPU.

    Args:
        measured: Content of ``gpu.json``, as `gpu.measure` returns it.
    """
    names = {"eager": "JEPA", "captured": "JEPA, `capture=True`", "captured_tf32": "captured, TF32", "sac": "SAC"}
    rows = [("width", "batch", *names.values()), ("---:",) * (len(names) + 2)]
    for row in measured["updates"]:
        rates = (f"{row[f'{name}_per_second']:.0f}" for name in names)
        rows.append((str(row["width"]), str(row["batch_size"]), *rates))
    return _markdown(rows)


def with_tables(text: str, results: Path) -> str:
    """Return a page with its tables made anew from the committed results.

    Args:
        text: The page, with a pair of markers around each table that it shows.
        results: Folder of the committed results.
    """
    tables = {
        "results": lambda: results_table(results),
        "memory": lambda: memory_table(results),
        "modes": lambda: modes_table(results),
        "planners": lambda: planners_table(results),
        "goals": lambda: (results / GOALS / "table.md").read_text().strip(),
        "speed": lambda: speed_table(json.loads((results / SPEED).read_text())),
        "gpu": lambda: gpu_table(json.loads((results / GPU).read_text())),
    }
    for name in re.findall(r"<!-- (\w+) -->", text):
        if name not in tables:
            raise ValueError(f"no table is named {name!r}: choose of {', '.join(tables)}")
        text = between(text, name, tables[name]())
    return text


def between(text: str, name: str, table: str) -> str:
    """Replace the text between the markers ``<!-- name -->`` and ``<!-- /name -->``.

    Args:
        text: Text with exactly one such pair of markers.
        name: Name in the markers.
        table: Text to put between them.

    Raises:
        ValueError: A marker is missing or not unique.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    for marker in (start, end):
        if text.count(marker) != 1:
            raise ValueError(f"expected one {marker}, found {text.count(marker)}")
    before, rest = text.split(start)
    return f"{before}{start}\n{table}\n{end}{rest.split(end)[1]}"


def main() -> None:
    """Rewrite the tables of `PAGES` in the current folder."""
    for page in map(Path, PAGES):
        page.write_text(with_tables(page.read_text(), Path("experiments/results")))


if __name__ == "__main__":
    main()
