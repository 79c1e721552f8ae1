"""Report of a study of adaptability: a table in Markdown and a figure, made from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jepa_agent.experiments.figures import save
from jepa_agent.experiments.statistics import bootstrap_interval
from jepa_agent.extras import needs

Row = dict[str, Any]
FLOOR, SCRATCH = "random", "from scratch"


class Share(NamedTuple):
    """What a column reaches of the way from random actions, 0, to the better agent from scratch, 1."""

    mean: float
    interval: tuple[float, float] | None  # 95% over seeds; None for a single one
    n_seeds: int


def means(rows: Sequence[Row], task: str, shift: str, column: str) -> dict[int, float]:
    """Mean returns by seed."""
    wanted = (task, shift, column)
    return {
        row["seed"]: float(np.mean(row["returns"])) for row in rows if (row["task"], row["shift"], row["column"]) == wanted
    }


def share(rows: Sequence[Row], task: str, shift: str, column: str) -> Share | None:
    """The share of the ceiling that a column reaches; None without the column, the floor or a ceiling above it.

    Floor and ceiling are means over seeds; the ceiling is the better of the agents from scratch.
    """
    own, floor = means(rows, task, shift, column), means(rows, task, shift, FLOOR)
    learned = {row["column"] for row in rows if row["task"] == task and row["column"].endswith(SCRATCH)}
    tops = [float(np.mean(list(found.values()))) for name in learned if (found := means(rows, task, shift, name))]
    if not own or not floor or not tops:
        return None
    low = float(np.mean(list(floor.values())))
    if max(tops) <= low:
        return None
    shares = [(value - low) / (max(tops) - low) for value in own.values()]
    return Share(float(np.mean(shares)), bootstrap_interval(shares), len(shares))


def table(rows: Sequence[Row], task: str) -> str:
    """A Markdown table of a task: a row for each shift, a column for each agent; returns, and shares of the ceiling."""
    own = [row for row in rows if row["task"] == task]
    columns = list(dict.fromkeys(row["column"] for row in own))
    lines = [f"| shift | {' | '.join(columns)} |", f"| --- | {' | '.join(['---:'] * len(columns))} |"]
    for shift in dict.fromkeys(row["shift"] for row in own):
        cells = [_cell(own, task, shift, column) for column in columns]
        lines.append(f"| {shift} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(rows: Sequence[Row], task: str, shift: str, column: str) -> str:
    """Mean return, share of the ceiling with its interval, and the share of steps out of a range where any were."""
    found = means(rows, task, shift, column)
    if not found:
        return "-"
    told = f"{np.mean(list(found.values())):.0f}"
    part = share(rows, task, shift, column)
    if part is not None and not column.endswith(SCRATCH) and column != FLOOR:
        interval = f", {part.interval[0]:.0%} to {part.interval[1]:.0%}" if part.interval else ""
        told += f" ({part.mean:.0%}{interval})"
    left = [row["violations"] for row in rows if (row["shift"], row["column"]) == (shift, column)]
    return f"{told}; {np.mean(left):.1%} out" if any(left) else told


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the share of the ceiling of each column, a panel per task, a group of bars per shift that has a ceiling."""
    with needs("compare"):
        from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = Figure(figsize=(9.0, 3.4 * len(tasks)), layout="constrained")
    for axes, task in zip(np.atleast_1d(figure.subplots(len(tasks), 1)), tasks, strict=True):
        own = [row for row in rows if row["task"] == task]
        shown = list(dict.fromkeys(row["shift"] for row in own))
        columns = [c for c in dict.fromkeys(row["column"] for row in own) if c != FLOOR and not c.endswith(SCRATCH)]
        for place, column in enumerate(columns):
            found = [share(own, task, shift, column) for shift in shown]
            x = np.arange(len(shown)) + 0.8 * (place - len(columns) / 2) / len(columns)
            heights = [np.nan if part is None else part.mean for part in found]
            axes.bar(x, heights, width=0.8 / len(columns), label=column)
        axes.axhline(1.0, color="0.4", linewidth=0.9, linestyle=(0, (4, 4)))
        axes.set_xticks(range(len(shown)), shown)
        axes.set_ylim(-0.2, 1.2)
        axes.set_title(task, fontsize=10)
        axes.set_ylabel("share of the ceiling")
        axes.legend(fontsize=7, ncols=4, frameon=False)
    save(figure, path)


def write_report(rows: Sequence[Row], command: str, folder: Path) -> None:
    """Write ``report.md`` and ``figure.png``.

    Args:
        rows: Of all tasks and seeds.
        command: That made them.
        folder: To write into.
    """
    seeds = sorted({row["seed"] for row in rows})
    parts = [
        "# Agents in shifted tasks",
        f"`{command}`; seeds {', '.join(map(str, seeds))}.",
        "Mean returns, and in brackets the share of the way from random actions to the better agent from scratch, with its "
        "95 % bootstrap interval over seeds. *out* is the share of real steps that left the range to keep to.",
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        parts += [f"## {task}", table(rows, task)]
    if rows:
        draw(rows, folder / "figure.png")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text("\n\n".join(parts) + "\n")
