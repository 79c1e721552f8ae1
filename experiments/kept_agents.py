"""Agents that a comparison keeps: a file of SB3's, and beside it what observations were normalised by, without pickle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd

from jepa_agent.persistence.archive import replacing
from jepa_agent.persistence.plain_data import read_npz

_KEPT = ("mean", "var", "count")


def statistics_file(agent: Path) -> Path:
    """Return the file that holds what the observations of a saved agent are normalised by, ``best_model.npz`` beside
    ``best_model.zip``."""
    return agent.with_suffix(".npz")


def keep_agent(model: BaseAlgorithm, path: Path) -> None:
    """Save an agent, and the statistics of its observations if it is trained under a `VecNormalize` that normalises them.

    Args:
        model: The agent.
        path: Its file.
    """
    model.save(path)
    moments = _moments(model)
    if moments:
        columns = {f"{part}/{name}": np.asarray(getattr(own, name)) for part, own in moments.items() for name in _KEPT}
        with replacing(statistics_file(path)) as file:
            np.savez(file, **columns)  # type: ignore[arg-type]


def restore_agent(model: BaseAlgorithm, path: Path, device: str) -> None:
    """Load what `keep_agent` saved; only weights and numbers are read, nothing that SB3 pickles.

    Args:
        model: Built as the saved one was, with its environments.
        path: The agent's file.
        device: Where the networks go.

    Raises:
        ValueError: The statistics are missing or do not fit. For an agent's file that is damaged SB3 raises many kinds.
    """
    model.set_parameters(str(path), device=device)
    moments = _moments(model)
    if not moments:
        return
    file = statistics_file(path)
    if not file.is_file():
        raise ValueError(
            f"it was trained on normalised observations, and {file.name}, which would hold their statistics, is not there: "
            "comparisons keep it since 0.2.0, so run this one again"
        )
    found = read_npz(file)
    for part, own in moments.items():
        for name in _KEPT:
            value, expected = found.get(f"{part}/{name}"), np.shape(getattr(own, name))
            if value is None or value.shape != expected or not np.isfinite(value).all():
                raise ValueError(f"{file.name}: expected finite numbers {expected} as {part}/{name}, found {value!r}")
            setattr(own, name, value.astype(np.float64) if expected else float(value))


def _moments(model: BaseAlgorithm) -> dict[str, RunningMeanStd]:
    """Return the running means and variances of normalised observations by their part; none if they are not normalised."""
    normalizer = model.get_vec_normalize_env()
    if normalizer is None or not normalizer.norm_obs:
        return {}
    return normalizer.obs_rms if isinstance(normalizer.obs_rms, dict) else {"observation": normalizer.obs_rms}
