"""The search space of rl_zoo3's hyperparameter optimisation (``-optimize``)."""

from __future__ import annotations

from typing import Any

import optuna


def sample_params(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """Sample the hyperparameters of one trial, in ranges around their defaults; the signature is prescribed by rl_zoo3.

    Args:
        trial: Optuna's trial.
        n_actions: Number of dimensions of Box actions; not used.
        n_envs: Number of environments; not used.
        additional_args: Further arguments of rl_zoo3; not used.

    Returns:
        Keyword arguments of `JEPA`.
    """
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "gamma": trial.suggest_categorical("gamma", [0.95, 0.98, 0.99, 0.995]),
        "tau": trial.suggest_float("tau", 0.02, 1.0, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [64, 128, 192, 256]),
        "train_freq": trial.suggest_categorical("train_freq", [1, 2, 4, 8]),
        "n_steps": trial.suggest_int("n_steps", 1, 20),
        "train_horizon": trial.suggest_int("train_horizon", 2, 6),
        "actor_horizon": trial.suggest_int("actor_horizon", 0, 4),
        "plan_pessimism": trial.suggest_float("plan_pessimism", 0.0, 2.0),
    }
