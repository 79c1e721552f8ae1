"""Showing what came out: a table, a summary, a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich import box
from rich.console import Console
from rich.table import Table

from jepa_agent.experiments.records import Curve, write_json
from jepa_agent.experiments.statistics import Interval, Spread, Summary, bootstrap_interval, group

# Okabe and Ito's colours, told apart with any kind of colour vision; line and marker tell them apart without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", (0, (1, 1.5)), (0, (6, 1.5, 1, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_HEADINGS = ("n", "reached", "steps", "CPU s", "final", "last 3", "ms/step")
_CAPTION = (
    "steps and CPU seconds of training to the threshold: median (least..most) of n runs; "
    "final: mean return (95% interval); last 3: mean of a run's last three evaluations, median (least..most)"
)


class Band(NamedTuple):
    """A mean over seeds and what is known of it."""

    x: np.ndarray  # (E,)
    mean: np.ndarray  # (E,)
    interval: tuple[np.ndarray, np.ndarray] | None  # low and high, each (E,); None for a single seed
    held: bool  # whether some run ended before others and holds its last value from there on


def print_table(summaries: Sequence[Summary], threshold: float, console: Console | None = None) -> None:
    """Print a table per environment, a row per algorithm and mode; "-" stands for what was not reached or not known."""
    console = console or Console()
    for env in dict.fromkeys(summary.env for summary in summaries):
        title = f"{env}, threshold {threshold:g}"
        table = Table(title=title, caption=_CAPTION, box=box.SIMPLE)
        table.add_column("agent", overflow="fold")
        for heading in _HEADINGS:
            table.add_column(heading, justify="right", overflow="fold")
        for summary in summaries:
            if summary.env == env:
                table.add_row(*_cells(summary))
        console.print(table)


def markdown_table(summaries: Sequence[Summary]) -> str:
    """The same table in Markdown, for all environments together."""
    headings = ("environment", "agent", *_HEADINGS)
    lines = ["| " + " | ".join(headings) + " |", "|---|---|" + "---:|" * len(_HEADINGS)]
    lines += ["| " + " | ".join((f"{s.env}, {s.threshold:g}", *_cells(s))) + " |" for s in summaries]
    return "\n".join(lines)


def write_summary(summaries: Sequence[Summary], command: str, path: Path) -> None:
    """Write the summaries as JSON, with the command that reproduces them; null stands for what was not reached."""
    rows = [
        {name: value._asdict() if isinstance(value, Spread) else value for name, value in summary._asdict().items()}
        for summary in summaries
    ]
    write_json(path, {"command": command, "summaries": rows})


def plot_curves(curves: Sequence[Curve], threshold: float, path: Path) -> None:
    """Draw mean return against environment steps and against CPU seconds of training, with 95% bootstrap bands.

    The format follows the suffix of ``path``. Raises ValueError unless all curves are of one environment.
    """
    envs = sorted({curve.spec.env for curve in curves})
    if len(envs) != 1:
        raise ValueError(f"a figure shows the curves of one environment, got {', '.join(envs) or 'no curves'}")
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    by_steps, by_seconds = figure.subplots(1, 2, sharey=True)
    held = _draw(by_steps, curves, lambda curve: curve.steps)
    held |= _draw(by_seconds, curves, lambda curve: curve.cpu_seconds)
    for axes, label in ((by_steps, "environment steps"), (by_seconds, "CPU seconds of training, log scale")):
        axes.axhline(threshold, color="0.4", linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    by_steps.set_xlim(left=0)
    by_steps.set_ylabel("mean return")
    by_seconds.set_xscale("log")
    by_seconds.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    by_seconds.xaxis.set_major_formatter("{x:g}")
    by_seconds.xaxis.set_minor_formatter(NullFormatter())
    figure.suptitle(f"{envs[0]}, threshold {threshold:g}: mean over n seeds with 95% bootstrap interval", fontsize=11)
    labels = by_steps.get_legend_handles_labels()
    note = "Runs that ended before others of their kind hold their last value." if held else None
    figure.legend(*labels, loc="outside lower center", ncols=4, frameon=False, handlelength=4, title=note)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def average(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> Band:
    """Mean over seeds of curves y(x), each ``(E_i,)``, read at the x of the curve that goes furthest.

    Between their own points curves are interpolated, after their last one held; none is read before its first.
    """
    start = max(own[0] for own in x)
    furthest = max(x, key=lambda own: own[-1])
    grid = np.union1d(start, furthest[furthest > start])
    values = np.stack([np.interp(grid, own, of) for own, of in zip(x, y, strict=True)])
    intervals = [bootstrap_interval(column) for column in values.T]
    known = [interval for interval in intervals if interval is not None]
    low_high = (np.array([low for low, _ in known]), np.array([high for _, high in known])) if known else None
    return Band(grid, values.mean(axis=0), low_high, any(own[-1] < grid[-1] for own in x))


def _draw(axes: Axes, curves: Sequence[Curve], x_of: Callable[[Curve], np.ndarray]) -> bool:
    held = False
    for index, ((_, algorithm, mode), own) in enumerate(group(curves).items()):
        band = average([x_of(curve) for curve in own], [curve.means for curve in own])
        colour, line, marker = (options[index % len(options)] for options in (COLOURS, LINES, MARKERS))
        axes.plot(
            band.x,
            band.mean,
            color=colour,
            linestyle=line,
            marker=marker,
            markersize=4.5,
            markevery=max(1, len(band.x) // 10),
            linewidth=1.6,
            label=f"{_name(algorithm, mode)}, n={len(own)}",
        )
        if band.interval is not None:
            axes.fill_between(band.x, *band.interval, color=colour, alpha=0.18, linewidth=0)
        held |= band.held
    return held


def _name(algorithm: str, mode: str) -> str:
    return algorithm if mode == "policy" else f"{algorithm} ({mode})"


def _cells(summary: Summary) -> list[str]:
    return [
        _name(summary.algorithm, summary.mode),
        str(summary.n_seeds),
        f"{summary.n_reached}/{summary.n_seeds}",
        _spread(summary.steps, ",.0f"),
        _spread(summary.cpu_seconds, ",.1f"),
        f"{summary.final_return:.1f} {_interval(summary.final_interval)}",
        _spread(summary.last_three, ",.1f"),
        f"{summary.ms_per_step:.2f}",
    ]


def _spread(spread: Spread, style: str) -> str:
    if spread.low is None or spread.high is None:
        return "-"
    median = "-" if spread.median is None else format(spread.median, style)
    return f"{median} ({spread.low:{style}}..{spread.high:{style}})"


def _interval(interval: Interval | None) -> str:
    return "(-)" if interval is None else f"({interval[0]:.1f}..{interval[1]:.1f})"
