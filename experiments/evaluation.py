"""Evaluating while training, with the same episodes for everyone and off the training clock."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, sync_envs_normalization

from jepa_agent.environments.guards import RefuseBadSteps
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


def bounded(env: gym.Env, max_steps: int = 10_000) -> gym.Env:
    """The environment with a time limit, if it has none: an episode that never ends would never be evaluated. Nor is one
    whose observations or rewards are not finite, which is a ``ValueError``."""
    if env.spec is None or env.spec.max_episode_steps is None:
        env = gym.wrappers.TimeLimit(env, max_steps)
    return RefuseBadSteps(env)


@contextmanager
def side_by_side(make: Callable[[], gym.Env], count: int) -> Iterator[list[gym.Env]]:
    """So many environments, all closed in the end."""
    with ExitStack() as opened:
        yield [opened.enter_context(closing(make())) for _ in range(count)]


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
    """Every ``spec.eval_freq`` steps plays each mode deterministically and appends a JSON line per mode to ``path``. Its
    episodes are played side by side, the k-th begun by ``EVALUATION_SEED + k``.

    It ends training at ``spec.n_timesteps``, within a rollout if need be, or when ``spec.stop_at`` is reached.
    """

    def __init__(self, spec: RunSpec, path: Path):
        super().__init__()
        self.spec = spec
        self.path = path
        self.clock = TrainingClock()
        self._due = spec.eval_freq
        self._opened = ExitStack()

    def _on_training_start(self) -> None:
        self._env = self._opened.enter_context(closing(_evaluation_env(self.spec, self.model, self.spec.n_eval_episodes)))
        self._alone = self._opened.enter_context(closing(_evaluation_env(self.spec, self.model, 1)))
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
        self.close()

    def close(self) -> None:
        """Close the environments, which training that fails leaves open."""
        self._opened.close()

    def _evaluate(self, mode: str, cpu: float, wall: float) -> float:
        for env in (self._env, self._alone):
            env.seed(EVALUATION_SEED)
            if isinstance(env, VecNormalize):
                sync_envs_normalization(self.training_env, env)
        with _acting(self.model, mode):
            returns, _ = evaluate_policy(
                self.model, self._env, self.spec.n_eval_episodes, deterministic=True, return_episode_rewards=True
            )
            milliseconds = milliseconds_per_step(self.model, self._alone)
        assert isinstance(returns, list)
        mean = float(np.mean(returns))
        row = {
            "step": self.num_timesteps,
            "mode": mode,
            "returns": [float(value) for value in returns],
            "mean": mean,
            "cpu_seconds": cpu,
            "wall_seconds": wall,
            "ms_per_step": milliseconds,
        }
        with self.path.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        return mean


def milliseconds_per_step(model: BaseAlgorithm, env: VecEnv, steps: int = 200) -> float:
    """CPU time of a step on one environment alone, deciding and the environment's own, averaged over the first ``steps``."""
    obs, state, starts = env.reset(), None, np.ones(1, dtype=bool)
    began = time.process_time()
    for _ in range(steps):
        actions, state = model.predict(obs, state, starts, deterministic=True)  # type: ignore[arg-type]
        obs, _, starts, _ = env.step(actions)
    return 1000.0 * (time.process_time() - began) / steps


def _evaluation_env(spec: RunSpec, model: BaseAlgorithm, n_envs: int) -> VecEnv:
    """One episode for each of ``n_envs`` side by side: planning for all of them is one batch."""

    def make() -> gym.Env:
        return Monitor(SeededEpisodes(bounded(gym.make(spec.env, **spec.env_kwargs))))

    env: VecEnv = DummyVecEnv([make] * n_envs)
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
