"""Callbacks that write diagnostics to the log."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from jepa_agent.algorithm import JEPA
from jepa_agent.diagnostics import latent_health


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
            batch = model.replay_buffer.window(ages, envs, model.train_horizon, model.get_vec_normalize_env())
            for name, value in latent_health(model.world_model, batch).items():
                self.logger.record(f"latent/{name}", value)
        return True
