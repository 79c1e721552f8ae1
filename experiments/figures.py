"""Figures of learning curves and comparisons, readable in black and white and with any kind of colour vision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jepa_agent.experiments.records import Curve
from jepa_agent.experiments.statistics import (
    Estimate,
    Scores,
    Summary,
    bootstrap_interval,
    group,
    performance_profile,
)
from jepa_agent.extras import needs

with needs("compare"):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

# Okabe and Ito's palette is safe for all kinds of colour vision; lines and markers serve where there is no colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", (0, (1, 1.5)), (0, (6, 1.5, 1, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "//", "..", "xx", "--", "oo", "**")


class Band(NamedTuple):
    """A mean curve over seeds with its 95% interval, at E points."""

    x: np.ndarray  # (E,)
    mean: np.ndarray  # (E,)
    interval: tuple[np.ndarray, np.ndarray] | None  # low and high, each (E,); None for a single seed
    held: bool  # whether some run ended before others and is extended by its last value


def plot_curves(curves: Sequence[Curve], threshold: float, path: Path) -> None:
    """Draw mean return against environment steps and against CPU seconds of training, with 95% bootstrap bands.

    Args:
        curves: Curves of one environment.
        threshold: Return that counts as solved, drawn as a dashed line.
        path: File to write; its suffix decides the format.

    Raises:
        ValueError: The curves are of several environments, or there are none.
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
    plain_log(by_seconds)
    figure.suptitle(f"{envs[0]}, threshold {threshold:g}: mean over n seeds with 95% bootstrap interval", fontsize=11)
    labels = by_steps.get_legend_handles_labels()
    note = "Runs that ended before others of their kind hold their last value." if held else None
    figure.legend(*labels, loc="outside lower center", ncols=3, frameon=False, handlelength=4, title=note)
    save(figure, path)


def plot_series(runs: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]], path: Path) -> None:
    """Draw return against environment steps, a line per label with a 95% bootstrap band over its runs.

    Args:
        runs: By label, the runs as pairs of steps ``(E,)`` and returns ``(E,)``; lengths may differ.
        path: File to write; its suffix decides the format.
    """
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for index, (label, own) in enumerate(runs.items()):
        band = average([steps for steps, _ in own], [returns for _, returns in own])
        _draw_band(axes, index, f"{label}, n={len(own)}".replace("$", r"\$"), band)  # not a matplotlib formula
    axes.set_xlabel("environment steps")
    axes.set_ylabel("mean return")
    _finish(figure, axes, path)


def average(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> Band:
    """Average curves y(x) over seeds on a common grid.

    The grid holds the x of the curve that goes furthest, from the last of the curves' first points on. Curves are
    interpolated linearly between their points, extended by their last value, and never extrapolated before their first
    point.

    Args:
        x: Per run, increasing values ``(E_i,)``.
        y: Per run, values ``(E_i,)``.
    """
    # No curve is known before its first point, so the mean begins where all of them are.
    start = max(own[0] for own in x)
    furthest = max(x, key=lambda own: own[-1])
    grid = np.union1d(start, furthest[furthest > start])
    values = np.stack([np.interp(grid, own, of) for own, of in zip(x, y, strict=True)])
    # None throughout for a single run, so either all points have an interval or none has.
    intervals = [bootstrap_interval(column) for column in values.T]
    known = [interval for interval in intervals if interval is not None]
    low_high = (np.array([low for low, _ in known]), np.array([high for _, high in known])) if known else None
    return Band(grid, values.mean(axis=0), low_high, any(own[-1] < grid[-1] for own in x))


def _draw(axes: Axes, curves: Sequence[Curve], x_of: Callable[[Curve], np.ndarray]) -> bool:
    """Draw a band per algorithm and mode; return whether any run was extended by its last value."""
    held = False
    for index, ((_, algorithm, mode), own) in enumerate(group(curves).items()):
        band = average([x_of(curve) for curve in own], [curve.means for curve in own])
        _draw_band(axes, index, f"{name_of(algorithm, mode)}, n={len(own)}", band)
        held |= band.held
    return held


def _draw_band(axes: Axes, index: int, label: str, band: Band) -> None:
    """Draw a mean line and its interval in the style of ``index``."""
    axes.plot(band.x, band.mean, label=label, **style(index, band.x))
    if band.interval is None:
        return
    colour = COLOURS[index % len(COLOURS)]
    if len(band.x) == 1:  # an area over a single point is invisible
        axes.vlines(band.x, *band.interval, color=colour, linewidth=1.2)
    else:
        axes.fill_between(band.x, *band.interval, color=colour, alpha=0.18, linewidth=0)


def name_of(algorithm: str, mode: str) -> str:
    """Return the name of an agent in tables and figures.

    Args:
        algorithm: Name of the algorithm.
        mode: Mode that acted; a baseline's only mode, "policy", is not named.
    """
    return algorithm if mode == "policy" else f"{algorithm} ({mode})"


def plot_profiles(scores: Mapping[str, Scores], path: Path) -> None:
    """Draw performance profiles: the share of runs above each normalised score, a line per agent.

    Args:
        scores: Normalised scores by agent, one array of runs per environment.
        path: File to write; its suffix decides the format.

    Source:
        Agarwal et al., arXiv 2108.13264, run-score distributions.
    """
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    levels = np.linspace(0, 1.2, 121)
    for index, (name, own) in enumerate(scores.items()):
        label = f"{name}, n={sum(np.size(task) for task in own)}"
        axes.plot(levels, performance_profile(own, levels), drawstyle="steps-post", label=label, **style(index, levels))
    axes.set_xlabel("normalised score of the last evaluation (0 random, 1 threshold)")
    axes.set_ylabel("share of runs above it")
    axes.set_ylim(-0.02, 1.02)
    _finish(figure, axes, path)


def plot_estimates(estimates: Mapping[str, Estimate], label: str, reference: float, path: Path) -> None:
    """Draw a row per estimate with its 95% interval and its number of runs.

    Args:
        estimates: Estimates by the label of their row.
        label: Label of the x axis.
        reference: Value to compare with, drawn as a dashed line.
        path: File to write; its suffix decides the format.
    """
    figure = Figure(figsize=(9.6, 1.2 + 0.36 * len(estimates)), layout="constrained")
    axes = figure.subplots()
    for row, (value, interval, n) in enumerate(estimates.values()):
        if interval is not None:
            axes.plot(interval, (row, row), color="0.45", linewidth=5, solid_capstyle="butt", alpha=0.5)
        axes.plot(value, row, marker="o", color="black", linestyle="none")
        axes.annotate(f"n={n}", (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.axvline(reference, color="0.4", linewidth=0.8, linestyle=(0, (4, 4)))
    axes.set_yticks(range(len(estimates)), list(estimates))
    # Reversed, so that the first row is at the top.
    axes.set_ylim(len(estimates) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def plot_needed(summaries: Sequence[Summary], path: Path) -> None:
    """Draw the environment steps to the threshold: median and range of the runs that reached it, a panel per environment.

    Args:
        summaries: Summaries of one or more environments.
        path: File to write; its suffix decides the format.
    """
    envs = list(dict.fromkeys(summary.env for summary in summaries))
    rows = [sum(summary.env == env for summary in summaries) for env in envs]
    figure = Figure(figsize=(9.6, 0.6 + 0.7 * len(envs) + 0.24 * sum(rows)), layout="constrained")
    panels = figure.subplots(len(envs), 1, squeeze=False, height_ratios=rows)[:, 0]
    for axes, env in zip(panels, envs, strict=True):
        own = [summary for summary in summaries if summary.env == env]
        for row, summary in enumerate(own):
            median, low, high = summary.steps
            if median is not None:
                axes.barh(row, median, color=COLOURS[row % len(COLOURS)], hatch=HATCHES[row % len(HATCHES)], alpha=0.75)
            if low is not None and high is not None:
                axes.plot((low, high), (row, row), color="black", marker="|", linewidth=1.2)
            note = f"{summary.n_reached}/{summary.n_seeds}"
            axes.annotate(note, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8)
        axes.set_yticks(range(len(own)), [name_of(summary.algorithm, summary.mode) for summary in own])
        axes.set_ylim(len(own) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_title(f"{env}, threshold {own[0].threshold:g}", fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("environment steps to the threshold: median, range, and how many runs got there")
    save(figure, path)


def plot_cost_of_acting(summaries: Sequence[Summary], path: Path) -> None:
    """Draw the return of the last evaluation against CPU milliseconds per step, a panel per environment.

    Args:
        summaries: Summaries of one or more environments; the environment's own time is part of a step.
        path: File to write; its suffix decides the format.
    """
    envs = list(dict.fromkeys(summary.env for summary in summaries))
    figure = Figure(figsize=(4.8 * min(len(envs), 3), 3.8 * -(-len(envs) // 3)), layout="constrained")
    panels = figure.subplots(-(-len(envs) // 3), min(len(envs), 3), squeeze=False, sharex=True).ravel()
    for axes, env in zip(panels, envs, strict=False):
        own = [summary for summary in summaries if summary.env == env]
        for index, summary in enumerate(own):
            label = f"{name_of(summary.algorithm, summary.mode)}, n={summary.n_seeds}"
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            x, y = summary.ms_per_step, summary.final_return
            axes.plot(x, y, color=colour, marker=marker, markersize=8, linestyle="none", label=label)
            if summary.final_interval is not None:
                axes.plot((x, x), summary.final_interval, color=colour, linewidth=1.2)
        plain_log(axes)
        axes.tick_params(labelbottom=True)
        axes.set_title(env, fontsize=10)
        axes.set_xlabel("CPU ms per step, the environment's included, log scale")
        axes.set_ylabel("mean return of the last evaluation")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    # The last row of panels may have more places than there are environments.
    for axes in panels[len(envs) :]:
        axes.set_visible(False)
    save(figure, path)


def plain_log(axes: Axes) -> None:
    """Make the x axis logarithmic, with tick labels such as 200 in place of powers of ten."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def style(index: int, x: np.ndarray) -> dict[str, Any]:
    """Return the line style of one of several curves, distinct with and without colour.

    Args:
        index: Position of the curve in its figure.
        x: The curve's points ``(E,)``; about ten of them get a marker.

    Returns:
        Keyword arguments of `Axes.plot`.
    """
    return {
        "color": COLOURS[index % len(COLOURS)],
        # Five lines and seven colours and markers: the combination repeats after 35 curves only.
        "linestyle": LINES[index % len(LINES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4.5,
        "markevery": max(1, len(x) // 10),
        "linewidth": 1.6,
    }


def _finish(figure: Figure, axes: Axes, path: Path) -> None:
    """Add the legend, remove the frame, and write the figure."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, handlelength=4)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's suffix, making its folder where needed.

    Raises:
        ValueError: The format needs a program that is not installed, as pgf needs LaTeX.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path, dpi=150)
    except RuntimeError as error:  # pgf where LaTeX is not installed
        raise ValueError(f"{path} cannot be drawn: {error}") from error


def check_format(path: Path) -> None:
    """Check that matplotlib can write the format that a path's suffix names.

    Raises:
        ValueError: The suffix names no such format.
    """
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise ValueError(f"{path}: a picture's suffix decides its format, choose one of {', '.join(sorted(known))}")
