"""Adaptability: agents that have learned a task are put into shifted ones, other worlds, goals or limits.

``python -m jepa_agent.experiments.adapt STUDY --output FOLDER`` trains and plays what is missing there, a line for each
result, and writes the report. An interrupted run goes on where it was stopped.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from jepa_agent.agent import JEPA
from jepa_agent.costs import Cost, FeatureCost, FittedCostToGo, Keep, LearnedCost, keep
from jepa_agent.envs import goals, shifts
from jepa_agent.experiments.adapt_report import SCRATCH, write_report
from jepa_agent.experiments.baselines import algorithm_class, make_baseline, settings
from jepa_agent.experiments.evaluation import EVALUATION_SEED, side_by_side
from jepa_agent.experiments.folders import refuse_links
from jepa_agent.experiments.machine import cpu_model, versions
from jepa_agent.experiments.records import write_json
from jepa_agent.experiments.study import read_as
from jepa_agent.extras import needs

with needs("compare"):
    from jsonargparse import ArgumentParser

WORLDS = {name: getattr(shifts, name) for name in ("Physics", "WeakActuators", "DelayedActions", "NoisySensors")}
GOALS = {name: getattr(goals, name) for name in ("PendulumAngle", "PendulumSpin", "CartPosition")}
ADAPTED = (200, 1_000)


@dataclass(frozen=True)
class Shift:
    """What is other than in the learned task: its world, its goal, or a limit to keep to.

    Args:
        world: Settings of wrappers of `jepa_agent.envs.shifts` by name, the innermost first.
        goal: Settings of a reward of `jepa_agent.envs.goals` by name.
        keep: Settings of `jepa_agent.costs.keep`.

    Raises:
        ValueError: There is no such wrapper or reward, or nothing is shifted.
    """

    world: dict[str, dict[str, Any]] = field(default_factory=dict)
    goal: dict[str, dict[str, Any]] = field(default_factory=dict)
    keep: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for given, known in ((self.world, WORLDS), (self.goal, GOALS)):
            if unknown := [name for name in given if name not in known]:
                raise ValueError(f"there is no {unknown[0]}; choose among {', '.join(known)}")
        if not (self.world or self.goal or self.keep) or len(self.goal) > 1:
            raise ValueError("a shift needs a world, one goal, or a range to keep")

    def make(self, env_id: str) -> gym.Env:
        """The shifted environment."""
        env = gym.make(env_id)
        for name, own in self.world.items():
            env = WORLDS[name](env, **own)
        return goals.RewardedBy(env, self._reward()) if self.goal else env

    def cost(self) -> Cost:
        """What the planner is asked for."""
        if not self.goal:
            return LearnedCost()
        reward = self._reward()
        if isinstance(reward, goals.CartPosition):
            # The reward is flat far away: squared distance shows the way, squared speed keeps from overshooting.
            return FeatureCost(lambda obs: (obs[..., 0] - reward.position) ** 2 + 0.05 * obs[..., 1] ** 2)
        return FeatureCost(lambda obs: -reward(obs))

    def limits(self) -> list[Keep]:
        """The range to keep to, if there is one."""
        return [keep(**self.keep)] if self.keep else []

    def _reward(self) -> Any:
        [(name, own)] = self.goal.items()
        return GOALS[name](**own)


@dataclass(frozen=True)
class AdaptTask:
    """A task to be learned, and its shifts.

    Args:
        n_timesteps: Environment steps of JEPA's training, on the task and from scratch on each shift.
        shifts: By name.
        baseline: Algorithm to compare with.
        baseline_timesteps: Environment steps of its training.
    """

    n_timesteps: int
    shifts: dict[str, Shift]
    baseline: str = "SAC"
    baseline_timesteps: int = 6_000


@dataclass(frozen=True)
class AdaptStudy:
    """Which agents are trained and how they are shifted.

    Args:
        tasks: By Gymnasium id.
        n_eval_episodes: Episodes per result, the same for all.
        seeds: Number of training runs, with seeds 0, 1, ...
        ceilings: Number of these, from seed 0 on, for which agents are trained from scratch on each shift, too.
    """

    tasks: dict[str, AdaptTask]
    n_eval_episodes: int = 10
    seeds: int = 5
    ceilings: int = 5


class Bench:
    """The agents of a task and seed, trained when they are first needed and kept.

    Args:
        env: Gymnasium id of the learned task.
        task: The task.
        seed: Of training.
        folder: Where trained agents are kept.
        episodes: Episodes per result.
    """

    def __init__(self, env: str, task: AdaptTask, seed: int, folder: Path, episodes: int):
        self.env, self.task, self.seed, self.folder, self.episodes = env, task, seed, folder, episodes

    def jepa(self) -> JEPA:
        """The agent that has learned the task, with its replay buffer, loaded anew."""
        path, stored = (self.folder / f"{self.env}-JEPA-seed{self.seed}{end}.zip" for end in ("", "-buffer"))
        if not stored.exists():
            model = JEPA("MlpPolicy", self.env, seed=self.seed, device="cpu").learn(self.task.n_timesteps)
            self.folder.mkdir(parents=True, exist_ok=True)
            model.save(path)
            model.save_replay_buffer(stored)
        model = JEPA.load(path, device="cpu")
        model.load_replay_buffer(stored)
        model.set_random_seed(self.seed)
        return model

    def baseline(self, shift: Shift | None = None) -> BaseAlgorithm:
        """The baseline, trained on the task, or anew from scratch on a shifted one."""
        own = self.task.baseline
        path = self.folder / f"{self.env}-{own}-seed{self.seed}.zip"
        if shift is None and path.exists():
            return algorithm_class(own).load(path, device="cpu")
        model = make_baseline(own, self.env, self.seed, overrides=settings(own, self.env))
        if shift is not None:
            model.set_env(model._wrap_env(shift.make(self.env)))
        model.learn(self.task.baseline_timesteps)
        if shift is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            model.save(path)
        return model

    def play(self, shift: Shift, act: Callable[..., Any]) -> dict[str, Any]:
        """Returns of the evaluation episodes, and how many steps there were and how many left the range to keep."""
        with side_by_side(lambda: shift.make(self.env), self.episodes) as envs:
            return played(act, envs, shift.limits())

    def measure(self, shift: Shift, had: set[str]) -> Iterator[dict[str, Any]]:
        """Every column of a shift beside those that are ``had``, cheap ones first: its name, environment steps and CPU
        seconds that adapting took, and what was played."""
        for column, (steps, prepare) in self.columns(shift).items():
            if column in had:
                continue
            ready = self.trained(column)
            began = time.process_time()
            act = prepare(ready)
            seconds = round(time.process_time() - began, 1)
            yield {"column": column, "steps": steps, "cpu_seconds": seconds, **self.play(shift, act)}

    def trained(self, column: str) -> Any:
        """The agent that a column begins with; None for random actions and for agents from scratch."""
        if column == "random" or column.endswith(SCRATCH):
            return None
        return self.baseline() if column.startswith(self.task.baseline) else self.jepa()

    def columns(self, shift: Shift) -> dict[str, tuple[int, Callable[[Any], Callable[..., Any]]]]:
        """By name: environment steps in the shifted task, and what makes a `predict` of the trained agent."""
        own, task = self.task.baseline, self.task
        found: dict[str, tuple[int, Callable[[Any], Callable[..., Any]]]] = {
            "random": (0, lambda nobody: self._at_random()),
            "actor, frozen": (0, partial(_in_mode, mode="actor")),
            "planner, asked": (0, partial(_asked, shift=shift)),
        }
        if shift.goal:
            found["planner, cost-to-go fitted"] = (0, partial(_asked, shift=shift, cost_to_go=FittedCostToGo()))
        found[f"{own}, frozen"] = (0, lambda other: other.predict)
        if shift.keep:
            return found
        for n in ADAPTED:
            found[f"adapted, {n}"] = (n, partial(self._adapted, shift=shift, n_steps=n))
            found[f"{own}, tuned {n}"] = (n, partial(self._tuned, shift=shift, n_steps=n))
        found[f"JEPA, {SCRATCH}"] = (task.n_timesteps, lambda nobody: self._from_scratch(shift))
        found[f"{own}, {SCRATCH}"] = (task.baseline_timesteps, lambda nobody: self.baseline(shift).predict)
        return found

    def _at_random(self) -> Callable[..., Any]:
        with closing(gym.make(self.env)) as env:
            space = env.action_space
        space.seed(self.seed)
        return lambda obs, state, deterministic: (np.stack([space.sample() for _ in obs]), None)

    def _adapted(self, model: JEPA, shift: Shift, n_steps: int) -> Callable[..., Any]:
        return _in_mode(model.adapt(shift.make(self.env), n_steps), "planner")

    def _tuned(self, other: Any, shift: Shift, n_steps: int) -> Callable[..., Any]:
        other.set_env(other._wrap_env(shift.make(self.env)))
        other.learning_starts = 0  # it has learned already, so it does not explore anew
        return other.learn(n_steps, reset_num_timesteps=False).predict

    def _from_scratch(self, shift: Shift) -> Callable[..., Any]:
        return JEPA("MlpPolicy", shift.make(self.env), seed=self.seed, device="cpu").learn(self.task.n_timesteps).predict


def _in_mode(model: JEPA, mode: str) -> Callable[..., Any]:
    model.set_mode(mode)
    return model.predict


def _asked(model: JEPA, shift: Shift, cost_to_go: FittedCostToGo | None = None) -> Callable[..., Any]:
    """What was asked for at run time: another goal or a range to keep; in another world, to plan at every step."""
    if not (shift.goal or shift.keep):
        return _in_mode(model, "planner")
    model.set_cost(shift.cost(), constraints=shift.limits(), cost_to_go=cost_to_go)
    return model.predict


def played(act: Callable[..., Any], envs: list[gym.Env], limits: Sequence[Keep]) -> dict[str, Any]:
    """Play one episode in each environment, deterministically.

    Args:
        act: An agent's `predict`.
        envs: The environments, the k-th of which starts by its own evaluation seed.
        limits: Ranges whose violations are counted.

    Returns:
        ``returns`` of the episodes, ``played`` steps, and the share of these that lead out of a range, ``violations``.
    """
    obs = np.stack([env.reset(seed=EVALUATION_SEED + k)[0] for k, env in enumerate(envs)])
    returns, playing, state, met = np.zeros(len(envs)), np.ones(len(envs), dtype=bool), None, []
    while playing.any():
        actions, state = act(obs, state, deterministic=True)
        for k in np.flatnonzero(playing):
            obs[k], reward, terminated, truncated, _ = envs[k].step(actions[k])
            returns[k] += float(reward)
            playing[k] = not (terminated or truncated)
            met.append(obs[k].copy())
    out = np.zeros(len(met), dtype=bool)
    for limit in limits:
        out |= limit.violated(np.stack(met))
    return {"returns": returns.round(3).tolist(), "played": len(met), "violations": float(out.mean())}


def run(study: AdaptStudy, seeds: Sequence[int], tasks: Sequence[str], agents: Path, output: Path) -> None:
    """Measure what is missing, a line in ``rows/TASK-seedN.jsonl`` for each result."""
    for seed in seeds:
        for env in tasks:
            task, lines = study.tasks[env], output / "rows" / f"{env}-seed{seed}.jsonl"
            lines.parent.mkdir(parents=True, exist_ok=True)
            done = {(row["shift"], row["column"]) for row in read_rows(lines)}
            bench = Bench(env, task, seed, agents, study.n_eval_episodes)
            for name, shift in task.shifts.items():
                had = {column for shifted, column in done if shifted == name}
                if seed >= study.ceilings:
                    had |= {column for column in bench.columns(shift) if column.endswith(SCRATCH)}
                for row in bench.measure(shift, had):
                    told = {"task": env, "shift": name, "seed": seed, **row}
                    with lines.open("a") as file:
                        file.write(json.dumps(told) + "\n")
                    print(f"{env} {name} seed {seed} {row['column']:28} {np.mean(row['returns']):9.1f}", flush=True)


def read_rows(lines: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none if the file does not exist."""
    return [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing in a study, then write the report on all results; ``argv`` defaults to the command line."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = ArgumentParser(prog="python -m jepa_agent.experiments.adapt", description="Trained agents in shifted tasks.")
    parser.add_argument("study", type=Path, help="YAML file, e.g. experiments/studies/adapt/worlds.yaml")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--agents", type=Path, default=Path("runs/adapt"), help="folder of the trained agents")
    parser.add_argument("--seeds", type=list[int], help="only these; all of the study by default")
    parser.add_argument("--tasks", type=list[str], help="only these")
    parser.add_argument("--report_only", type=bool, default=False, help="report on what there is, and do nothing else")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # CPU times are comparable only on one thread
    refuse_links(options.output)
    study = read_as(AdaptStudy, options.study)
    command = shlex.join(["python", "-m", "jepa_agent.experiments.adapt", *arguments])
    if not options.report_only:
        machine = {"cpu": cpu_model(), "versions": versions(), "study": options.study.name, "command": command}
        write_json(options.output / "machine.json", machine)
        run(study, options.seeds or range(study.seeds), options.tasks or list(study.tasks), options.agents, options.output)
    rows = [row for lines in sorted((options.output / "rows").glob("*.jsonl")) for row in read_rows(lines)]
    write_report(rows, command, options.output)


if __name__ == "__main__":
    main()
