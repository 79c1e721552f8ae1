"""Evaluating while training, with the same episodes for everyone and off the training clock."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, sync_envs_normalization

from jepa_agent.experiments.records import RunSpec

EVALUATION_SEED = 10_000


class SeededEpisodes(gym.Wrapper):
    """Seeds episodes one by one from ``first`` on, or from a seed given to `reset`.

    So the k-th episode starts alike for every agent, however many random numbers the episodes before it took.
    """

    def __init__(self, env: gym.Env, first: int = EVALUATION_SEED):
        super().__init__(env)
        self._next = first

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the next episode."""
        seed = self._next if seed is None else seed
        self._next = seed + 1
        return self.env.reset(seed=seed, options=options)


class TrainingClock:
    """CPU and wall-clock seconds since it was made, less those spent inside ``with clock.paused()``."""

    def __init__(self) -> None:
        self._start = self._now()

    def read(self) -> tuple[float, float]:
        """CPU seconds and wall-clock seconds."""
        cpu, wall = self._now() - self._start
        return float(cpu), float(wall)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do something that does not count."""
        before = self._now()
        try:
            yield
        finally:
            self._start += self._now() - before

    @staticmethod
    def _now() -> np.ndarray:
        return np.array([time.process_time(), time.perf_counter()])


class Evaluator(BaseCallback):
    """Every ``spec.eval_freq`` steps plays each mode deterministically and appends a JSON line per mode to ``path``.

    It ends training at ``spec.n_timesteps``, within a rollout if need be, or when ``spec.stop_at`` is reached.
    """

    def __init__(self, spec: RunSpec, path: Path):
        super().__init__()
        self.spec = spec
        self.path = path
        self.clock = TrainingClock()
        self._due = spec.eval_freq

    def _on_training_start(self) -> None:
        self._env = _evaluation_env(self.spec, self.model)
        self.clock = TrainingClock()

    def _on_step(self) -> bool:
        over = self.num_timesteps >= self.spec.n_timesteps
        if self.num_timesteps < self._due and not over:
            return True
        self._due = (self.num_timesteps // self.spec.eval_freq + 1) * self.spec.eval_freq
        cpu, wall = self.clock.read()
        with self.clock.paused():
            means = [self._evaluate(mode, cpu, wall) for mode in self.spec.modes]
        solved = self.spec.stop_at is not None and min(means) >= self.spec.stop_at
        return not (over or solved)

    def _on_training_end(self) -> None:
        self._env.close()

    def _evaluate(self, mode: str, cpu: float, wall: float) -> float:
        self._env.seed(EVALUATION_SEED)
        if isinstance(self._env, VecNormalize):
            sync_envs_normalization(self.training_env, self._env)
        began = time.process_time()
        with _acting(self.model, mode):
            returns, lengths = evaluate_policy(
                self.model, self._env, self.spec.n_eval_episodes, deterministic=True, return_episode_rewards=True
            )
        assert isinstance(returns, list)
        assert isinstance(lengths, list)
        milliseconds = 1000 * (time.process_time() - began)
        mean = float(np.mean(returns))
        row = {
            "step": self.num_timesteps,
            "mode": mode,
            "returns": [float(value) for value in returns],
            "mean": mean,
            "cpu_seconds": cpu,
            "wall_seconds": wall,
            "ms_per_step": milliseconds / sum(lengths),
        }
        with self.path.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        return mean


def _evaluation_env(spec: RunSpec, model: BaseAlgorithm) -> VecEnv:
    env: VecEnv = DummyVecEnv([lambda: Monitor(SeededEpisodes(gym.make(spec.env, **spec.env_kwargs)))])
    normalizer = model.get_vec_normalize_env()
    if normalizer is None:
        return env
    clip_obs, norm_obs = normalizer.clip_obs, normalizer.norm_obs
    return VecNormalize(env, training=False, norm_obs=norm_obs, norm_reward=False, clip_obs=clip_obs)


@contextmanager
def _acting(model: Any, mode: str) -> Iterator[None]:
    """Let ``mode`` act, and afterwards whoever acted before; a baseline's only mode is left as it is."""
    if mode == "policy":
        yield
        return
    before = model.policy.mode_switch, model.mode
    model.set_mode(mode)
    try:
        yield
    finally:
        model.policy.mode_switch, model.mode = before
