"""Zero-shot goals: agents that learned one task are scored on another task in the same environment.

``python -m jepa_agent.experiments.goals`` trains and plays what is missing in its output folder and draws the figure. Each
result is a file of its own, so an interrupted run can be continued.
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
from stable_baselines3.common.base_class import BaseAlgorithm

from jepa_agent import JEPA
from jepa_agent.envs.goals import CartPosition, PendulumAngle, PendulumSpin
from jepa_agent.experiments.baselines import make_baseline, settings
from jepa_agent.experiments.evaluation import EVALUATION_SEED, side_by_side
from jepa_agent.experiments.folders import refuse_links
from jepa_agent.experiments.machine import cpu_model, versions
from jepa_agent.experiments.records import write_json
from jepa_agent.extras import needs
from jepa_agent.objectives.costs import FeatureCost
from jepa_agent.pictures.looks import LOOKS

with needs("compare"):
    pass

RANDOM, ASKED, FROZEN = "random actions", "JEPA, asked", "JEPA's actor, frozen"
_BASELINES = "SAC or DQN"


@dataclass(frozen=True)
class Goal:
    """A task to score agents on that have learned another task in the same environment.

    Args:
        name: Name of the goal, and of its folder of results.
        learned: Gymnasium id of the task that agents have learned.
        task: Gymnasium id of the environment with the goal's reward, from `jepa_agent.envs.goals`.
        reward: Reward of ``task`` as a function of observations ``(..., obs_dim)``.
        shown: Returns the quantity to plot, ``(...)``, from observations ``(..., obs_dim)``.
        asked: Value of that quantity that the goal asks for.
        label: Name and unit of that quantity.
        seconds_per_step: Simulated seconds of an environment step.
        cost: Cost that the planner minimises, as a function of observations; need not be the negative reward.
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
    """Return the cost that belongs to a reward."""
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
        # The cart needs about a hundred steps to get there. The reward is flat at a distance, so the cost is the squared
        # distance instead, with a squared speed that keeps the cart from overshooting.
        lambda obs: (obs[..., 0] - CartPosition().position) ** 2 + 0.05 * obs[..., 1] ** 2,
    ),
)
# The baseline of each learned task, and environment steps of training, on that task or from scratch on a goal.
BASELINE = {"Pendulum-v1": "SAC", "CartPole-v1": "DQN"}
STEPS = {
    "JEPA": {"Pendulum-v1": 3_000, "CartPole-v1": 6_000},
    "SAC": {"Pendulum-v1": 6_000},
    "DQN": {"CartPole-v1": 50_000},
}


def learn(algorithm: str, goal: Goal, env: str, seed: int) -> BaseAlgorithm:
    """Train an agent.

    Args:
        algorithm: "JEPA" or the baseline of the goal's learned task.
        goal: Goal whose learned task decides the settings and the number of steps.
        env: Gymnasium id to train on: the learned task, or the goal's own for an agent from scratch.
        seed: Seed of training.
    """
    steps = STEPS[algorithm][goal.learned]
    if algorithm == "JEPA":
        return JEPA("MlpPolicy", env, seed=seed, device="cpu").learn(steps)
    return make_baseline(algorithm, env, seed, overrides=settings(algorithm, goal.learned)).learn(steps)


def play(act: Callable[..., Any], task: str, episodes: int) -> tuple[list[float], np.ndarray]:
    """Play evaluation episodes side by side, with the same starts for every agent.

    Args:
        act: An agent's `predict`.
        task: Gymnasium id of the environment.
        episodes: Number of episodes.

    Returns:
        The return of each episode, and the observations ``(T+1, *obs_shape)`` of the first one.
    """
    with side_by_side(lambda: gym.make(task), episodes) as envs:
        return _play(act, envs)


def _play(act: Callable[..., Any], envs: list[gym.Env]) -> tuple[list[float], np.ndarray]:
    """Play one episode in each environment, deterministically."""
    episodes = len(envs)
    obs = np.stack([env.reset(seed=EVALUATION_SEED + k)[0] for k, env in enumerate(envs)])
    returns, playing, state, seen = np.zeros(episodes), np.ones(episodes, dtype=bool), None, [obs[0].copy()]
    while playing.any():
        # Ended episodes stay in the batch, where their actions are ignored: the state keeps its number of rows.
        actions, state = act(obs, state, deterministic=True)
        for k in np.flatnonzero(playing):
            obs[k], reward, terminated, truncated, _ = envs[k].step(actions[k])
            returns[k] += float(reward)
            playing[k] = not (terminated or truncated)
            if k == 0:
                seen.append(obs[0].copy())
    return returns.tolist(), np.stack(seen)


def at_random(task: str, seed: int) -> Callable[..., Any]:
    """Return a `predict` function that samples uniformly random actions.

    Args:
        task: Gymnasium id, for its action space.
        seed: Seed of the action space.
    """
    with closing(gym.make(task)) as env:
        space = env.action_space
    space.seed(seed)
    return lambda obs, state, deterministic: (np.stack([space.sample() for _ in obs]), None)


class Results:
    """A folder of results with a file ``goal/agent-seedN.json`` for each.

    Args:
        folder: Folder of the results.
        episodes: Episodes per agent and goal.
        command: Shell command that reproduces the results, stored in each.
    """

    def __init__(self, folder: Path, episodes: int, command: str):
        self.folder, self.episodes, self.command = folder, episodes, command

    def path(self, goal: Goal, agent: str, seed: int) -> Path:
        """Return the file of a result."""
        return self.folder / goal.name / f"{re.sub('[^A-Za-z ]', '', agent).replace(' ', '_')}-seed{seed}.json"

    def missing(self, goals: Sequence[Goal], agents: Sequence[str], seed: int) -> list[tuple[Goal, str]]:
        """Return the pairs of goal and agent that have no result for a seed yet."""
        return [(goal, agent) for goal in goals for agent in agents if not self.path(goal, agent, seed).exists()]

    def measure(self, goal: Goal, agent: str, seed: int, act: Callable[..., Any], **more: Any) -> None:
        """Play an agent on a goal and write the result.

        Args:
            goal: Goal to play.
            agent: Name of the agent in results and tables.
            seed: Seed that the agent was trained with.
            act: The agent's `predict`.
            more: Further entries of the result's file.
        """
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
        write_json(path, result)

    def read(self, goal: Goal, agent: str) -> list[dict[str, Any]]:
        """Return the results of an agent on a goal for all seeds that have one."""
        files = sorted(self.path(goal, agent, 0).parent.glob(self.path(goal, agent, 0).name.replace("seed0", "seed*")))
        return [json.loads(file.read_text()) for file in files]


def run(results: Results, goals: Sequence[Goal], seeds: Sequence[int]) -> None:
    """Train and play what is missing.

    Args:
        results: Folder of results; what it holds is not measured again.
        goals: Goals to play.
        seeds: Seeds of training.
    """
    for seed in seeds:
        for learned in dict.fromkeys(goal.learned for goal in goals):
            # One training run serves all goals of its learned task.
            own, baseline = [goal for goal in goals if goal.learned == learned], BASELINE[learned]
            for goal, agent in results.missing(own, [RANDOM], seed):
                results.measure(goal, agent, seed, at_random(goal.task, seed))
            # Training is the expensive part: an agent is trained only if one of its results is missing.
            if results.missing(own, [ASKED, FROZEN], seed):
                model = learn("JEPA", own[0], learned, seed)
                assert isinstance(model, JEPA)
                for goal, agent in results.missing(own, [ASKED], seed):
                    # The goal is given to the planner as a cost; nothing is trained.
                    with model.using_cost(FeatureCost(goal.cost)):
                        more = {"steps": STEPS["JEPA"][learned], "planner": str(model.policy.planner)}
                        results.measure(goal, agent, seed, model.predict, **more)
                # The actor alone, which knows the learned task only, shows what planning for the goal adds.
                model.set_mode("actor")
                for goal, agent in results.missing(own, [FROZEN], seed):
                    results.measure(goal, agent, seed, model.predict, steps=STEPS["JEPA"][learned])
            if results.missing(own, [frozen(baseline)], seed):
                other = learn(baseline, own[0], learned, seed)
                for goal, agent in results.missing(own, [frozen(baseline)], seed):
                    results.measure(goal, agent, seed, other.predict, steps=STEPS[baseline][learned])
            # Trained on the goal itself, an agent shows what can be reached in as many steps.
            for algorithm in ("JEPA", baseline):
                for goal, agent in results.missing(own, [from_scratch(algorithm)], seed):
                    taught = learn(algorithm, goal, goal.task, seed)
                    results.measure(goal, agent, seed, taught.predict, steps=STEPS[algorithm][learned])


def frozen(algorithm: str) -> str:
    """Return the name of a baseline that was trained on the learned task and plays the goal unchanged."""
    return f"{algorithm}, frozen"


def from_scratch(algorithm: str) -> str:
    """Return the name of an agent that was trained on the goal itself."""
    return f"{algorithm} from scratch"


def table(results: Results, goals: Sequence[Goal]) -> str:
    """Make a Markdown table of mean returns, a row per goal.

    The last column is the share of the gain over random actions by the better agent from scratch that JEPA reaches
    zero-shot.

    Args:
        results: Folder of results; a missing result shows as nan.
        goals: Goals to show.
    """
    names = ("goal", "runs", RANDOM, FROZEN, "baseline, frozen", ASKED, "from scratch", "share of it")
    rows: list[tuple[str, ...]] = [names, ("---", *["---:"] * 7)]
    for goal in goals:
        baseline = BASELINE[goal.learned]
        agents = (RANDOM, FROZEN, frozen(baseline), ASKED, from_scratch("JEPA"), from_scratch(baseline))
        means = {agent: float(np.mean([r["mean"] for r in results.read(goal, agent)] or [np.nan])) for agent in agents}
        # Comparisons with nan are always false, so a missing result counts as minus infinity.
        best = max(from_scratch("JEPA"), from_scratch(baseline), key=lambda name: np.nan_to_num(means[name], nan=-np.inf))
        share = (means[ASKED] - means[RANDOM]) / (means[best] - means[RANDOM])
        shown = (f"{means[agent]:.0f}" for agent in agents[:4])
        first = f"{goal.label}: {goal.asked:g}", str(len(results.read(goal, ASKED)))
        rows.append((*first, *shown, f"{means[best]:.0f} ({best.split()[0]})", f"{share:.0%}"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def draw(results: Results, goals: Sequence[Goal], path: Path, seed: int) -> None:
    """Draw the requested value and the first episode of each agent, a panel per goal.

    Args:
        results: Folder of results, complete for ``seed``.
        goals: Goals to show.
        path: File to write; its suffix decides the format.
        seed: Seed of training whose agents are shown.
    """
    with needs("compare"):
        from matplotlib.figure import Figure

    ours = LOOKS["JEPA"]
    drawn = {ASKED: ours, FROZEN: ours._replace(line="--"), frozen(_BASELINES): LOOKS["best baseline"]._replace(line="-.")}
    figure = Figure(figsize=(4.2 * len(goals), 3.8), layout="constrained")
    for axes, goal in zip(np.atleast_1d(figure.subplots(1, len(goals))), goals, strict=True):
        for agent in (ASKED, FROZEN, frozen(BASELINE[goal.learned])):
            shown = json.loads(results.path(goal, agent, seed).read_text())["shown"]
            # The panels share one legend, although their baselines differ.
            label = agent.replace(BASELINE[goal.learned], _BASELINES)
            x = goal.seconds_per_step * np.arange(len(shown))
            axes.plot(x, shown, color=drawn[label].colour, linestyle=drawn[label].line, linewidth=1.6, label=label)
        axes.axhline(goal.asked, color="0.4", linewidth=0.9, linestyle=(0, (4, 4)), label="asked for")
        axes.set_title(f"{goal.learned}: {goal.name}", fontsize=10)
        axes.set_xlabel("seconds")
        axes.set_ylabel(goal.label)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, handlelength=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write ``table.md`` and ``figure.png``; ``argv`` defaults to the command line."""
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
