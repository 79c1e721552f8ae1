"""Callbacks: diagnostics for the log, checkpoints, and evaluations that can be resumed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.vec_env import VecEnv

from jepa_agent.algorithm import JEPA
from jepa_agent.diagnostics import latent_health
from jepa_agent.environments import guard_environments, seed_env
from jepa_agent.plain_data import read_npz


class LatentCallback(BaseCallback):
    """Logs `latent_health` under ``latent/`` every ``freq`` environment steps, on ``batch_size`` stored windows.

    Draws its windows by a generator of its own, so that watching does not change training.
    """

    def __init__(self, freq: int = 500, batch_size: int = 256):
        super().__init__()
        self.freq, self.batch_size = freq, batch_size
        self._next = 0
        self._rng = np.random.default_rng(0)

    def _on_training_start(self) -> None:
        self._next = self.num_timesteps + self.freq

    def _on_step(self) -> bool:
        model = self.model
        assert isinstance(model, JEPA)
        if self.num_timesteps >= self._next and model.replay_buffer.size() > 1:
            self._next = self.num_timesteps + self.freq
            ages = self._rng.integers(0, model.replay_buffer.size(), self.batch_size)
            envs = self._rng.integers(0, model.n_envs, self.batch_size)
            past, norm = model.world_model.past_size, model.get_vec_normalize_env()
            batch = model.replay_buffer.window(ages, envs, model.train_horizon, norm, past)
            for name, value in latent_health(model.world_model, batch).items():
                self.logger.record(f"latent/{name}", value)
        return True


class PeriodicCheckpoint(BaseCallback):
    """Saves the whole run to ``folder`` every ``save_freq`` environment steps, between rollouts, by `save_checkpoint`."""

    def __init__(self, folder: str | Path, save_freq: int, keep_last: int = 1, logs: Iterable[Path] = ()):
        super().__init__()
        if save_freq < 1:
            raise ValueError(f"save_freq must be at least 1, got {save_freq}")
        self.folder, self.save_freq, self.keep_last, self.logs = Path(folder), save_freq, keep_last, tuple(logs)
        self._saved = 0

    def _on_training_start(self) -> None:
        self._saved = self.num_timesteps

    def _on_rollout_start(self) -> None:
        model = self.model
        assert isinstance(model, JEPA)
        if model.num_timesteps // self.save_freq > self._saved // self.save_freq:
            self._saved = model.num_timesteps
            try:
                model.save_checkpoint(self.folder, self.keep_last, self.logs)
            except OSError as error:  # a full disk, a folder that is gone: the next one may succeed
                warnings.warn(f"no checkpoint at step {self._saved}: {error}; training goes on", stacklevel=2)

    def _on_step(self) -> bool:
        return True


class ResumableEvalCallback(EvalCallback):
    """SB3's evaluation for runs that are stopped and resumed: every evaluation plays the same episodes, those from ``seed``
    on; ``evaluations.npz`` in ``log_path`` is replaced as a whole, and a resumed run goes on with it, less what was
    evaluated after the checkpoint."""

    def __init__(self, eval_env: VecEnv, seed: int, log_path: str, eval_freq: int, n_eval_episodes: int, verbose: int = 0):
        super().__init__(
            eval_env,
            n_eval_episodes=n_eval_episodes,
            eval_freq=eval_freq,
            log_path=log_path,
            best_model_save_path=log_path,
            verbose=verbose,
        )
        self.seed = seed
        self._written = Path(f"{self.log_path}.npz")
        self.log_path = str(Path(log_path) / ".evaluations")  # until it is whole

    def _init_callback(self) -> None:
        super()._init_callback()
        guard_environments(self.eval_env)
        self.n_calls = self.model.num_timesteps // self.model.n_envs
        if self.n_calls and self._written.is_file():
            self._recall()

    def _recall(self) -> None:
        try:
            log = read_npz(self._written)
            log["timesteps"], log["results"], log["ep_lengths"]
        except (ValueError, KeyError) as error:
            warnings.warn(f"earlier evaluations are lost: {error}", stacklevel=2)
            return
        kept = log["timesteps"] <= self.model.num_timesteps
        found = {name: column[kept].tolist() for name, column in log.items()}
        self.evaluations_timesteps, self.evaluations_results = found["timesteps"], found["results"]
        self.evaluations_length, self.evaluations_successes = found["ep_lengths"], found.get("successes", [])
        means = [float(np.mean(results)) for results in self.evaluations_results]
        self.best_mean_reward, self.last_mean_reward = max(means, default=-np.inf), (means or [-np.inf])[-1]

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq:
            return True
        seed_env(self.eval_env, self.seed)
        try:
            going_on = super()._on_step()
            if self.log_path is not None:
                os.replace(f"{self.log_path}.npz", self._written)
            return going_on
        except OSError as error:
            warnings.warn(f"evaluations are no longer written: {error}; training goes on", stacklevel=2)
            self.log_path = self.best_model_save_path = None
            return True
