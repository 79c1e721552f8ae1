"""Where a study's runs were done and with what: processors, versions, settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jepa_agent.experiments.records import AGENT, RESULT, RunSpec

RunKey = tuple[str, str, int]
"""Environment, algorithm and seed."""


def results_of(specs: Sequence[RunSpec], folder: Path) -> dict[RunKey, dict[str, Any]]:
    """What finished runs left of themselves, by run."""
    return {key(spec): json.loads((spec.folder(folder) / RESULT).read_text()) for spec in specs}


def key(spec: RunSpec) -> RunKey:
    """What tells a run of a study from the others."""
    return spec.env, spec.algorithm, spec.seed


def machines(results: dict[RunKey, dict[str, Any]]) -> list[str]:
    """Processors and versions behind the runs, each combination once, with the runs it did."""
    found: dict[str, dict[str, int]] = {}
    for (env, algorithm, _), result in results.items():
        versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        counts = found.setdefault(f"{result['cpu']}; {versions}", {})
        agent = f"{algorithm} in {env}"
        counts[agent] = counts.get(agent, 0) + 1
    return [f"{machine}: {'; '.join(f'{who}, n={n}' for who, n in done.items())}" for machine, done in found.items()]


def on_several_processors(results: dict[RunKey, dict[str, Any]]) -> list[str]:
    """Environments whose runs were not all done on the same kind of processor."""
    found: dict[str, set[str]] = {}
    for (env, _, _), result in results.items():
        found.setdefault(env, set()).add(result["cpu"])
    return [env for env, processors in found.items() if len(processors) > 1]


def with_several_settings(results: dict[RunKey, dict[str, Any]]) -> list[str]:
    """Environments where runs of JEPA's had not the same settings, as far as they were recorded: defaults may have changed
    between them."""
    found: dict[str, set[str]] = {}
    for (env, algorithm, _), result in results.items():
        if algorithm == AGENT and "settings" in result:
            found.setdefault(env, set()).add(json.dumps(result["settings"], sort_keys=True))
    return [env for env, settings in found.items() if len(settings) > 1]


def unrecorded(results: dict[RunKey, dict[str, Any]]) -> int:
    """How many of JEPA's runs did not record their settings, as those of earlier versions."""
    return sum(algorithm == AGENT and "settings" not in result for (_, algorithm, _), result in results.items())
