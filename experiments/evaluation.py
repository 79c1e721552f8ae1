"""Evaluation during training: the same seeded episodes for every agent, and time that does not count as training."""

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
from jepa_agent.experiments.kept_agents import keep_agent
from jepa_agent.experiments.records import BEST_AGENT, RunSpec

EVALUATION_SEED = 10_000


class SeededEpisodes(gym.Wrapper):
    """Seeds every reset with consecutive seeds, so that the k-th episode starts alike for every agent.

    The start of an episode then does not depend on how many random numbers the episodes before it used.

    Args:
        env: Environment to wrap.
        first: Seed of the first episode; each later episode has the seed of the one before plus 1.
    """

    def __init__(self, env: gym.Env, first: int = EVALUATION_SEED):
        super().__init__(env)
        self._next = first

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the next episode.

        Args:
            seed: Seed of this episode; later resets count on from it. The next seed in order by default.
            options: Passed on to the environment.
        """
        seed = self._next if seed is None else seed
        self._next = seed + 1
        return self.env.reset(seed=seed, options=options)


def bounded(env: gym.Env, max_steps: int = 10_000) -> gym.Env:
    """Wrap an environment so that every episode ends and holds finite numbers only.

    Args:
        env: Environment to evaluate on.
        max_steps: Time limit in steps, set only where the environment's spec has none.

    Returns:
        The wrapped environment. Its `step` and `reset` raise ValueError for observations or rewards that are not finite.
    """
    if env.spec is None or env.spec.max_episode_steps is None:
        env = gym.wrappers.TimeLimit(env, max_steps)
    return RefuseBadSteps(env)


@contextmanager
def side_by_side(make: Callable[[], gym.Env], count: int) -> Iterator[list[gym.Env]]:
    """Make ``count`` environments and close them all on leaving the context.

    Args:
        make: Builds one environment.
        count: Number of environments.

    Yields:
        The environments, in the order in which they were made.
    """
    with ExitStack() as opened:
        yield [opened.enter_context(closing(make())) for _ in range(count)]


class TrainingClock:
    """Measures CPU and wall-clock seconds since its construction, without the time spent in ``with clock.paused()``."""

    def __init__(self) -> None:
        self._start = self._now()

    def read(self) -> tuple[float, float]:
        """Return CPU seconds and wall-clock seconds of training so far."""
        cpu, wall = self._now() - self._start
        return float(cpu), float(wall)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop both clocks inside the context."""
        before = self._now()
        try:
            yield
        finally:
            # Moving the start forward leaves the pause out of both clocks at once.
            self._start += self._now() - before

    @staticmethod
    def _now() -> np.ndarray:
        """Return CPU and wall-clock seconds, ``(2,)``; only differences have a meaning."""
        return np.array([time.process_time(), time.perf_counter()])


class Evaluator(BaseCallback):
    """SB3 callback that evaluates every mode deterministically during training and writes the results as JSON lines.

    Every ``spec.eval_freq`` steps each of ``spec.modes`` plays ``spec.n_eval_episodes`` episodes side by side, the k-th with
    seed ``EVALUATION_SEED + k``, and one JSON line per mode is appended to ``path``. Training ends after
    ``spec.n_timesteps``, within a rollout if need be, or once the mean return of every mode is at least ``spec.stop_at``.
    The agent with the best mean return in the first mode is kept beside the results.

    Args:
        spec: The run to evaluate.
        path: File of the evaluations; existing lines are kept.
    """

    def __init__(self, spec: RunSpec, path: Path):
        super().__init__()
        self.spec = spec
        self.path = path
        self.clock = TrainingClock()
        self._next_evaluation = spec.eval_freq
        self._best = -np.inf
        self._opened = ExitStack()

    def _on_training_start(self) -> None:
        # One environment per episode for returns, and a single one to measure the time of a step.
        self._env = self._opened.enter_context(closing(_evaluation_env(self.spec, self.model, self.spec.n_eval_episodes)))
        self._single_env = self._opened.enter_context(closing(_evaluation_env(self.spec, self.model, 1)))
        self.clock = TrainingClock()  # building the model and environments is not training

    def _on_step(self) -> bool:
        # On-policy algorithms look at the number of steps only between rollouts; returning False stops them within one.
        over = self.num_timesteps >= self.spec.n_timesteps
        if self.num_timesteps < self._next_evaluation and not over:
            return True
        # Steps advance by n_envs, which may pass several multiples of eval_freq: count on from the present step.
        self._next_evaluation = (self.num_timesteps // self.spec.eval_freq + 1) * self.spec.eval_freq
        cpu, wall = self.clock.read()
        with self.clock.paused():
            means = [self._evaluate(mode, cpu, wall) for mode in self.spec.modes]
            if means[0] > self._best:
                self._best = means[0]
                keep_agent(self.model, self.path.with_name(BEST_AGENT))
        solved = self.spec.stop_at is not None and min(means) >= self.spec.stop_at
        return not (over or solved)

    def _on_training_end(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the environments; where training raises, SB3 does not call `_on_training_end`."""
        self._opened.close()

    def _evaluate(self, mode: str, cpu: float, wall: float) -> float:
        """Evaluate one mode, append its line to the file, and return the mean return."""
        # Same seeds at every evaluation, and the statistics that training normalises observations by.
        for env in (self._env, self._single_env):
            env.seed(EVALUATION_SEED)
            if isinstance(env, VecNormalize):
                sync_envs_normalization(self.training_env, env)
        with _in_mode(self.model, mode):
            returns, _ = evaluate_policy(
                self.model, self._env, self.spec.n_eval_episodes, deterministic=True, return_episode_rewards=True
            )
            milliseconds = milliseconds_per_step(self.model, self._single_env)
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
        # Opened for each line: a run that is killed keeps all evaluations but the one being written.
        with self.path.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        return mean


def milliseconds_per_step(model: BaseAlgorithm, env: VecEnv, steps: int = 200) -> float:
    """Measure the CPU time of a step: the agent's decision and the environment's step together.

    Args:
        model: Agent to measure; acts deterministically.
        env: A VecEnv of one environment, which is reset first.
        steps: Number of steps to average over.

    Returns:
        Mean CPU milliseconds per step.
    """
    obs, state, starts = env.reset(), None, np.ones(1, dtype=bool)
    began = time.process_time()
    for _ in range(steps):
        actions, state = model.predict(obs, state, starts, deterministic=True)  # type: ignore[arg-type]
        obs, _, starts, _ = env.step(actions)
    return 1000.0 * (time.process_time() - began) / steps


def _evaluation_env(spec: RunSpec, model: BaseAlgorithm, n_envs: int) -> VecEnv:
    """Make a VecEnv of ``n_envs`` seeded environments normalised like the model's. Planning for all of them is one batch."""

    def make() -> gym.Env:
        """Make one environment with finite episodes, seeded resets and SB3's Monitor."""
        return Monitor(SeededEpisodes(bounded(gym.make(spec.env, **spec.env_kwargs))))

    env: VecEnv = DummyVecEnv([make] * n_envs)
    normalizer = model.get_vec_normalize_env()
    if normalizer is None:
        return env
    # Rewards are not normalised: returns are compared with thresholds in the environment's own units.
    clip_obs, norm_obs = normalizer.clip_obs, normalizer.norm_obs
    return VecNormalize(env, training=False, norm_obs=norm_obs, norm_reward=False, clip_obs=clip_obs)


@contextmanager
def _in_mode(model: Any, mode: str) -> Iterator[None]:
    """Switch the model to ``mode`` inside the context and back afterwards; a baseline's only mode, "policy", is a no-op."""
    if mode == "policy":
        yield
        return
    # The switch object is restored, not only its name: an adaptive switch holds state that training goes on with.
    before = model.policy.mode_switch, model.mode
    model.set_mode(mode)
    try:
        yield
    finally:
        model.policy.mode_switch, model.mode = before
