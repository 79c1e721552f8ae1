"""Learning curves from the files that a run leaves: results of a comparison, `evaluations.npz`, or monitor files."""

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
# The end of a folder's name that differs between runs of the same kind, as rl_zoo3 numbers them.
_NUMBER = re.compile(r"(_|[_-]?seed[_-]?)\d+$")


class Series(NamedTuple):
    """The return of a run over E points of training."""

    label: str  # runs with the same label are averaged in figures
    steps: np.ndarray  # (E,) environment steps
    returns: np.ndarray  # (E,)


def read_all(paths: Sequence[Path], window: int = 10, on_skip: Callable[[str], None] = warnings.warn) -> list[Series]:
    """Read the curves at several paths, giving runs of different paths different labels.

    Args:
        paths: Folders or files, as `read_series` takes them; repeated ones are read once.
        window: Number of episodes of a moving average, for monitor files.
        on_skip: Called with the reason where something cannot be read but there is something else.

    Raises:
        ValueError: A path does not exist, or nothing can be read at any of them.
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
            # Only labels that several paths share get more of the path in front.
            if len(owners[one.label]) > 1:
                start = _distinguishing_tail(path, owners[one.label])
                rest = one.label.removeprefix(_name(path))
                one = one._replace(label=start + rest if rest != one.label else f"{start}: {one.label}")
            named.append(one)
    return named


def _distinguishing_tail(path: Path, others: set[Path]) -> str:
    """Return the shortest tail of a path that distinguishes it from the others."""
    every = [other.resolve().parts for other in others]
    own = path.resolve().parts
    count = next((n for n in range(1, len(own)) if sum(parts[-n:] == own[-n:] for parts in every) == 1), len(own))
    return "/".join(own[-count:])


def read_series(path: Path, window: int = 10, on_skip: Callable[[str], None] = warnings.warn) -> list[Series]:
    """Read the curves of the runs at or below a path.

    Each run is read from the best file that it left: results of a comparison, else the evaluations of `EvalCallback` (also
    rl_zoo3's), else monitor files, whose episodes are averaged. Runs whose folders differ only in a number at the end share
    a label.

    Args:
        path: A run's folder, a folder above it, or a single file.
        window: Number of episodes of a moving average, for monitor files.
        on_skip: Called with the reason where a file cannot be read but others can.

    Raises:
        ValueError: The path does not exist, or nothing can be read there.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if path.name.endswith(MONITOR) and path.is_file():
        return [_moving_average(_name(path), _all_episodes([path], on_skip), window)]
    compared = sorted({file.parent for file in _files(path, RESULT)})
    evaluations = [path] if path.suffix == ".npz" and path.is_file() else _files(path, EVALUATIONS)
    # Readers are collected first, so that a bad file costs only its own curve.
    read: dict[Path, Callable[[], list[Series]]] = {folder: partial(_read_comparison, folder) for folder in compared}
    read.update({file: partial(_read_evaluations, _label(path, file.parent), file) for file in evaluations})
    # Training episodes are not read where evaluations of the same run exist.
    told = {*compared, *(file.parent for file in evaluations)}
    for folder in sorted({file.parent for file in _files(path, f"*{MONITOR}")} - told):
        read[folder] = partial(_read_monitors, _label(path, folder), _files(folder, f"*{MONITOR}"), window, on_skip)
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
    """Return the regular files of a name below a folder, sorted; none if the path is no folder."""
    return sorted(file for file in path.rglob(pattern) if file.is_file()) if path.is_dir() else []


def _read_comparison(folder: Path) -> list[Series]:
    """Read the curves of a comparison's run, one per mode."""
    return [Series(f"{c.spec.env} {name_of(c.spec.algorithm, c.mode)}", c.steps, c.means) for c in read_run(folder)]


def _name(path: Path) -> str:
    """Return the name of a folder, or of a file with its folder."""
    path = path.resolve()
    return path.name if path.is_dir() else f"{path.parent.name}/{path.name}"


def _label(path: Path, run: Path) -> str:
    """Return the label of the run in a folder at or below ``path``."""
    if path.is_file() or run == path:
        return _name(path)
    *above, last = run.relative_to(path).parts
    kind = _NUMBER.sub("", last)
    return "/".join([_name(path), *above, *([kind] if kind else [])])


def _read_evaluations(label: str, file: Path) -> list[Series]:
    """Read the evaluations that SB3's `EvalCallback` wrote; evaluations that are not finite are dropped."""
    try:
        content = read_npz(file)
        steps, results = content["timesteps"].astype(float), content["results"].astype(float)
        if steps.ndim != 1 or not len(steps) or results.shape[:1] != steps.shape:
            raise ValueError(f"timesteps {steps.shape} and results {results.shape} do not belong together")
        # Environments whose rewards are arrays of one number add an axis.
        returns = results.reshape(len(steps), -1).mean(axis=1)
        known = np.isfinite(steps) & np.isfinite(returns)
        if not known.any():
            raise ValueError("no evaluation is finite")
        return [Series(label, steps[known], returns[known])]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is not what EvalCallback writes: {error}") from error


def _read_monitors(label: str, files: Sequence[Path], window: int, on_skip: Callable[[str], None]) -> list[Series]:
    """Read the monitor files of a run as one curve."""
    return [_moving_average(label, _all_episodes(files, on_skip), window)]


def _all_episodes(files: Sequence[Path], on_skip: Callable[[str], None]) -> list[tuple[float, float, float]]:
    """Return the episodes of all files that can be read; ValueError if there is none."""
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


def _moving_average(label: str, episodes: Sequence[tuple[float, float, float]], window: int) -> Series:
    """Return the moving average of episode returns over the environment steps of all environments together."""
    _, returns, lengths = np.array(sorted(episodes)).T  # episodes of all environments in the order in which they ended
    steps = np.cumsum(lengths)
    width = min(window, len(returns))
    return Series(label, steps[width - 1 :], np.convolve(returns, np.ones(width) / width, mode="valid"))


def _episodes(file: Path) -> list[tuple[float, float, float]]:
    """Return end time, return and length of each episode in a monitor file."""
    try:
        with file.open(newline="") as lines:
            # Each file counts seconds from its own start, given in its first line.
            began = float(parse_json(lines.readline().removeprefix("#"))["t_start"])
            rows = list(csv.DictReader(lines))
        if rows and None in rows[-1].values():
            rows.pop()  # a line that is being written, or was cut off by a kill
        found = [(began + float(row["t"]), float(row["r"]), float(row["l"])) for row in rows]
        return [row for row in found if np.isfinite(row).all()]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
        raise ValueError(f"{file} is not what SB3's Monitor writes: {error}") from error


def by_label(series: Sequence[Series]) -> dict[str, list[Series]]:
    """Group runs by label, in the order in which labels first appear."""
    groups: dict[str, list[Series]] = {}
    for one in series:
        groups.setdefault(one.label, []).append(one)
    return groups
