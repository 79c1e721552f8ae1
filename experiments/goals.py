"""Other goals without learning anew: an agent that learned one task is asked for another.

``python -m jepa_agent.experiments.goals`` trains what is missing in its output folder, plays, and draws the figure. Each
result is a file of its own, so that it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from matplotlib.figure import Figure
from stable_baselines3.common.base_class import BaseAlgorithm

from jepa_agent import JEPA
from jepa_agent.envs.goals import CartPosition, PendulumAngle, PendulumSpin
from jepa_agent.experiments.baselines import make_baseline, settings
from jepa_agent.experiments.evaluation import EVALUATION_SEED, side_by_side
from jepa_agent.experiments.figures import COLOURS, LINES
from jepa_agent.experiments.folders import refuse_links
from jepa_agent.experiments.machine import cpu_model, versions
from jepa_agent.objectives.costs import FeatureCost

RANDOM, ASKED, FROZEN = "random actions", "JEPA, asked", "JEPA's actor, frozen"


@dataclass(frozen=True)
class Goal:
    """What is asked for in ``task``, an environment of `jepa_agent.envs.goals`, of agents that learned ``learned``.

    ``reward`` keeps the score; ``cost`` is what the planner is asked to keep low.
    """

    name: str
    learned: str
    task: str
    reward: Callable[[Any], Any]
    shown: Callable[[np.ndarray], np.ndarray]
    asked: float
    label: str
    seconds_per_step: float
    cost: Callable[[Any], Any]


def _negative(reward: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda obs: -reward(obs)


GOALS = (
    Goal(
        "angle",
        "Pendulum-v1",
        "JEPA/PendulumAngle-v0",
        PendulumAngle(),
        lambda obs: np.arctan2(obs[..., 1], obs[..., 0]),
        PendulumAngle().angle,
        "angle from upright, rad",
        0.05,
        _negative(PendulumAngle()),
    ),
    Goal(
        "spin",
        "Pendulum-v1",
        "JEPA/PendulumSpin-v0",
        PendulumSpin(),
        lambda obs: obs[..., 2],
        PendulumSpin().speed,
        "rate of rotation, rad/s",
        0.05,
        _negative(PendulumSpin()),
    ),
    Goal(
        "position",
        "CartPole-v1",
        "JEPA/CartPosition-v0",
        CartPosition(),
        lambda obs: obs[..., 0],
        CartPosition().position,
        "position of the cart, m",
        0.02,
        # A cart gets there in a hundred steps only: the squared distance shows the way where the reward is flat, and the
        # squared speed keeps from going past.
        lambda obs: (obs[..., 0] - CartPosition().position) ** 2 + 0.05 * obs[..., 1] ** 2,
    ),
)
# A baseline for each learned task, and the steps that it and JEPA learn for, on that task or on a goal from scratch.
BASELINE = {"Pendulum-v1": "SAC", "CartPole-v1": "DQN"}
STEPS = {
    "JEPA": {"Pendulum-v1": 3_000, "CartPole-v1": 6_000},
    "SAC": {"Pendulum-v1": 6_000},
    "DQN": {"CartPole-v1": 50_000},
}


def learn(algorithm: str, goal: Goal, env: str, seed: int) -> BaseAlgorithm:
    """An agent trained on ``env``: the learned task, or the goal from scratch. Settings are those of the learned task."""
    steps = STEPS[algorithm][goal.learned]
    if algorithm == "JEPA":
        return JEPA("MlpPolicy", env, seed=seed, device="cpu").learn(steps)
    return make_baseline(algorithm, env, seed, overrides=settings(algorithm, goal.learned)).learn(steps)


def play(act: Callable[..., Any], task: str, episodes: int) -> tuple[list[float], np.ndarray]:
    """Returns of episodes with the same starts for everyone, played side by side, and what the first one looked like: its
    observations ``(T+1, *obs_shape)``. ``act`` is an agent's `predict`."""
    with side_by_side(lambda: gym.make(task), episodes) as envs:
        return _play(act, envs)


def _play(act: Callable[..., Any], envs: list[gym.Env]) -> tuple[list[float], np.ndarray]:
    episodes = len(envs)
    obs = np.stack([env.reset(seed=EVALUATION_SEED + k)[0] for k, env in enumerate(envs)])
    returns, playing, state, seen = np.zeros(episodes), np.ones(episodes, dtype=bool), None, [obs[0].copy()]
    while playing.any():
        actions, state = act(obs, state, deterministic=True)
        for k in np.flatnonzero(playing):
            obs[k], reward, terminated, truncated, _ = envs[k].step(actions[k])
            returns[k] += float(reward)
            playing[k] = not (terminated or truncated)
            if k == 0:
                seen.append(obs[0].copy())
    return returns.tolist(), np.stack(seen)


def at_random(task: str, seed: int) -> Callable[..., Any]:
    """The `predict` of an agent that draws its actions."""
    with closing(gym.make(task)) as env:
        space = env.action_space
    space.seed(seed)
    return lambda obs, state, deterministic: (np.stack([space.sample() for _ in obs]), None)


class Results:
    """A folder of results, a file each: ``goal/agent-seed.json``."""

    def __init__(self, folder: Path, episodes: int, command: str):
        self.folder, self.episodes, self.command = folder, episodes, command

    def path(self, goal: Goal, agent: str, seed: int) -> Path:
        """Where a result lies."""
        return self.folder / goal.name / f"{re.sub('[^A-Za-z ]', '', agent).replace(' ', '_')}-seed{seed}.json"

    def missing(self, goals: Sequence[Goal], agents: Sequence[str], seed: int) -> list[tuple[Goal, str]]:
        """What has not been measured yet."""
        return [(goal, agent) for goal in goals for agent in agents if not self.path(goal, agent, seed).exists()]

    def measure(self, goal: Goal, agent: str, seed: int, act: Callable[..., Any], **more: Any) -> None:
        """Play and write what came of it."""
        began = time.process_time()
        returns, seen = play(act, goal.task, self.episodes)
        result = {
            "goal": goal.name,
            "task": goal.task,
            "agent": agent,
            "seed": seed,
            "returns": [round(value, 3) for value in returns],
            "mean": float(np.mean(returns)),
            "shown": [round(float(value), 4) for value in goal.shown(seen)],
            "cpu_seconds": round(time.process_time() - began, 1),
            "command": self.command,
            "versions": versions(),
            "cpu": cpu_model(),
            **more,
        }
        path = self.path(goal, agent, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")

    def read(self, goal: Goal, agent: str) -> list[dict[str, Any]]:
        """All seeds of an agent."""
        files = sorted(self.path(goal, agent, 0).parent.glob(self.path(goal, agent, 0).name.replace("seed0", "seed*")))
        return [json.loads(file.read_text()) for file in files]


def run(results: Results, goals: Sequence[Goal], seeds: Sequence[int]) -> None:
    """Train and play what is missing."""
    for seed in seeds:
        for learned in dict.fromkeys(goal.learned for goal in goals):
            own, baseline = [goal for goal in goals if goal.learned == learned], BASELINE[learned]
            for goal, agent in results.missing(own, [RANDOM], seed):
                results.measure(goal, agent, seed, at_random(goal.task, seed))
            if results.missing(own, [ASKED, FROZEN], seed):
                model = learn("JEPA", own[0], learned, seed)
                assert isinstance(model, JEPA)
                for goal, agent in results.missing(own, [ASKED], seed):
                    with model.using_cost(FeatureCost(goal.cost)):
                        more = {"steps": STEPS["JEPA"][learned], "planner": str(model.policy.planner)}
                        results.measure(goal, agent, seed, model.predict, **more)
                model.set_mode("actor")
                for goal, agent in results.missing(own, [FROZEN], seed):
                    results.measure(goal, agent, seed, model.predict, steps=STEPS["JEPA"][learned])
            if results.missing(own, [frozen(baseline)], seed):
                other = learn(baseline, own[0], learned, seed)
                for goal, agent in results.missing(own, [frozen(baseline)], seed):
                    results.measure(goal, agent, seed, other.predict, steps=STEPS[baseline][learned])
            for algorithm in ("JEPA", baseline):
                for goal, agent in results.missing(own, [from_scratch(algorithm)], seed):
                    taught = learn(algorithm, goal, goal.task, seed)
                    results.measure(goal, agent, seed, taught.predict, steps=STEPS[algorithm][learned])


def frozen(algorithm: str) -> str:
    """The name of a baseline that learned the learned task."""
    return f"{algorithm}, frozen"


def from_scratch(algorithm: str) -> str:
    """The name of an agent that learned the goal."""
    return f"{algorithm} from scratch"


def table(results: Results, goals: Sequence[Goal]) -> str:
    """Mean returns, and the share of what the better agent from scratch gains over random actions that JEPA reaches."""
    names = ("goal", "runs", RANDOM, FROZEN, "baseline, frozen", ASKED, "from scratch", "share of it")
    rows: list[tuple[str, ...]] = [names, ("---", *["---:"] * 7)]
    for goal in goals:
        baseline = BASELINE[goal.learned]
        agents = (RANDOM, FROZEN, frozen(baseline), ASKED, from_scratch("JEPA"), from_scratch(baseline))
        means = {agent: float(np.mean([r["mean"] for r in results.read(goal, agent)] or [np.nan])) for agent in agents}
        best = max(from_scratch("JEPA"), from_scratch(baseline), key=lambda name: np.nan_to_num(means[name], nan=-np.inf))
        share = (means[ASKED] - means[RANDOM]) / (means[best] - means[RANDOM])
        shown = (f"{means[agent]:.0f}" for agent in agents[:4])
        first = f"{goal.label}: {goal.asked:g}", str(len(results.read(goal, ASKED)))
        rows.append((*first, *shown, f"{means[best]:.0f} ({best.split()[0]})", f"{share:.0%}"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def draw(results: Results, goals: Sequence[Goal], path: Path, seed: int) -> None:
    """What is asked for and what happened in the first episode, a panel per goal."""
    figure = Figure(figsize=(4.2 * len(goals), 3.8), layout="constrained")
    for axes, goal in zip(np.atleast_1d(figure.subplots(1, len(goals))), goals, strict=True):
        for index, agent in enumerate((ASKED, FROZEN, frozen(BASELINE[goal.learned]))):
            shown = json.loads(results.path(goal, agent, seed).read_text())["shown"]
            label = agent.replace(BASELINE[goal.learned], "SAC or DQN")
            x = goal.seconds_per_step * np.arange(len(shown))
            axes.plot(x, shown, color=COLOURS[index], linestyle=LINES[index], linewidth=1.6, label=label)
        axes.axhline(goal.asked, color="0.4", linewidth=0.9, linestyle=(0, (4, 4)), label="asked for")
        axes.set_title(f"{goal.learned}: {goal.name}", fontsize=10)
        axes.set_xlabel("seconds")
        axes.set_ylabel(goal.label)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, handlelength=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write ``table.md`` and ``figure.png``."""
    parser = argparse.ArgumentParser(prog="python -m jepa_agent.experiments.goals", description="Other goals, no learning.")
    parser.add_argument("--output", type=Path, default=Path("experiments/results/goals"), help="folder of the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="seeds of training")
    parser.add_argument("--goals", nargs="+", choices=[goal.name for goal in GOALS], default=[goal.name for goal in GOALS])
    parser.add_argument("--episodes", type=int, default=10, help="episodes per agent and goal")
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = parser.parse_args(arguments)
    refuse_links(options.output)
    goals = [goal for goal in GOALS if goal.name in options.goals]
    results = Results(options.output, options.episodes, shlex.join(["python -m jepa_agent.experiments.goals", *arguments]))
    run(results, goals, options.seeds)
    (options.output / "table.md").write_text(table(results, goals) + "\n")
    draw(results, goals, options.output / "figure.png", options.seeds[0])


if __name__ == "__main__":
    main()
