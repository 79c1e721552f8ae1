"""Files of a run: its spec, its evaluations and its result, on disk and in memory.

A run's folder holds spec.json, evaluations.jsonl, which grows during training, and result.json once the run has finished.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jepa_agent.persistence.plain_data import parse_json

AGENT = "JEPA"
SPEC, RESULT, EVALUATIONS, LOG = "spec.json", "result.json", "evaluations.jsonl", "log.txt"
BEST_AGENT, LAST_AGENT = "best_model.zip", "last_model.zip"
_COLUMNS = ("step", "returns", "cpu_seconds", "ms_per_step")


def is_agent(algorithm: str) -> bool:
    """Return whether an algorithm is JEPA or a variant of it, JEPA+name, which a study defines by its overrides."""
    return algorithm.partition("+")[0] == AGENT


@dataclass(frozen=True)
class RunSpec:
    """Settings of a training run; equal specs ask for the same run.

    Args:
        algorithm: JEPA, a variant of it as JEPA+name, or the name of a baseline.
        env: Gymnasium id.
        seed: Seed of training.
        n_timesteps: Environment steps, counted over all environments.
        eval_freq: Environment steps between evaluations; the last step is always followed by one.
        n_eval_episodes: Episodes per evaluation and mode.
        modes: Modes in which JEPA is evaluated; a baseline has the single mode "policy".
        env_kwargs: Arguments of the environment; must be JSON.
        overrides: Constructor arguments of the algorithm that replace the defaults; must be JSON.
        stop_at: Training ends when the latest mean return of every mode is at least this; None to train to the end.

    Raises:
        ValueError: A number of steps or episodes is below 1, or there is no mode.
    """

    algorithm: str
    env: str
    seed: int
    n_timesteps: int
    eval_freq: int
    n_eval_episodes: int = 10
    modes: tuple[str, ...] = ("actor", "planner")
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    stop_at: float | None = None

    def __post_init__(self) -> None:
        for name in ("n_timesteps", "eval_freq", "n_eval_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        # Baselines ignore modes, so that a study can give all runs the same.
        modes = tuple(self.modes) if is_agent(self.algorithm) else ("policy",)
        if not modes:
            raise ValueError("modes must name at least one mode")
        object.__setattr__(self, "modes", modes)
        for name in ("env_kwargs", "overrides"):
            # Through JSON and back: a spec then equals the one on disk and shares no object with the caller.
            object.__setattr__(self, name, json.loads(json.dumps(getattr(self, name))))

    def folder(self, root: Path) -> Path:
        """Return the run's folder below ``root``."""
        # Ids may hold slashes and colons, which a file name must not.
        env, algorithm = (re.sub(r"[^\w.-]+", "-", name) for name in (self.env, self.algorithm))
        return root / env / f"{algorithm}-seed{self.seed}"


class Curve(NamedTuple):
    """Results of one mode of a run, at E evaluations."""

    spec: RunSpec
    mode: str
    steps: np.ndarray  # (E,) environment steps
    returns: np.ndarray  # (E, n_eval_episodes) undiscounted returns
    cpu_seconds: np.ndarray  # (E,) CPU seconds of training, evaluations excluded
    ms_per_step: np.ndarray  # (E,) CPU milliseconds per step while evaluating: decision and environment

    @property
    def means(self) -> np.ndarray:
        """The mean return ``(E,)`` of each evaluation."""
        return self.returns.mean(axis=1)


def read_spec(path: Path) -> RunSpec:
    """Read the spec in a spec.json or a result.json.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no valid spec.
    """
    try:
        content = parse_json(path.read_text())
        # A result.json holds the spec under a key, a spec.json is the spec.
        return RunSpec(**content.get("spec", content))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} holds no spec of a run ({error}): remove its folder, and the run is done again") from error


def read_curves(root: Path) -> list[Curve]:
    """Read the curves of all finished runs below a folder.

    Args:
        root: The study's folder.

    Returns:
        A curve per run and mode, in the order of their folders' names.

    Raises:
        ValueError: A file cannot be read; the message names it.
    """
    return [curve for result in sorted(root.rglob(RESULT)) for curve in read_run(result.parent)]


def read_run(folder: Path) -> list[Curve]:
    """Read the curves of a finished run.

    Args:
        folder: Folder of the run.

    Returns:
        A curve per mode.

    Raises:
        ValueError: A file cannot be read; the message names it.
    """
    spec, lines = read_spec(folder / RESULT), folder / EVALUATIONS
    try:
        rows = [parse_json(line) for line in lines.read_text().splitlines()]
        own = {mode: [row for row in rows if row["mode"] == mode] for mode in spec.modes}
        curves = [Curve(spec, mode, *(np.array([row[name] for row in own[mode]]) for name in _COLUMNS)) for mode in own]
        if any(not len(curve.steps) or curve.returns.ndim != 2 or not curve.returns.size for curve in curves):
            raise ValueError("evaluations are missing")
        # numpy makes an object or string array of anything else without complaint.
        if any(column.dtype.kind not in "biuf" for curve in curves for column in curve[2:]):
            raise ValueError("evaluations must be numbers")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{lines} cannot be read ({error}): remove its folder, and the run is done again") from error
    return curves


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically, making its folder where needed: readers see either the old content or all of the new.

    Args:
        path: File to write.
        content: Content, which must be JSON.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    draft.write_text(json.dumps(content, indent=2) + "\n")
    # A rename within a folder is atomic; a kill before it leaves only the draft.
    os.replace(draft, path)


def spec_as_dict(spec: RunSpec) -> dict[str, Any]:
    """Return a spec as a dictionary of JSON types."""
    return {**asdict(spec), "modes": list(spec.modes)}
