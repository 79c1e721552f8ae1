"""Provenance of a study's runs: processors, versions and settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jepa_agent.experiments.records import AGENT, RESULT, RunSpec

RunKey = tuple[str, str, int]
"""Environment, algorithm and seed."""


def results_of(specs: Sequence[RunSpec], folder: Path) -> dict[RunKey, dict[str, Any]]:
    """Read the result files of finished runs.

    Args:
        specs: Finished runs.
        folder: The study's folder.

    Returns:
        Contents of ``result.json`` by environment, algorithm and seed.
    """
    return {key(spec): json.loads((spec.folder(folder) / RESULT).read_text()) for spec in specs}


def key(spec: RunSpec) -> RunKey:
    """Return environment, algorithm and seed, which identify a run within a study."""
    return spec.env, spec.algorithm, spec.seed


def machines(results: dict[RunKey, dict[str, Any]]) -> list[str]:
    """List the processors and versions that runs were done with.

    Args:
        results: Result files by run.

    Returns:
        A line per combination of processor and versions, with the number of runs by algorithm and environment.
    """
    found: dict[str, dict[str, int]] = {}
    for (env, algorithm, _), result in results.items():
        versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        counts = found.setdefault(f"{result['cpu']}; {versions}", {})
        agent = f"{algorithm} in {env}"
        counts[agent] = counts.get(agent, 0) + 1
    return [f"{machine}: {'; '.join(f'{who}, n={n}' for who, n in done.items())}" for machine, done in found.items()]


def on_several_processors(results: dict[RunKey, dict[str, Any]]) -> list[str]:
    """Return the environments whose runs were done on more than one model of processor.

    Args:
        results: Result files by run.
    """
    found: dict[str, set[str]] = {}
    for (env, _, _), result in results.items():
        # CPU seconds of different processors cannot be compared.
        found.setdefault(env, set()).add(result["cpu"])
    return [env for env, processors in found.items() if len(processors) > 1]


def with_several_instruction_sets(results: dict[RunKey, dict[str, Any]]) -> list[str]:
    """Return the environments whose runs were computed with more than one instruction set, or where some did not record it.

    Args:
        results: Result files by run.
    """
    found: dict[str, set[str | None]] = {}
    for (env, _, _), result in results.items():
        # Trajectories depend on it: the same seed learns another course.
        found.setdefault(env, set()).add(result["versions"].get("instructions"))
    return [env for env, sets in found.items() if len(sets) > 1]


def with_several_settings(results: dict[RunKey, dict[str, Any]]) -> list[str]:
    """Return the environments where runs of JEPA have different recorded settings.

    Versions may differ in their defaults, so equal specs need not mean equal settings.

    Args:
        results: Result files by run; those without settings are ignored.
    """
    found: dict[str, set[str]] = {}
    for (env, algorithm, _), result in results.items():
        if algorithm == AGENT and "settings" in result:
            # Settings are nested dictionaries; as text they can be members of a set.
            found.setdefault(env, set()).add(json.dumps(result["settings"], sort_keys=True))
    return [env for env, settings in found.items() if len(settings) > 1]


def unrecorded(results: dict[RunKey, dict[str, Any]]) -> int:
    """Count JEPA's runs without recorded settings, which earlier versions did not write.

    Args:
        results: Result files by run.
    """
    return sum(algorithm == AGENT and "settings" not in result for (_, algorithm, _), result in results.items())
