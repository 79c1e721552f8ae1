"""Figures of planning: return against compute, and the plans of an episode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_agent.experiments.figures import plain_log, save
from jepa_agent.experiments.laboratory import NO_SEARCH
from jepa_agent.experiments.statistics import bootstrap_interval
from jepa_agent.extras import needs
from jepa_agent.pictures.episode import Explanation
from jepa_agent.pictures.explanation import draw_explanation
from jepa_agent.pictures.looks import Look, looks

if TYPE_CHECKING:  # matplotlib is loaded by what draws
    from matplotlib.axes import Axes

STUDIES = {"samples": "candidates per iteration", "iterations": "iterations", "horizon": "imagined steps"}


def plot_compute(result: dict[str, Any], path: Path) -> None:
    """Draw mean return against operations per plan, a panel per quantity that compute is spent on and a line per planner.

    All planners play the same episodes, so intervals are those of the paired difference from the optimal return if it is
    known, or else from acting without a search.

    Args:
        result: Content of a results file, as `Laboratory.run` returns it.
        path: File to write; its suffix decides the format.
    """
    with needs("compare"):
        from matplotlib.figure import Figure

    reference = _reference(result)
    kinds = list(result["design"]["planners"])
    figure = Figure(figsize=(11.5, 4.4), layout="constrained")
    for axes, (study, what) in zip(figure.subplots(1, 3, sharey=True), STUDIES.items(), strict=True):
        rows = [row for row in result["rows"] if row["study"] == study]
        for kind, look in looks(kinds).items():
            own = sorted((row for row in rows if row["planner"] == kind), key=lambda row: row["mflop"])
            _line(axes, own, reference, kind, look)
        _reference_lines(axes, result)
        plain_log(axes)
        axes.set_title(f"{what}\n{_values(rows)}", fontsize=10, loc="left")
        axes.set_xlabel("MFLOP per plan, log scale")
        axes.spines[["top", "right"]].set_visible(False)
        if study == "samples":
            axes.set_ylabel("mean return")
    figure.suptitle(
        f"{result['name']}: {result['design']['episodes']} episodes, paired 95% bootstrap intervals", fontsize=11
    )
    # Not every planner is in every panel, so the legend collects labels from all of them.
    handles, labels = figure.axes[0].get_legend_handles_labels()
    for axes in figure.axes[1:]:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    figure.legend(handles, labels, loc="outside lower center", ncols=8, frameon=False, handlelength=3.5)
    save(figure, path)


def _reference(result: dict[str, Any]) -> np.ndarray:
    """Return the optimal return of each episode if it is known, else the return without a search."""
    bare = next(row["returns"] for row in result["rows"] if row["planner"] == NO_SEARCH)
    return np.array(bare if result["best"] is None else result["best"])


def _values(rows: list[dict[str, Any]]) -> str:
    """Return the values of what is varied, from left to right along each line; planners that have other ones are named."""
    by_kind: dict[str, list[float]] = {}
    for row in sorted((row for row in rows if row["planner"] != NO_SEARCH), key=lambda row: row["mflop"]):
        by_kind.setdefault(row["planner"], []).append(row["value"])
    alike: dict[str, list[str]] = {}
    for kind, values in by_kind.items():
        alike.setdefault(", ".join(f"{value:g}" for value in values), []).append(kind)
    usual, *others = sorted(alike, key=lambda values: -len(alike[values])) or ["-"]
    return "; ".join([usual, *(f"{' and '.join(alike[values])} {values}" for values in others)])


def _line(axes: Axes, rows: list[dict[str, Any]], reference: np.ndarray, label: str, look: Look) -> None:
    """Draw a planner's line with paired intervals."""
    if not rows:
        return
    x = np.array([row["mflop"] for row in rows])
    axes.plot(x, [np.mean(row["returns"]) for row in rows], label=label, **look.line_style(len(x)))
    for row, at in zip(rows, x, strict=True):
        # Pairing by episode takes out how much harder some starts are than others.
        interval = bootstrap_interval(np.array(row["returns"]) - reference)
        if interval is not None:
            axes.plot((at, at), np.array(interval) + reference.mean(), color=look.colour, linewidth=0.9, alpha=0.6)


def _reference_lines(axes: Axes, result: dict[str, Any]) -> None:
    """Draw the mean return without a search, and the optimal one if it is known."""
    bare = [row["returns"] for row in result["rows"] if row["planner"] == NO_SEARCH]
    if bare:
        axes.axhline(np.mean(bare), color="0.35", linewidth=1.0, linestyle=(0, (4, 3)), label=NO_SEARCH, zorder=1)
    if result["best"] is not None:
        axes.axhline(
            np.mean(result["best"]), color="black", linewidth=1.0, linestyle=":", label="the best there is", zorder=1
        )


def plot_explanation(told: Explanation, path: Path) -> None:
    """Draw an episode: which mode acted, predicted gains, predicted and realised costs, prediction errors, and latents.

    Args:
        told: The recorded episode.
        path: File to write; its suffix decides the format.
    """
    save(draw_explanation(told), path)
