"""How well every run did, task by task, as the statistics over tasks take it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import gymnasium as gym
import numpy as np

from jepa_agent.experiments.evaluation import EVALUATION_SEED
from jepa_agent.experiments.figures import name_of
from jepa_agent.experiments.records import AGENT, Curve
from jepa_agent.experiments.statistics import first_reaching, group
from jepa_agent.experiments.study import Study


def random_returns(study: Study, curves: Sequence[Curve]) -> dict[str, float]:
    """Mean return of a random policy in each environment of the curves: the study's word, or measured."""
    tasks = {curve.spec.env: study.tasks[curve.spec.env] for curve in curves}
    return {env: random_return(env, task.env_kwargs) if task.random is None else task.random for env, task in tasks.items()}


def normalised_scores(study: Study, curves: Sequence[Curve], lows: dict[str, float]) -> dict[str, list[np.ndarray]]:
    """By agent, one array of runs per task: the last evaluation, 0 being a random policy, whose returns are ``lows``, and 1
    the threshold.

    Tasks that a random policy solves are left out; ``best baseline`` is, task by task, the one whose runs ended best.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for (env, algorithm, mode), own in group(curves).items():
        task, low = study.tasks[env], lows[env]
        if low >= task.threshold:  # nothing to normalise by: acting at random solves it
            continue
        finals = np.array([curve.means[-1] for curve in own])
        found.setdefault(name_of(algorithm, mode), {})[env] = (finals - low) / (task.threshold - low)
    return _joined(found, np.mean)


def quickness(study: Study, curves: Sequence[Curve]) -> dict[str, list[np.ndarray]]:
    """By agent, one array of runs per task: the steps to the threshold, negated, so that more is better; -inf for never.

    ``best baseline`` is, task by task, the one with the lowest median.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for (env, algorithm, mode), own in group(curves).items():
        steps = [first_reaching(curve.steps, curve.means, study.tasks[env].threshold) for curve in own]
        found.setdefault(name_of(algorithm, mode), {})[env] = np.array([-np.inf if s is None else -s for s in steps])
    return _joined(found, np.median)


def _joined(found: dict[str, dict[str, np.ndarray]], standing: Callable[..., Any]) -> dict[str, list[np.ndarray]]:
    """Agents that ran on every task, by name, and the best baseline of each; tasks on which JEPA has not run yet wait."""
    baselines = {name: tasks for name, tasks in found.items() if not is_ours(name)}
    met = [env for name, tasks in found.items() if is_ours(name) for env in tasks]
    envs = list(dict.fromkeys(met or (env for tasks in found.values() for env in tasks)))
    complete = {name: [tasks[env] for env in envs] for name, tasks in found.items() if set(envs) <= set(tasks)}
    if len(envs) > 1 and all(any(env in tasks for tasks in baselines.values()) for env in envs):
        best = [max((tasks[env] for tasks in baselines.values() if env in tasks), key=standing) for env in envs]
        complete["best baseline"] = best
    return complete


def is_ours(name: str) -> bool:
    """Whether an agent of that name is JEPA in one of its modes."""
    return name.startswith(f"{AGENT} (")


def random_return(env_id: str, env_kwargs: dict[str, Any], episodes: int = 20, longest: int = 1_000) -> float:
    """Mean return of uniformly random actions over seeded episodes, each cut after ``longest`` steps."""
    with closing(gym.make(env_id, **env_kwargs)) as env:
        env.action_space.seed(EVALUATION_SEED)
        total = 0.0
        for episode in range(episodes):
            env.reset(seed=EVALUATION_SEED + episode)
            for _ in range(longest):
                _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
                total += float(reward)
                if terminated or truncated:
                    break
    return total / episodes
