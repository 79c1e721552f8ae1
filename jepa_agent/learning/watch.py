"""Latents watched while the agent learns: measures for the log, and a warning when collapse begins."""

from __future__ import annotations

import warnings
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback, EventCallback
from stable_baselines3.common.type_aliases import MaybeCallback

from jepa_agent.learning.diagnostics import latent_health, signs_of_collapse
from jepa_agent.model.world_model import WorldModel
from jepa_agent.types import Observations

_LEARNS_ACTIONS = 200  # updates, before which a predictor may not have learned yet what actions do
_WINDOW = 3  # times the horizon that the model is trained to imagine


class LatentCallback(BaseCallback):
    """Logs `latent_health` under ``latent/`` at regular intervals, and warns once of each kind of collapse that begins.

    `JEPA.learn` adds one with these defaults unless it is given one. ``latent/collapse`` counts the kinds that have been
    warned of; `signs_of_collapse` says what they are. The windows are spread evenly over the replay buffer and nothing is
    drawn at random, so that training is the same, to the last bit, without it. Pairs of observations from before learning
    are kept, and met again at every measurement.

    Args:
        freq: Environment steps between two measurements; 0 measures never.
        batch_size: Windows of stored transitions per measurement.

    Attributes:
        best: The highest value of each measure since learning began.

    Raises:
        ValueError: ``freq`` is below 0 or ``batch_size`` below 2; at the start of training also if the agent is not a JEPA
            agent.
    """

    def __init__(self, freq: int = 250, batch_size: int = 256):
        super().__init__()
        if freq < 0:
            raise ValueError(f"freq must be at least 1, or 0 to measure never, got {freq}")
        if batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, got {batch_size}")
        self.freq, self.batch_size = freq, batch_size
        self.best: dict[str, float] = {}
        self._told: set[str] = set()
        self._kept: Observations | None = None
        self._measured = 0

    def __getstate__(self) -> dict[str, Any]:
        """What a copy of the agent takes along: not the variables of a rollout, among which are modules."""
        return {**vars(self), "locals": {}, "globals": {}}

    def _init_callback(self) -> None:
        """Refuse agents that have no latents."""
        if not isinstance(getattr(self.model, "world_model", None), WorldModel):
            raise ValueError(f"LatentCallback is for JEPA, got {type(self.model).__name__}")

    def _on_training_start(self) -> None:
        """Count from the present step; a run that counts anew is judged anew."""
        self._measured = self.num_timesteps
        if not self.num_timesteps:
            self.best, self._told, self._kept = {}, set(), None

    def _on_step(self) -> bool:
        """Measure if a multiple of ``freq`` has been passed since; a resumed run measures at the same steps."""
        model: Any = self.model
        if self.freq and self.num_timesteps // self.freq > self._measured // self.freq and model.replay_buffer.size() > 1:
            self._measured = self.num_timesteps
            self.measure()
        return True

    def measure(self) -> dict[str, float]:
        """Log the measures as they are now, and warn of what they are signs of.

        `learn` calls it at every ``freq`` steps; beside `JEPA.learn_offline` it is called by hand, after ``init_callback``.
        The replay buffer must hold two steps at least.

        Returns:
            What `latent_health` returned.
        """
        model: Any = self.model
        buffer, past, norm = model.replay_buffer, model.world_model.past_size, model.get_vec_normalize_env()
        ages, envs = buffer.spread(self.batch_size)
        batch = buffer.window(ages, envs, _WINDOW * model.settings.train_horizon, norm, past)
        learning = self._updates() > 0
        if self._kept is None or not learning:
            self._kept = batch.obs[batch.mask[:, 0] > 0, :2]
        measures = latent_health(model.world_model, batch, self._kept)
        if learning:  # what an untrained network shows is no measure of what is lost
            self._warn(measures)
            self.best = {name: max(value, self.best.get(name, value)) for name, value in {**self.best, **measures}.items()}
        for name, value in {**measures, "collapse": len(self._told)}.items():
            self.logger.record(f"latent/{name}", value)
        return measures

    def _warn(self, measures: dict[str, float]) -> None:
        """Warn of what measures are signs of, once of each kind."""
        for kind, sign in signs_of_collapse(measures, self.best).items():
            early = kind == "actions" and self._updates() < _LEARNS_ACTIONS
            if kind not in self._told and not early:
                self._told.add(kind)
                when = f"step {self.num_timesteps}" if self.num_timesteps else f"update {self._updates():,}"
                warnings.warn(f"collapse begins at {when}: {sign}", stacklevel=2)

    def _updates(self) -> int:
        """How many updates the world model has had."""
        model: Any = self.model
        return int(model._n_updates + model._n_representation_updates)


def with_latents_watched(callback: MaybeCallback, watch: LatentCallback) -> list[BaseCallback]:
    """A user's callbacks, and ``watch`` unless they have one of its kind.

    Args:
        callback: What `learn` takes: a callback, a list of them, a function, or None.
        watch: To be added.
    """
    if callback is None:
        return [watch]
    given = callback if isinstance(callback, list) else [callback]
    made = [one if isinstance(one, BaseCallback) else ConvertCallback(one) for one in given]
    return made if any(map(_watches, made)) else [*made, watch]


def _watches(callback: BaseCallback | None) -> bool:
    """Whether a callback is, or calls, a `LatentCallback`."""
    if isinstance(callback, CallbackList):
        return any(map(_watches, callback.callbacks))
    if isinstance(callback, EventCallback):
        return _watches(callback.callback)
    return isinstance(callback, LatentCallback)
