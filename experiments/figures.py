"""Figures of learning curves and comparisons, readable without colour, with any kind of colour vision, and when small."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jepa_agent.experiments.records import Curve
from jepa_agent.experiments.statistics import (
    Estimate,
    Scores,
    Summary,
    bootstrap_interval,
    first_reaching,
    group,
    performance_profile,
    profile_interval,
)
from jepa_agent.extras import needs
from jepa_agent.pictures.looks import LOOKS, Look, looks

if TYPE_CHECKING:  # matplotlib is loaded by what draws
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.6  # inches: letters of 10 points can still be read where the picture is 420 pixels wide
_OURS = LOOKS["JEPA"].colour


class Band(NamedTuple):
    """A mean curve over seeds with its 95% interval, at E points."""

    x: np.ndarray  # (E,)
    mean: np.ndarray  # (E,)
    interval: tuple[np.ndarray, np.ndarray] | None  # low and high, each (E,); None for a single seed
    held: bool  # whether some run ended before others and is extended by its last value


def plot_curves(curves: Sequence[Curve], threshold: float, path: Path) -> None:
    """Draw mean return against environment steps and against CPU seconds of training, a column of panels per agent.

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
    own = {name_of(algorithm, mode): found for (_, algorithm, mode), found in group(curves).items()}
    figure = _figure(max(WIDTH, 2.5 * len(own)), 5.6)
    panels = np.reshape(figure.subplots(2, len(own), sharey=True, sharex="row", squeeze=False), (2, len(own)))
    held = False
    of_x: tuple[Callable[[Curve], np.ndarray], ...] = (lambda curve: curve.steps, lambda curve: curve.cpu_seconds)
    for row, x_of in zip(panels, of_x, strict=True):
        bands = {
            name: average([x_of(curve) for curve in found], [curve.means for curve in found]) for name, found in own.items()
        }
        held |= any(band.held for band in bands.values())
        _one_band_each(row, bands)
        for axes in row:
            plain_log(axes)
            axes.axhline(threshold, color="0.4", linewidth=0.9, linestyle=(0, (4, 4)), zorder=1)
    for axes, (name, found) in zip(panels[0], own.items(), strict=True):
        _title(axes, name, len(found), looks(own)[name])
    middle = panels[:, len(own) // 2]
    middle[0].set_xlabel("environment steps, log scale")
    middle[1].set_xlabel("CPU seconds of training, log scale")
    note = "; runs that ended before others hold their last value" if held else ""
    figure.suptitle(
        f"{envs[0]}: mean return, 95 % bootstrap interval over runs\ndashed: threshold {threshold:,g}{note}", fontsize=10.5
    )
    save(figure, path)


def plot_series(runs: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]], path: Path) -> None:
    """Draw return against environment steps, a panel per label with the mean over its runs and a 95% bootstrap band.

    Args:
        runs: By label, the runs as pairs of steps ``(E,)`` and returns ``(E,)``; lengths may differ.
        path: File to write; its suffix decides the format.
    """
    bands = {label: average([x for x, _ in own], [y for _, y in own]) for label, own in runs.items()}
    columns = min(len(runs), 3)
    rows = -(-len(runs) // columns)
    figure = _figure(WIDTH, 1.2 + 2.6 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    _one_band_each(panels, bands)
    for axes, (label, own) in zip(panels, runs.items(), strict=False):
        _title(axes, label, len(own), looks(runs)[label])
        axes.tick_params(labelbottom=True)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.locator_params(axis="x", nbins=4)
    figure.supxlabel("environment steps", fontsize=10)
    if any(band.interval is not None for band in bands.values()):
        figure.suptitle("mean return, 95 % bootstrap interval over runs", fontsize=10.5)
    save(figure, path)


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


def _one_band_each(panels: Sequence[Axes] | np.ndarray, bands: Mapping[str, Band]) -> None:
    """Draw in each panel one agent's mean and interval, and the means of all others as thin lines: no band hides another.

    Args:
        panels: At least as many as bands; those that are left over are not shown.
        bands: By the name of the agent.
    """
    styles = looks(bands)
    for axes, (name, own) in zip(panels, bands.items(), strict=False):
        for other, band in bands.items():
            if other != name:
                axes.plot(
                    band.x, band.mean, color=styles[other].colour, linestyle=styles[other].line, linewidth=0.9, alpha=0.7
                )
        axes.plot(own.x, own.mean, zorder=4, **styles[name].line_style(len(own.x)))
        if own.interval is not None and len(own.x) == 1:  # an area over a single point is invisible
            axes.vlines(own.x, *own.interval, color=styles[name].colour, linewidth=1.4)
        elif own.interval is not None:
            axes.fill_between(own.x, *own.interval, color=styles[name].colour, alpha=0.22, linewidth=0, zorder=3)
        axes.yaxis.set_major_formatter("{x:,.10g}")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(bands) :]:
        axes.set_visible(False)


def _title(axes: Axes, name: str, runs: int, look: Look) -> None:
    """Write an agent's name and number of runs above its panel, in its colour."""
    shown = name.replace("$", r"\$")  # not a matplotlib formula
    axes.set_title(f"{shown}, n={runs}", fontsize=10, color=look.colour, fontweight="bold", loc="left", wrap=True)


def name_of(algorithm: str, mode: str) -> str:
    """Return the name of an agent in tables and figures.

    Args:
        algorithm: Name of the algorithm.
        mode: Mode that acted; a baseline's only mode, "policy", is not named.
    """
    return algorithm if mode == "policy" else f"{algorithm} ({mode})"


def plot_profiles(scores: Mapping[str, Scores], path: Path) -> None:
    """Draw performance profiles: the share of runs above each normalised score, a panel per agent.

    Args:
        scores: Normalised scores by agent, one array of runs per environment.
        path: File to write; its suffix decides the format.

    Source:
        Agarwal et al., arXiv 2108.13264, run-score distributions.
    """
    columns = min(len(scores), 3)
    rows = -(-len(scores) // columns)
    figure = _figure(WIDTH, 0.9 + 2.6 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    levels = np.linspace(0, 1.2, 121)
    _one_band_each(
        panels,
        {
            name: Band(levels, performance_profile(own, levels), profile_interval(own, levels), False)
            for name, own in scores.items()
        },
    )
    for axes, (name, own) in zip(panels, scores.items(), strict=False):
        _title(axes, name, sum(np.size(task) for task in own), looks(scores)[name])
        axes.set_ylim(-0.02, 1.02)
    panels[0].set_ylabel("share of runs above it")
    figure.supxlabel("normalised score of the last evaluation (0: acting at random, 1: threshold)", fontsize=10)
    save(figure, path)


def plot_estimates(estimates: Mapping[str, Estimate], label: str, reference: float, path: Path) -> None:
    """Draw a row per estimate of a probability, with its 95% interval and its number of runs.

    Args:
        estimates: Estimates by the label of their row.
        label: Label of the x axis.
        reference: Value to compare with, drawn as a dashed line.
        path: File to write; its suffix decides the format.
    """
    figure = _figure(WIDTH, 0.9 + 0.55 * len(estimates))
    axes = figure.subplots()
    for row, (name, (value, interval, n)) in enumerate(estimates.items()):
        if interval is not None:
            axes.plot(interval, (row, row), color="0.45", linewidth=6, solid_capstyle="butt", alpha=0.5)
        axes.plot(value, row, marker="o", color="black", linestyle="none")
        label_box = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over the dashed line
        axes.annotate(f"{name}, n={n}", (0.0, row - 0.3), va="center", fontsize=10, bbox=label_box)
    axes.axvline(reference, color="0.4", linewidth=0.9, linestyle=(0, (4, 4)))
    axes.set_xlim(0, 1)
    axes.set_yticks([])
    # Reversed, so that the first row is at the top.
    axes.set_ylim(len(estimates) - 0.6, -0.6)
    axes.set_xlabel(label)
    axes.spines[["top", "right", "left"]].set_visible(False)
    save(figure, path)


def plot_needed(
    curves: Sequence[Curve], thresholds: Mapping[str, float], path: Path, remarks: Mapping[str, str] | None = None
) -> None:
    """Draw the environment steps to the threshold on one log axis: a group of rows per environment, a mark per run.

    Runs that reached the threshold are filled marks at the step of the evaluation that did, others open marks at their
    last step. A bar stands at the median over runs, if more than half of them got there.

    Args:
        curves: Curves of one or more environments.
        thresholds: Return that counts as solved, by environment.
        path: File to write; its suffix decides the format.
        remarks: What to say beside the name of an environment, by environment.
    """
    groups = group(curves)
    envs = list(dict.fromkeys(env for env, _, _ in groups))
    styles = looks(name_of(algorithm, mode) for _, algorithm, mode in groups)
    figure = _figure(WIDTH, 1.1 + 0.34 * len(envs) + 0.235 * len(groups))
    axes = figure.subplots()
    place, rows = 0.0, []
    for env in envs:
        top = place
        for x, side, weight, colour, said in (
            (0.01, "left", "bold", "black", f"{env}, return of {thresholds[env]:,g}"),
            (0.99, "right", "normal", _OURS, (remarks or {}).get(env, "")),
        ):
            axes.annotate(
                said, (x, place), xycoords=("axes fraction", "data"), ha=side, va="center", fontweight=weight, color=colour
            )
        for (where, algorithm, mode), own in groups.items():
            if where == env:
                place += 1
                name = name_of(algorithm, mode)
                got = _mark_runs(axes, own, thresholds[env], place, styles[name])
                rows.append((place, f"{name} {got}/{len(own)}", styles[name].colour))
        if envs.index(env) % 2:
            axes.axhspan(top - 0.6, place + 0.6, color="0.955", zorder=0, linewidth=0)
        place += 1.3
    plain_log(axes)
    axes.set_yticks([row for row, _, _ in rows], [label for _, label, _ in rows])
    for label, (_, _, colour) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(colour)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(place - 0.6, -0.7)
    axes.grid(axis="x", color="0.88", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel("environment steps until the threshold was reached, log scale")
    axes.spines[["top", "right", "left"]].set_visible(False)
    save(figure, path)


def _mark_runs(axes: Axes, curves: Sequence[Curve], threshold: float, row: float, look: Look) -> int:
    """Draw a mark per run and a bar at the median; return how many runs reached the threshold."""
    steps = [first_reaching(curve.steps, curve.means, threshold) for curve in curves]
    at = np.array([curve.steps[-1] if step is None else step for curve, step in zip(curves, steps, strict=True)], float)
    for x in np.unique(at):
        # Runs at the same step stand above one another, by so little that their row is never in doubt.
        same = np.flatnonzero(at == x)
        heights = row + 0.09 * (np.arange(len(same)) - (len(same) - 1) / 2) * min(1.0, 8 / len(same))
        for run, height in zip(same, heights, strict=True):
            filled = look.colour if steps[run] is not None else "none"
            axes.plot(x, height, marker=look.marker, markersize=5, color=look.colour, markerfacecolor=filled, alpha=0.75)
    median = np.median([np.inf if step is None else step for step in steps])
    if np.isfinite(median):
        axes.plot(
            (median, median), (row - 0.42, row + 0.42), color=look.colour, linewidth=3, solid_capstyle="butt", zorder=5
        )
    return sum(step is not None for step in steps)


def plot_cost_of_acting(summaries: Sequence[Summary], path: Path) -> None:
    """Draw the return of the last evaluation against CPU milliseconds per step, a panel per environment.

    Args:
        summaries: Summaries of one or more environments; the environment's own time is part of a step.
        path: File to write; its suffix decides the format.
    """
    envs = list(dict.fromkeys(summary.env for summary in summaries))
    styles = looks(name_of(summary.algorithm, summary.mode) for summary in summaries)
    columns = min(len(envs), 3)
    rows = -(-len(envs) // columns)
    figure = _figure(WIDTH, 1.4 + 2.1 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    shown = {}
    for axes, env in zip(panels, envs, strict=False):
        for summary in (summary for summary in summaries if summary.env == env):
            name, x = name_of(summary.algorithm, summary.mode), summary.ms_per_step
            look = styles[name]
            [shown[name]] = axes.plot(
                x,
                summary.final_return,
                color=look.colour,
                marker=look.marker,
                fillstyle=look.fill,
                markersize=8,
                linestyle="",
            )
            if summary.final_interval is not None:
                axes.plot((x, x), summary.final_interval, color=look.colour, linewidth=1.6)
        plain_log(axes)
        axes.tick_params(labelbottom=True)
        axes.yaxis.set_major_formatter("{x:,.10g}")
        axes.locator_params(axis="y", nbins=5)
        axes.margins(x=0.2)
        axes.set_title(env, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    # The last row of panels may have more places than there are environments.
    for axes in panels[len(envs) :]:
        axes.set_visible(False)
    figure.supxlabel("CPU milliseconds per step, the environment's included, log scale", fontsize=10)
    figure.supylabel("mean return of the last evaluation", fontsize=10)
    figure.legend(shown.values(), shown, loc="outside upper center", ncols=4, frameon=False)
    save(figure, path)


def plain_log(axes: Axes) -> None:
    """Make the x axis logarithmic, with tick labels such as 2,000 in place of powers of ten."""
    with needs("compare"):
        from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.dataLim.intervalx
    # Over more than a factor of 30, labels at 1, 2 and 5 would touch one another.
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,)))
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _figure(width: float, height: float) -> Figure:
    """Make an empty figure, sizes in inches."""
    with needs("compare"):
        from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


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
    known = _figure(1, 1).canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise ValueError(f"{path}: a picture's suffix decides its format, choose one of {', '.join(sorted(known))}")
