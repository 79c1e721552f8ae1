"""Scores of all runs by environment, in the form that the statistics over environments take."""

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
    """Return the mean return of a random policy in each environment of the curves.

    Args:
        study: Study, whose tasks may give the value; else it is measured.
        curves: Curves of the finished runs.

    Returns:
        Mean returns by environment.
    """
    tasks = {curve.spec.env: study.tasks[curve.spec.env] for curve in curves}
    return {env: random_return(env, task.env_kwargs) if task.random is None else task.random for env, task in tasks.items()}


def normalised_scores(study: Study, curves: Sequence[Curve], lows: dict[str, float]) -> dict[str, list[np.ndarray]]:
    """Normalise the returns of the last evaluation: 0 is a random policy, 1 the threshold.

    Environments where a random policy reaches the threshold are left out.

    Args:
        study: Study, for its thresholds.
        curves: Curves of the finished runs.
        lows: Mean return of a random policy by environment.

    Returns:
        By agent, one array of runs per environment. With several environments, "best baseline" holds for each the runs of
        the baseline with the highest mean score there.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for (env, algorithm, mode), own in group(curves).items():
        task, low = study.tasks[env], lows[env]
        if low >= task.threshold:  # the scale would be zero or negative
            continue
        finals = np.array([curve.means[-1] for curve in own])
        found.setdefault(name_of(algorithm, mode), {})[env] = (finals - low) / (task.threshold - low)
    return _complete_agents(found, np.mean)


def quickness(study: Study, curves: Sequence[Curve]) -> dict[str, list[np.ndarray]]:
    """Return the negative environment steps to the threshold, so that higher is better; -inf for runs that never reached it.

    Args:
        study: Study, for its thresholds.
        curves: Curves of the finished runs.

    Returns:
        By agent, one array of runs per environment. With several environments, "best baseline" holds for each the runs of
        the baseline with the fewest median steps there.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for (env, algorithm, mode), own in group(curves).items():
        # Only ranks of these numbers are used, so infinities do no harm.
        steps = [first_reaching(curve.steps, curve.means, study.tasks[env].threshold) for curve in own]
        found.setdefault(name_of(algorithm, mode), {})[env] = np.array([-np.inf if s is None else -s for s in steps])
    return _complete_agents(found, np.median)


def _complete_agents(found: dict[str, dict[str, np.ndarray]], standing: Callable[..., Any]) -> dict[str, list[np.ndarray]]:
    """Keep the agents that ran in every environment where JEPA has run, and add the best baseline of each environment.

    ``standing`` aggregates an array of runs to the number by which baselines are ranked.
    """
    baselines = {name: tasks for name, tasks in found.items() if not is_ours(name)}
    met = [env for name, tasks in found.items() if is_ours(name) for env in tasks]
    # Statistics over environments need the same environments for all agents.
    envs = list(dict.fromkeys(met or (env for tasks in found.values() for env in tasks)))
    complete = {name: [tasks[env] for env in envs] for name, tasks in found.items() if set(envs) <= set(tasks)}
    if len(envs) > 1 and all(any(env in tasks for tasks in baselines.values()) for env in envs):
        best = [max((tasks[env] for tasks in baselines.values() if env in tasks), key=standing) for env in envs]
        complete["best baseline"] = best
    return complete


def is_ours(name: str) -> bool:
    """Return whether an agent of that name is JEPA in one of its modes; variants do not count."""
    return name.startswith(f"{AGENT} (")


def random_return(env_id: str, env_kwargs: dict[str, Any], episodes: int = 20, longest: int = 1_000) -> float:
    """Measure the mean return of uniformly random actions.

    Args:
        env_id: Gymnasium id.
        env_kwargs: Arguments of the environment.
        episodes: Number of episodes, with fixed seeds.
        longest: Steps after which an episode is cut off.
    """
    with closing(gym.make(env_id, **env_kwargs)) as env:
        # Resets seed the environment; its action space draws from a generator of its own.
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
