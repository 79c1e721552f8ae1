"""Curves from whatever a run left behind: our comparisons, `evaluations.npz`, monitor files."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from jepa_agent.experiments.figures import name_of
from jepa_agent.experiments.records import RESULT, read_run

EVALUATIONS, MONITOR = "evaluations.npz", "monitor.csv"
_NUMBER = re.compile(r"(_|[_-]?seed[_-]?)\d+$")


class Series(NamedTuple):
    """One run's return over time."""

    label: str  # runs with the same label are averaged
    steps: np.ndarray  # (E,)
    returns: np.ndarray  # (E,)


def read_all(paths: Sequence[Path], window: int = 10) -> list[Series]:
    """What `read_series` finds at each of the paths; labels of different paths differ, by the folders above if need be."""
    found = {path: read_series(path, window) for path in dict.fromkeys(paths)}
    owners: dict[str, set[Path]] = {}
    for path, series in found.items():
        for one in series:
            owners.setdefault(one.label, set()).add(path)
    named = []
    for path, series in found.items():
        for one in series:
            if len(owners[one.label]) > 1:
                start = _tail(path, owners[one.label])
                rest = one.label.removeprefix(_name(path))
                one = one._replace(label=start + rest if rest != one.label else f"{start}: {one.label}")
            named.append(one)
    return named


def _tail(path: Path, others: set[Path]) -> str:
    """As many of the path's last parts as tell it from the others."""
    every = [other.resolve().parts for other in others]
    own = path.resolve().parts
    count = next((n for n in range(1, len(own)) if sum(parts[-n:] == own[-n:] for parts in every) == 1), len(own))
    return "/".join(own[-count:])


def read_series(path: Path, window: int = 10) -> list[Series]:
    """The runs at or below ``path``, each read from the best of what it left: a comparison's results, the evaluations of
    `EvalCallback` (rl_zoo3's, too), or monitor files, whose episodes are averaged over ``window``.

    Runs below a folder share a label, and are averaged, where their own folders differ in a number at the end alone, as
    the zoo counts them. Raises ValueError where there is nothing to read or a file cannot be read.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    compared = sorted({file.parent for file in path.rglob(RESULT)}) if path.is_dir() else []
    curves = [curve for folder in compared for curve in read_run(folder)]
    series = [Series(f"{c.spec.env} {name_of(c.spec.algorithm, c.mode)}", c.steps, c.means) for c in curves]
    evaluations = [path] if path.suffix == ".npz" else sorted(path.rglob(EVALUATIONS)) if path.is_dir() else []
    series += [_evaluated(_label(path, file.parent), file) for file in evaluations]
    told = {*compared, *(file.parent for file in evaluations)}
    if path.name.endswith(MONITOR):
        return [_monitored(_name(path), [path], window)]
    folders = sorted({file.parent for file in path.rglob(f"*{MONITOR}")} - told) if path.is_dir() else []
    series += [_monitored(_label(path, folder), sorted(folder.glob(f"*{MONITOR}")), window) for folder in folders]
    if not series:
        raise ValueError(
            f"{path} holds no {RESULT}, no {EVALUATIONS} and no {MONITOR}; give a run's folder, or one above it"
        )
    return series


def _name(path: Path) -> str:
    path = path.resolve()
    return path.name if path.is_dir() else f"{path.parent.name}/{path.name}"


def _label(path: Path, run: Path) -> str:
    """Of the run in a folder at or below ``path``."""
    if path.is_file() or run == path:
        return _name(path)
    *above, last = run.relative_to(path).parts
    kind = _NUMBER.sub("", last)
    return "/".join([_name(path), *above, *([kind] if kind else [])])


def _evaluated(label: str, file: Path) -> Series:
    try:
        with np.load(file) as content:
            return Series(label, content["timesteps"], content["results"].mean(axis=1))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
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
            rows = list(csv.DictReader(lines))
        if rows and None in rows[-1].values():
            rows.pop()  # being written, or cut off when the run was killed
        return [(began + float(row["t"]), float(row["r"]), float(row["l"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not what SB3's Monitor writes: {error}") from error


def by_label(series: Sequence[Series]) -> dict[str, list[Series]]:
    """The runs of each label, in the order in which labels first appear."""
    groups: dict[str, list[Series]] = {}
    for one in series:
        groups.setdefault(one.label, []).append(one)
    return groups
