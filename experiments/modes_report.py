"""Report of a study of modes: tables in Markdown and a figure, made from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jepa_agent.experiments.figures import plain_log, save
from jepa_agent.experiments.records import write_json
from jepa_agent.experiments.statistics import bootstrap_interval
from jepa_agent.extras import needs
from jepa_agent.pictures.looks import looks

Row = dict[str, Any]
Scale = tuple[float, float]
"""The mean returns that count as 0 and as 1."""


class Cell(NamedTuple):
    """Results of a mode in an environment over seeds; scores are normalised, one per seed."""

    env: str
    variant: str
    mode: str
    n_seeds: int
    final: float  # mean return of the agents of the last checkpoint
    score: float  # mean over all agents
    gain: float  # mean difference from the actor's score on the same agents
    gain_interval: tuple[float, float] | None  # its 95% bootstrap interval over seeds
    searched: float
    planned: float
    decision_ms: float  # median CPU milliseconds of a decision, the environment's own time excluded


def renamed(row: Row) -> Row:
    """Return a row, or a cell as a dictionary, with old field names replaced.

    The time of a decision was called ``ms_per_step`` in older files; elsewhere that name includes the environment's time.
    """
    return {"decision_ms" if name == "ms_per_step" else name: value for name, value in row.items()}


def cells(rows: Sequence[Row], scales: dict[str, Scale]) -> list[Cell]:
    """Aggregate rows over seeds.

    Args:
        rows: Rows of a study, each with the results of one mode on one agent.
        scales: Returns with normalised scores 0 and 1, by environment.

    Returns:
        A cell per environment, variant and mode, computed from the agents on which every mode has acted.
    """
    found = []
    for env, variant in dict.fromkeys((row["env"], row["variant"]) for row in rows):
        own = [row for row in rows if (row["env"], row["variant"]) == (env, variant)]
        modes = list(dict.fromkeys(row["mode"] for row in own))
        scores = {(row["seed"], row["step"], row["mode"]): score(row, scales[env]) for row in own}
        agents = sorted({(seed, step) for seed, step, _ in scores})
        # An interrupted study has agents that only some modes have played; they would bias the comparison.
        agents = [agent for agent in agents if all((*agent, mode) in scores for mode in modes)]
        if not agents:
            continue
        seeds, last = sorted({seed for seed, _ in agents}), max(step for _, step in agents)
        for mode in modes:
            of_mode = [row for row in own if row["mode"] == mode and (row["seed"], row["step"]) in agents]
            finals = [row for row in of_mode if row["step"] == last]
            gains = [
                float(np.mean([scores[s, t, mode] - scores[s, t, "actor"] for s, t in agents if s == seed]))
                for seed in seeds
                if "actor" in modes
            ]
            found.append(
                Cell(
                    env,
                    variant,
                    mode,
                    len(seeds),
                    float(np.mean([np.mean(row["returns"]) for row in finals])),
                    float(np.mean([scores[row["seed"], row["step"], mode] for row in of_mode])),
                    float(np.mean(gains)) if gains else float("nan"),
                    bootstrap_interval(gains) if gains else None,
                    float(np.mean([row["searched"] for row in of_mode])),
                    float(np.mean([row["planned"] for row in of_mode])),
                    float(np.median([row["decision_ms"] for row in of_mode])),
                )
            )
    return found


def score(row: Row, scale: Scale) -> float:
    """Return the normalised mean return of a row."""
    low, high = scale
    return (float(np.mean(row["returns"])) - low) / (high - low)


def by_step(rows: Sequence[Row], mode: str, scales: dict[str, Scale]) -> list[str]:
    """Make a table of a mode against the actor for each checkpoint, paired by seed.

    Args:
        rows: Rows of a study.
        mode: Mode to compare with the actor.
        scales: Returns with normalised scores 0 and 1, by environment.

    Returns:
        Lines of Markdown.
    """
    lines = [f"| environment | steps | n | actor | {mode} | gained | 95 % interval |", "|---|---:|---:|---:|---:|---:|---|"]
    keyed = {(row["env"], row["variant"], row["step"], row["seed"], row["mode"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    for env, variant, step in sorted({key[:3] for key in keyed}):
        both = [[keyed.get((env, variant, step, seed, who)) for who in ("actor", mode)] for seed in seeds]
        pairs = [(own, theirs) for own, theirs in both if own and theirs]
        if pairs:
            gains = [score(theirs, scales[env]) - score(own, scales[env]) for own, theirs in pairs]
            actor, other = (np.mean([np.mean(row["returns"]) for row in side]) for side in zip(*pairs, strict=True))
            shown = f"{actor:.1f} | {other:.1f} | {np.mean(gains):+.3f} | {_interval(bootstrap_interval(gains))}"
            lines.append(f"| {_name(env, variant)} | {step:,} | {len(pairs)} | {shown} |")
    return lines


def by_environment(rows: Sequence[Row], mode: str, other: str, scales: dict[str, Scale]) -> list[str]:
    """Make a table of one mode against another on the same agents, averaged over each run's agents and paired by seed.

    Args:
        rows: Rows of a study.
        mode: Mode to compare.
        other: Mode to compare it with.
        scales: Returns with normalised scores 0 and 1, by environment.

    Returns:
        Lines of Markdown.
    """
    lines = [f"| environment | n | {other} | {mode} | better by | 95 % interval |", "|---|---:|---:|---:|---:|---|"]
    scored = {(row["env"], row["variant"], row["seed"], row["step"], row["mode"]): row for row in rows}
    for env, variant in dict.fromkeys(key[:2] for key in scored):
        runs: dict[int, list[tuple[float, float]]] = {}
        for key, row in scored.items():
            theirs = scored.get((*key[:4], other))
            if key[:2] == (env, variant) and key[4] == mode and theirs:
                runs.setdefault(key[2], []).append((score(row, scales[env]), score(theirs, scales[env])))
        if runs:
            # Agents of one run are not independent, so the interval is over runs.
            means = np.array([np.mean(pairs, axis=0) for pairs in runs.values()])
            (own, against), gains = means.mean(0), means[:, 0] - means[:, 1]
            shown = f"{against:.3f} | {own:.3f} | {gains.mean():+.3f} | {_interval(bootstrap_interval(gains))}"
            lines.append(f"| {_name(env, variant)} | {len(runs)} | {shown} |")
    return lines


def plot_trade_off(cells: Sequence[Cell], path: Path) -> None:
    """Draw what each mode gains over the actor, with its 95% interval, against CPU milliseconds of a decision: a panel per
    environment, all on one scale.

    Args:
        cells: Cells of a study.
        path: File to write; its suffix decides the format.
    """
    with needs("compare"):
        from matplotlib.figure import Figure

    acting = [_name(cell.mode, cell.variant) for cell in cells]
    envs = list(dict.fromkeys(cell.env for cell in cells))
    styles = looks([cell.mode for cell in cells])
    fills = dict(zip(dict.fromkeys(cell.variant for cell in cells), cycle(("full", "none", "left", "top"))))
    columns = min(len(envs), 3)
    figure = Figure(figsize=(4.2 * columns, 0.6 + 3.4 * -(-len(envs) // columns)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(-(-len(envs) // columns), columns, sharex=True, sharey=True)).ravel()
    for axes, env in zip(panels, envs, strict=False):
        own = [(cell, name) for cell, name in zip(cells, acting, strict=True) if cell.env == env]
        for cell, name in own:
            look = styles[cell.mode]
            low, high = cell.gain_interval or (cell.gain, cell.gain)
            reach = [[cell.gain - low], [high - cell.gain]]
            axes.errorbar(
                cell.decision_ms,
                cell.gain,
                reach,
                color=look.colour,
                marker=look.marker,
                fillstyle=fills[cell.variant],
                linestyle="",
                label=name,
            )
        axes.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
        plain_log(axes)
        axes.set_title(f"{env}, n={own[0][0].n_seeds}", fontsize=10)
        axes.set_xlabel("CPU ms to decide, log scale")
        axes.set_ylabel("score less the actor's")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(envs) :]:
        axes.set_visible(False)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, 2 * columns), frameon=False
    )
    save(figure, path)


def _name(what: str, variant: str) -> str:
    """Return the name of a mode or environment, with the variant unless it is the default."""
    return what if variant == "defaults" else f"{what}, {variant}"


def _interval(interval: tuple[float, float] | None) -> str:
    """Format an interval; "-" where there is none."""
    return "-" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"


def write_report(rows: Sequence[Row], scales: dict[str, Scale], command: str, folder: Path) -> None:
    """Write summary.json, report.md and modes.png into a folder.

    Args:
        rows: Rows of a study.
        scales: Returns with normalised scores 0 and 1, by environment.
        command: Shell command that reproduces the report.
        folder: Folder to write into.
    """
    found = cells(rows, scales)
    write_json(folder / "summary.json", {"command": command, "cells": [cell._asdict() for cell in found]})
    lines = [
        "# Modes on the same agents",
        "",
        f"Made by `{command}`.",
        "Scores are normalised: 0 is a random policy, 1 the study's ceiling. Seeds are those of agents on which every mode",
        "has acted. *score* is the mean over all agents of a run, *gained* the same less the actor's; *searched* and",
        "*executed* are shares of the steps. Intervals of fewer than five seeds are too narrow.",
        "",
        "| environment | mode | n | last return | score | gained | 95 % interval | searched | executed | ms to decide |",
        "|---|---|---:|---:|---:|---:|---|---:|---:|---:|",
    ]
    for cell in found:
        who = f"{_name(cell.env, cell.variant)} | {cell.mode} | {cell.n_seeds}"
        gained = f"{cell.final:.1f} | {cell.score:.3f} | {cell.gain:+.3f} | {_interval(cell.gain_interval)}"
        lines.append(f"| {who} | {gained} | {cell.searched:.2f} | {cell.planned:.2f} | {cell.decision_ms:.2f} |")
    modes = {cell.mode for cell in found}
    for mode in ("planner", "auto"):
        if {"actor", mode} <= modes:
            lines += ["", f"## {mode} against actor, agent by agent", "", *by_step(rows, mode, scales)]
    for mode in sorted(modes):
        # A switch with a budget is compared with random searches of the same budget.
        switch, _, budget = mode.partition("_")
        if (random := f"random_{budget}") in modes and switch != "random":
            lines += ["", f"## {mode} against {random}", "", *by_environment(rows, mode, random, scales)]
    (folder / "report.md").write_text("\n".join([*lines, ""]))
    plot_trade_off(found, folder / "modes.png")
