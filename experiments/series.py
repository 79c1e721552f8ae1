"""Curves from whatever a run left behind: our comparisons, `evaluations.npz`, monitor files."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jepa_agent.experiments.figures import name_of
from jepa_agent.experiments.records import RESULT, read_curves

EVALUATIONS, MONITOR = "evaluations.npz", "monitor.csv"


class Series(NamedTuple):
    """One run's return over time."""

    label: str  # runs with the same label are averaged
    steps: np.ndarray  # (E,)
    returns: np.ndarray  # (E,)


def read_series(path: Path, window: int = 10) -> list[Series]:
    """The runs at or below ``path``, each read from the best of what it left: a comparison's results, the evaluations of
    `EvalCallback` (rl_zoo3's, too), or monitor files, whose episodes are averaged over ``window``.

    Raises ValueError where there is nothing to read or a file cannot be read.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if path.is_dir() and next(path.rglob(RESULT), None):
        return [Series(f"{c.spec.env} {name_of(c.spec.algorithm, c.mode)}", c.steps, c.means) for c in read_curves(path)]
    label = path.stem if path.is_file() else path.name
    evaluations = [path] if path.suffix == ".npz" else sorted(path.rglob(EVALUATIONS)) if path.is_dir() else []
    if evaluations:
        return [_evaluated(label, file) for file in evaluations]
    if path.name.endswith(MONITOR):
        return [_monitored(label, [path], window)]
    folders = sorted({file.parent for file in path.rglob(f"*{MONITOR}")}) if path.is_dir() else []
    if folders:
        return [_monitored(label, sorted(folder.glob(f"*{MONITOR}")), window) for folder in folders]
    raise ValueError(f"{path} holds no {RESULT}, no {EVALUATIONS} and no {MONITOR}; give a run's folder, or one above it")


def _evaluated(label: str, file: Path) -> Series:
    try:
        with np.load(file) as content:
            return Series(label, content["timesteps"], content["results"].mean(axis=1))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{file} is not what EvalCallback writes: {error}") from error


def _monitored(label: str, files: Sequence[Path], window: int) -> Series:
    episodes = [row for file in files for row in _episodes(file)]
    if not episodes:
        raise ValueError(f"{files[0]} holds no episode yet")
    _, returns, lengths = np.array(sorted(episodes)).T  # environments side by side, in the order in which episodes ended
    steps = np.cumsum(lengths)
    width = min(window, len(returns))
    return Series(label, steps[width - 1 :], np.convolve(returns, np.ones(width) / width, mode="valid"))


def _episodes(file: Path) -> list[tuple[float, float, float]]:
    """When each episode ended, its return and its length."""
    try:
        with file.open(newline="") as lines:
            began = float(json.loads(lines.readline().removeprefix("#"))["t_start"])
            return [(began + float(row["t"]), float(row["r"]), float(row["l"])) for row in csv.DictReader(lines)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not what SB3's Monitor writes: {error}") from error


def by_label(series: Sequence[Series]) -> dict[str, list[Series]]:
    """The runs of each label, in the order in which labels first appear."""
    groups: dict[str, list[Series]] = {}
    for one in series:
        groups.setdefault(one.label, []).append(one)
    return groups
