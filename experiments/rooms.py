"""Goals in two rooms, learned without rewards: which representation terms let plans reach them.

``python -m jepa_agent.experiments.rooms`` collects random steps, fits world models to them by different terms, and counts
how many of the same random pairs of start and goal each reaches. Each result is a file of its own, so an interrupted run can
be continued.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

from jepa_agent import JEPA, PlannerConfig
from jepa_agent.acting.exploration import RandomActions
from jepa_agent.envs.rooms import TwoRooms
from jepa_agent.experiments.evaluation import EVALUATION_SEED
from jepa_agent.experiments.folders import refuse_links
from jepa_agent.experiments.machine import cpu_model, versions
from jepa_agent.experiments.records import write_json
from jepa_agent.experiments.steps_to_go import StepsToGo, fit_steps_to_go
from jepa_agent.learning.terms import InfoNCE, InverseDynamics, Prediction, RepresentationTerm, Termination
from jepa_agent.objectives.costs import Cost, GoalCost, LatentCost

RANDOM = "random actions"
STEPS = 50
"""Within which a goal is to be reached."""


# ---------------------------------------------------------------------- what is learned, and by which terms


# By name, what the world model is fitted to. Plans weigh steps by the chance that the episode goes on: that is learned too.
VARIANTS: dict[str, list[RepresentationTerm]] = {
    "prediction": [Prediction(), Termination()],
    "prediction, InfoNCE": [Prediction(), Termination(), InfoNCE(0.1)],
    "prediction, inverse": [Prediction(), Termination(), InverseDynamics()],
    "prediction, InfoNCE, inverse": [Prediction(), Termination(), InfoNCE(0.1), InverseDynamics()],
}


class Way(NamedTuple):
    """A way of planning to a goal: what a step costs, and how to search."""

    planner: PlannerConfig
    fitted: bool  # whether the cost is steps to go, or else the distance in latent space


WAYS = {
    "latent distance": Way(
        PlannerConfig(kind="icem", horizon=25, num_samples=256, num_elites=16, noise_beta=2.0, init_std=1.0, replan_every=5),
        False,
    ),
    "steps to go": Way(
        PlannerConfig(kind="icem", horizon=8, num_samples=64, num_elites=8, noise_beta=2.0, init_std=1.0, replan_every=2),
        True,
    ),
}


def collect(env: str, steps: int, seed: int, path: Path) -> None:
    """Write a replay file of drifting random actions.

    Args:
        env: Gymnasium id.
        steps: Environment steps.
        seed: Of the environment and the actions.
        path: File to write.
    """
    model = JEPA("MlpPolicy", env, seed=seed, device="cpu", buffer_size=steps, learning_starts=steps)
    model.learn(steps).save_replay_buffer(path)


def learn(env: str, variant: str, seed: int, rows: Path, updates: int, steps: int) -> JEPA:
    """Fit a world model to stored experience, without rewards.

    Args:
        env: Gymnasium id.
        variant: Name of the terms.
        seed: Of the networks and the draws.
        rows: File of `collect`.
        updates: Updates of the representation.
        steps: How many steps the file holds.
    """
    model = JEPA(
        "MlpPolicy",
        env,
        seed=seed,
        device="cpu",
        buffer_size=steps,
        learning_starts=0,
        train_horizon=5,
        representation=VARIANTS[variant],
    )
    model.load_replay_buffer(rows)
    return model.learn_offline(updates, representation_only=True)


def steps_to_go(model: JEPA, updates: int, seed: int) -> StepsToGo:
    """Fit `StepsToGo` to the latents of what an agent's replay buffer holds, the world model as it is.

    Args:
        model: With a buffer of one environment that is not older than its size.
        updates: Steps of Adam.
        seed: Of the network and the draws.
    """
    buffer, encode = model.replay_buffer, model.world_model.encode
    held = slice(0, buffer.size())
    with torch.no_grad():
        before, after = (
            torch.cat([encode(block) for block in np.array_split(stored[held, 0], max(buffer.size() // 500, 1))])
            for stored in (buffer.observations, buffer.next_observations)
        )
    return fit_steps_to_go(before, after, buffer.dones[held, 0] > 0, updates, seed)


# ---------------------------------------------------------------------- pairs of start and goal


class Pair(NamedTuple):
    """A start, four numbers as `TwoRooms` observes them, and a goal under the same wall."""

    state: np.ndarray
    goal: np.ndarray

    @property
    def other_room(self) -> bool:
        """Whether the wall lies between both."""
        return bool((self.state[0] < self.state[2]) != (self.goal[0] < self.state[2]))


def pairs(count: int) -> list[Pair]:
    """Return random pairs, the same at every call."""
    env, found = TwoRooms(), []
    for k in range(count):
        env.reset(seed=EVALUATION_SEED + k)
        start = np.array([*env.position, env.wall, env.door])
        env.reset(options={"state": [*env.np_random.random(2), *start[2:]]})
        found.append(Pair(start, env.position))
    return found


Act = Callable[[Any, Any], tuple[np.ndarray, Any]]
"""From an observation and the state of the last step to an action and the next state."""


def play(env_id: str, asked: Sequence[Pair], ask: Callable[[Any], Act]) -> list[int | None]:
    """Play each pair until the goal is reached, or for `STEPS` steps.

    Args:
        env_id: Gymnasium id.
        asked: Pairs to play.
        ask: From what would be seen at the goal to who acts.

    Returns:
        The step at which each goal was reached, None where it was not.
    """
    taken: list[int | None] = []
    with closing(gym.make(env_id, max_episode_steps=STEPS)) as env:
        for pair in asked:
            obs, _ = env.reset(options={"state": pair.state, "goal": pair.goal})
            room = env.unwrapped
            assert isinstance(room, TwoRooms)
            act, state, steps, terminated, truncated = ask(room.observation(pair.goal)), None, 0, False, False
            while not (terminated or truncated):
                action, state = act(obs, state)
                obs, _, terminated, truncated, _ = env.step(action)
                steps += 1
            taken.append(steps if terminated else None)
    return taken


def planning(model: JEPA, way: Way, fitted: StepsToGo | None) -> Callable[[Any], Act]:
    """Return what `play` asks: the agent plans to each goal.

    Args:
        model: World model and planner. Its replay buffer is emptied: no cost here reads it, and setting one would look
            through it for every goal.
        way: Cost and search.
        fitted: Steps to go, for a way that needs it.
    """
    model.replay_buffer.reset()

    def ask(goal: Any) -> Act:
        cost: Cost = GoalCost(goal)
        if fitted is not None:
            with torch.no_grad():
                z_goal = model.world_model.encode(goal)
            cost = LatentCost(partial(fitted, goal=z_goal))
        model.set_cost(cost, way.planner, end_cost=0.0)
        return lambda obs, state: model.predict(obs, state, deterministic=True)  # type: ignore[return-value]

    return ask


def at_random(env_id: str, seed: int) -> Callable[[Any], Act]:
    """Return what `play` asks: random actions that drift, as those that experience was collected by."""
    with closing(gym.make(env_id)) as env:
        space = env.action_space
    np.random.seed(seed)  # noqa: NPY002 - SB3's noise draws from numpy's own generator

    def ask(goal: Any) -> Act:
        actions = RandomActions(space, 1)
        return lambda obs, state: (actions()[0], None)

    return ask


# ---------------------------------------------------------------------- files


class Results:
    """A folder of results with a file ``variant-way-seedN.json`` for each.

    Args:
        folder: Folder of the results.
        asked: Pairs of start and goal.
        shared: Entries of every file: the command that reproduces it and its settings.
    """

    def __init__(self, folder: Path, asked: Sequence[Pair], shared: dict[str, Any]):
        self.folder, self.asked, self.shared = folder, asked, shared

    def path(self, variant: str, way: str, seed: int) -> Path:
        """Return the file of a result."""
        name = "-".join(part.replace(", ", "_").replace(" ", "_") for part in (variant, way) if part)
        return self.folder / f"{name}-seed{seed}.json"

    def missing(self, variant: str, ways: Sequence[str], seed: int) -> list[str]:
        """Return the ways of planning that have no result for a variant and seed yet."""
        return [way for way in ways if not self.path(variant, way, seed).exists()]

    def measure(self, variant: str, way: str, seed: int, ask: Callable[[Any], Act], **more: Any) -> None:
        """Play all pairs and write the result; ``more`` are further entries of its file."""
        began = time.process_time()
        taken = play(self.shared["env"], self.asked, ask)
        reached = [steps for steps in taken if steps is not None]
        result = {
            "variant": variant,
            "way": way,
            "seed": seed,
            "reached": len(reached),
            "of": len(taken),
            "other_room": [int(pair.other_room) for pair in self.asked],
            "steps": taken,
            "cpu_seconds_playing": round(time.process_time() - began, 1),
            **more,
            **self.shared,
            "versions": versions(),
            "cpu": cpu_model(),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.path(variant, way, seed), result)


def run(results: Results, variants: Sequence[str], ways: Sequence[str], seeds: Sequence[int]) -> None:
    """Collect, learn and play what is missing.

    Args:
        results: Folder of results; what it holds is not measured again.
        variants: Names of `VARIANTS`.
        ways: Names of `WAYS`.
        seeds: Seeds of collecting and learning.
    """
    env, steps, updates = (results.shared[name] for name in ("env", "collected", "updates"))
    for seed in seeds:
        if results.missing(RANDOM, [""], seed):
            results.measure(RANDOM, "", seed, at_random(env, seed))
        wanted = [variant for variant in variants if results.missing(variant, ways, seed)]
        if not wanted:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            rows = Path(scratch) / "rows.zip"
            collect(env, steps, seed, rows)  # once: all variants learn from the same steps
            for variant in wanted:
                _measure_variant(results, variant, ways, seed, learn_from=(env, rows, updates, steps))


def _measure_variant(
    results: Results, variant: str, ways: Sequence[str], seed: int, learn_from: tuple[str, Path, int, int]
) -> None:
    """Learn by the terms of one variant and play what is missing of it."""
    env, rows, updates, steps = learn_from
    began = time.process_time()
    model = learn(env, variant, seed, rows, updates, steps)
    learned, missing = time.process_time(), results.missing(variant, ways, seed)
    fitted = steps_to_go(model, updates, seed) if any(WAYS[way].fitted for way in missing) else None
    costs = {False: learned - began, True: time.process_time() - began}
    for way in missing:
        planner, needs_fit = WAYS[way]
        more = {"cpu_seconds_learning": round(costs[needs_fit], 1), "terms": [str(term) for term in VARIANTS[variant]]}
        ask = planning(model, WAYS[way], fitted if needs_fit else None)
        results.measure(variant, way, seed, ask, planner=str(planner), **more)


def table(folder: Path) -> str:
    """Make a Markdown table of what a folder holds: goals reached of 100, over all seeds, a row per variant and way.

    Args:
        folder: Folder of results.
    """
    by_row: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("*-seed*.json")):
        result = json.loads(file.read_text())
        by_row.setdefault((result["variant"], result["way"]), []).append(result)
    rows: list[tuple[str, ...]] = [
        ("fitted to", "planned by", "runs", "reached", "same room", "other room", "median steps"),
        ("---", "---", *["---:"] * 5),
    ]
    order = [RANDOM, *VARIANTS]
    for (variant, way), found in sorted(by_row.items(), key=lambda row: (order.index(row[0][0]), row[0][1])):
        steps = np.array([[np.nan if s is None else s for s in result["steps"]] for result in found])
        other, came = np.array([result["other_room"] for result in found], dtype=bool), ~np.isnan(steps)
        shares = (f"{100 * came[where].mean():.0f}" if where.any() else "-" for where in (came | True, ~other, other))
        median = f"{np.nanmedian(steps):.0f}" if came.any() else "-"
        rows.append((variant, way or "-", str(len(found)), *shares, median))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write ``table.md``; ``argv`` defaults to the command line."""
    parser = argparse.ArgumentParser(prog="python -m jepa_agent.experiments.rooms", description="Goals without rewards.")
    parser.add_argument("--output", type=Path, default=Path("experiments/results/rooms"), help="folder of the results")
    parser.add_argument("--env", choices=["JEPA/TwoRooms-v0", "JEPA/TwoRoomsPixels-v0"], default="JEPA/TwoRooms-v0")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of collecting and learning")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="what is fitted")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="how goals are planned for")
    parser.add_argument("--pairs", type=int, default=100, help="pairs of start and goal")
    parser.add_argument("--steps", type=int, default=20_000, help="random steps to collect")
    parser.add_argument("--updates", type=int, default=4_000, help="updates of the world model, and of steps to go")
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = parser.parse_args(arguments)
    refuse_links(options.output)
    command = shlex.join(["python", "-m", "jepa_agent.experiments.rooms", *arguments])
    shared = {"env": options.env, "collected": options.steps, "updates": options.updates, "command": command}
    results = Results(options.output, pairs(options.pairs), shared)
    run(results, options.variants, options.ways, options.seeds)
    (options.output / "table.md").write_text(table(options.output) + "\n")


if __name__ == "__main__":
    main()
