"""The picture of an episode as the agent saw it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from jepa_agent.extras import needs
from jepa_agent.pictures.episode import Explanation

if TYPE_CHECKING:  # matplotlib is loaded by what draws
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's blue, vermilion and green, for what acted, what was imagined, and a third; dashes tell them apart, too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73")
_LINES = ("-", "--", "-.")


def draw_explanation(told: Explanation) -> Figure:
    """Draw an episode: which mode acted, predicted gains, predicted and realised costs, prediction errors, and latents.

    Args:
        told: The recorded episode.

    Returns:
        A figure of matplotlib's.
    """
    with needs("compare"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 7.2), layout="constrained")
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=(1.25, 1.0)))
    strip, gains, costs, misses = np.ravel(left.subplots(4, 1, sharex=True, height_ratios=(0.45, 1.0, 1.2, 1.2)))
    _draw_modes(strip, told)
    _draw_gains(gains, told)
    _draw_costs(costs, told)
    _draw_misses(misses, told)
    for axes in (gains, costs, misses):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.02), handlelength=2.6)
    left.align_ylabels()
    misses.set_xlabel("step of the episode")
    misses.set_xlim(0, len(told.cost))
    # A figure of its own on the right: its axes are not steps of the episode.
    _draw_plane(right.subplots(), told)
    figure.suptitle(
        f"{told.env_id}, mode {told.mode}: return {-told.cost.sum():.1f} in {len(told.cost)} steps; "
        f"Mode-2 acted in {told.planned.sum():,} of them",
        fontsize=12,
    )
    return figure


def _draw_modes(axes: Axes, told: Explanation) -> None:
    """Draw a strip that shows which mode acted at each step."""
    # 0: new plan executed; 1: later step of a plan; 2: searched, plan refused; 3: Mode-1 without a search.
    kinds = np.where(told.planned, np.where(told.searched, 0, 1), np.where(told.searched, 2, 3))
    looks: tuple[tuple[str, str, str], ...] = (
        ("a new plan acted", "#0072B2", ""),
        ("its later steps", "#9ecae1", ""),
        ("plan refused", "0.92", "////"),
        ("Mode-1, no search", "white", ""),
    )
    with needs("compare"):
        from matplotlib.patches import Patch

    # One patch per run of equal steps: hatching of single steps would be unreadable.
    borders = [0, *(np.flatnonzero(np.diff(kinds)) + 1), len(kinds)]
    for start, end in pairwise(borders):
        _, colour, hatch = looks[int(kinds[start])]
        axes.axvspan(start, end, facecolor=colour, hatch=hatch, edgecolor="0.6", linewidth=0)
    axes.set_yticks([])
    axes.set_ylim(0, 1)
    patches = [Patch(label=name, facecolor=c, hatch=h, edgecolor="0.6", linewidth=0.6) for name, c, h in looks]
    axes.legend(handles=patches, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.6)
    axes.set_ylabel("who acts", rotation=0, ha="right", va="center")


def _draw_gains(axes: Axes, told: Explanation) -> None:
    """Draw the predicted gain of each search as a bar, executed and refused plans apart."""
    steps = np.arange(len(told.cost)) + 0.5
    for chosen, colour, label in ((told.planned, "#0072B2", "executed"), (~told.planned, "0.65", "refused")):
        # Later steps of a plan have no search of their own, and so no bar.
        heights = np.where(chosen & told.searched, told.gain, 0.0)
        axes.bar(steps, heights, width=1.0, color=colour, linewidth=0, label=label)
    axes.axhline(0.0, color="0.4", linewidth=0.6)
    axes.set_ylabel("promised gain")


def _draw_costs(axes: Axes, told: Explanation) -> None:
    """Draw the cost of each step as predicted by the cost module and as realised."""
    steps = np.arange(len(told.cost)) + 0.5
    axes.plot(steps, told.cost, color="0.65", linewidth=3.0, label="realised", solid_capstyle="round")
    axes.plot(steps, told.expected_cost, color="black", linewidth=1.1, linestyle=(0, (3, 1.5)), label="predicted")
    axes.set_ylabel("cost of the step")


def _draw_misses(axes: Axes, told: Explanation) -> None:
    """Draw the prediction error for the shortest, a middle and the longest horizon."""
    missed = told.misses()
    ahead = sorted({1, (missed.shape[1] + 1) // 2, missed.shape[1]})
    for index, k in enumerate(ahead):
        label = "1 step ahead: surprise" if k == 1 else f"{k} steps ahead"
        axes.plot(
            # Shown at the step that was predicted, not at the step that predicted it.
            np.arange(len(missed)) + k,
            missed[:, k - 1],
            color=_COLOURS[index],
            linestyle=_LINES[index],
            linewidth=1.3,
            label=label,
        )
    blind = told.typical_distance()
    axes.axhline(blind, color="0.4", linewidth=0.8, linestyle=(0, (1, 2)), label="a blind guess")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("imagined - observed\n(latent distance)")


def _draw_plane(axes: Axes, told: Explanation, plans: int = 24) -> None:
    """Draw observed latents as a path that darkens with time, and about ``plans`` imagined paths that branch off from it."""
    with needs("compare"):
        from matplotlib.collections import LineCollection
        from matplotlib.colors import Normalize
        from matplotlib.lines import Line2D

    observed, imagined, share = told.plane()
    segments = np.stack([observed[:-1], observed[1:]], axis=1)
    path = LineCollection(list(segments), cmap="Greys", norm=Normalize(-0.35 * len(segments), len(segments)), linewidths=2.4)
    path.set_array(np.arange(len(segments)))
    path.set_capstyle("round")
    axes.add_collection(path)
    # Imagined paths begin at equal distances along the observed path, not in time, so that they do not overlap.
    way = np.concatenate([[0.0], np.linalg.norm(np.diff(observed[:-1], axis=0), axis=1).cumsum()])
    for line in imagined[np.unique(np.searchsorted(way, np.linspace(0.0, way[-1], plans)))]:
        axes.plot(*line.T, color="#D55E00", linewidth=1.3, zorder=3)
        axes.plot(*line[-1], color="#D55E00", marker="o", markersize=3.4, zorder=4)
        axes.plot(
            *line[0], color="white", marker="o", markersize=3.4, markeredgecolor="black", markeredgewidth=0.7, zorder=4
        )
    axes.plot(*observed[0], color="black", marker="^", markersize=9, linestyle="none", zorder=5)
    axes.plot(*observed[-1], color="black", marker="s", markersize=7, linestyle="none", zorder=5)
    handles = [
        Line2D([], [], color="0.3", linewidth=2.4, label="observed, darker with time"),
        Line2D([], [], color="#D55E00", marker="o", markersize=3.4, label=f"imagined, {imagined.shape[1] - 1} steps on"),
        Line2D([], [], color="black", marker="^", markersize=7, linestyle="none", label="first step"),
        Line2D([], [], color="black", marker="s", markersize=6, linestyle="none", label="last step"),
    ]
    axes.legend(handles=handles, frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)
    axes.set_aspect("equal", adjustable="datalim")
    axes.autoscale_view()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("direction in which latents differ most")
    axes.set_ylabel("direction in which they differ second most")
    axes.set_title(f"Latents of the episode: {100 * share:.0f} % of their variance in this plane", fontsize=10, loc="left")
