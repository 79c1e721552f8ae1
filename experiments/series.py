"""Curves from whatever a run left behind: our comparisons, `evaluations.npz`, monitor files."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jepa_agent.experiments.figures import name_of
from jepa_agent.experiments.records import RESULT, read_run
from jepa_agent.persistence.plain_data import parse_json, read_npz

EVALUATIONS, MONITOR = "evaluations.npz", "monitor.csv"
_NUMBER = re.compile(r"(_|[_-]?seed[_-]?)\d+$")


class Series(NamedTuple):
    """One run's return over time."""

    label: str  # runs with the same label are averaged
    steps: np.ndarray  # (E,)
    returns: np.ndarray  # (E,)


def read_all(paths: Sequence[Path], window: int = 10, on_skip: Callable[[str], None] = warnings.warn) -> list[Series]:
    """What `read_series` finds at each of the paths; labels of different paths differ, by the folders above if need be.

    A path that holds nothing to read is skipped, and told, where others hold something; ValueError if none does, or if one
    does not exist.
    """
    missing = next((path for path in paths if not path.exists()), None)
    if missing is not None:
        raise ValueError(f"{missing} does not exist")
    found: dict[Path, list[Series]] = {}
    reasons = []
    for path in dict.fromkeys(paths):
        try:
            found[path] = read_series(path, window, on_skip)
        except ValueError as error:
            reasons.append(str(error))
    if not found:
        raise ValueError(reasons[0])
    for reason in reasons:
        on_skip(reason)
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


def read_series(path: Path, window: int = 10, on_skip: Callable[[str], None] = warnings.warn) -> list[Series]:
    """The runs at or below ``path``, each read from the best of what it left: a comparison's results, the evaluations of
    `EvalCallback` (rl_zoo3's, too), or monitor files, whose episodes are averaged over ``window``.

    Runs below a folder share a label, and are averaged, where their own folders differ in a number at the end alone, as
    the zoo counts them. A file that cannot be read costs its own curve alone: it is named to ``on_skip`` if anything is
    left. Raises ValueError where nothing is.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if path.name.endswith(MONITOR) and path.is_file():
        return [_monitored(_name(path), _all_episodes([path], on_skip), window)]
    compared = sorted({file.parent for file in _files(path, RESULT)})
    evaluations = [path] if path.suffix == ".npz" and path.is_file() else _files(path, EVALUATIONS)
    read: dict[Path, Callable[[], list[Series]]] = {folder: partial(_compared, folder) for folder in compared}
    read.update({file: partial(_evaluated, _label(path, file.parent), file) for file in evaluations})
    told = {*compared, *(file.parent for file in evaluations)}
    for folder in sorted({file.parent for file in _files(path, f"*{MONITOR}")} - told):
        read[folder] = partial(_of_episodes, _label(path, folder), _files(folder, f"*{MONITOR}"), window, on_skip)
    series, reasons = [], []
    for reader in read.values():
        try:
            series += reader()
        except ValueError as error:
            reasons.append(str(error))
    if not series:
        nothing = f"{path} holds no {RESULT}, no {EVALUATIONS} and no {MONITOR}; give a run's folder, or one above it"
        raise ValueError(reasons[0] if reasons else nothing)
    for reason in reasons:
        on_skip(reason)
    return series


def _files(path: Path, pattern: str) -> list[Path]:
    """Regular files of a name, at or below a folder."""
    return sorted(file for file in path.rglob(pattern) if file.is_file()) if path.is_dir() else []


def _compared(folder: Path) -> list[Series]:
    return [Series(f"{c.spec.env} {name_of(c.spec.algorithm, c.mode)}", c.steps, c.means) for c in read_run(folder)]


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


def _evaluated(label: str, file: Path) -> list[Series]:
    try:
        content = read_npz(file)
        steps, results = content["timesteps"].astype(float), content["results"].astype(float)
        if steps.ndim != 1 or not len(steps) or results.shape[:1] != steps.shape:
            raise ValueError(f"timesteps {steps.shape} and results {results.shape} do not belong together")
        # Rewards that are arrays of one number leave one axis more.
        returns = results.reshape(len(steps), -1).mean(axis=1)
        known = np.isfinite(steps) & np.isfinite(returns)
        if not known.any():
            raise ValueError("no evaluation is finite")
        return [Series(label, steps[known], returns[known])]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is not what EvalCallback writes: {error}") from error


def _of_episodes(label: str, files: Sequence[Path], window: int, on_skip: Callable[[str], None]) -> list[Series]:
    return [_monitored(label, _all_episodes(files, on_skip), window)]


def _all_episodes(files: Sequence[Path], on_skip: Callable[[str], None]) -> list[tuple[float, float, float]]:
    """The episodes of all files that can be read; ValueError if there is none."""
    episodes, reasons = [], []
    for file in files:
        try:
            episodes += _episodes(file)
        except ValueError as error:
            reasons.append(str(error))
    if not episodes:
        raise ValueError(reasons[0] if reasons else f"{files[0]} holds no episode yet")
    for reason in reasons:
        on_skip(reason)
    return episodes


def _monitored(label: str, episodes: Sequence[tuple[float, float, float]], window: int) -> Series:
    _, returns, lengths = np.array(sorted(episodes)).T  # environments side by side, in the order in which episodes ended
    steps = np.cumsum(lengths)
    width = min(window, len(returns))
    return Series(label, steps[width - 1 :], np.convolve(returns, np.ones(width) / width, mode="valid"))


def _episodes(file: Path) -> list[tuple[float, float, float]]:
    """When each episode ended, its return and its length."""
    try:
        with file.open(newline="") as lines:
            began = float(parse_json(lines.readline().removeprefix("#"))["t_start"])
            rows = list(csv.DictReader(lines))
        if rows and None in rows[-1].values():
            rows.pop()  # being written, or cut off when the run was killed
        found = [(began + float(row["t"]), float(row["r"]), float(row["l"])) for row in rows]
        return [row for row in found if np.isfinite(row).all()]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
        raise ValueError(f"{file} is not what SB3's Monitor writes: {error}") from error


def by_label(series: Sequence[Series]) -> dict[str, list[Series]]:
    """The runs of each label, in the order in which labels first appear."""
    groups: dict[str, list[Series]] = {}
    for one in series:
        groups.setdefault(one.label, []).append(one)
    return groups
