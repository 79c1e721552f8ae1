"""Comparison of modes on the same trained agents: ``python -m jepa_agent.experiments.modes STUDY --output FOLDER``.

Agents are trained and kept at several checkpoints, and every mode then plays each of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env

from jepa_agent.acting.mode_switch import make_mode_switch
from jepa_agent.agent import JEPA
from jepa_agent.experiments.evaluation import EVALUATION_SEED, side_by_side
from jepa_agent.experiments.folders import refuse_links
from jepa_agent.experiments.machine import cpu_model, versions
from jepa_agent.experiments.modes_report import renamed, write_report
from jepa_agent.experiments.records import write_json
from jepa_agent.experiments.study import read_as
from jepa_agent.extras import needs
from jepa_agent.policy import JEPAPolicy

with needs("compare"):
    from jsonargparse import ArgumentParser

DEFAULTS = "defaults"
_TIMED_STEPS = 200


@dataclass(frozen=True)
class ModeTask:
    """How an environment is used in a study of modes.

    Args:
        n_timesteps: Environment steps of training.
        random: Mean return of a random policy, a normalised score of 0.
        ceiling: Mean return with a normalised score of 1.
        seeds: Number of training runs, with seeds 0, 1, ...

    Raises:
        ValueError: ``random`` is not below ``ceiling``.
    """

    n_timesteps: int
    random: float
    ceiling: float
    seeds: int = 5

    def __post_init__(self) -> None:
        if self.random >= self.ceiling:
            raise ValueError(f"random {self.random:g} must lie below the ceiling {self.ceiling:g}")


@dataclass(frozen=True)
class ModeStudy:
    """Which agents are trained, and which modes then act with them.

    Args:
        tasks: Tasks by Gymnasium id.
        modes: Names of modes, as `make_mode_switch` takes them.
        checkpoints: Number of checkpoints per run, equally spaced, the last at its end.
        n_eval_episodes: Episodes per agent and mode, the same for all.
        variants: Constructor arguments that replace defaults, by the name of the variant to train.

    Raises:
        ValueError: A mode has no such name.
    """

    tasks: dict[str, ModeTask]
    modes: tuple[str, ...] = ("actor", "planner")
    checkpoints: int = 4
    n_eval_episodes: int = 10
    variants: dict[str, dict[str, Any]] = field(default_factory=lambda: {DEFAULTS: {}})

    def __post_init__(self) -> None:
        # The dataclass is frozen, and YAML gives a list.
        object.__setattr__(self, "modes", tuple(self.modes))
        for mode in self.modes:
            make_mode_switch(mode)

    def runs(self) -> list[Run]:
        """Return the training runs, seed by seed, so that an interrupted study has results on every task."""
        most = max(task.seeds for task in self.tasks.values())
        return [
            Run(env, variant, seed)
            for seed in range(most)
            for env, task in self.tasks.items()
            for variant in self.variants
            if seed < task.seeds
        ]

    def steps(self, env: str) -> range:
        """Return the environment steps after which an agent is saved."""
        every = self.tasks[env].n_timesteps // self.checkpoints
        return range(every, every * self.checkpoints + 1, every)


class Run(NamedTuple):
    """A training run."""

    env: str
    variant: str
    seed: int

    def folder(self, root: Path) -> Path:
        """Return the run's folder below ``root``."""
        return root / self.env / f"{self.variant}-seed{self.seed}"


class Played(NamedTuple):
    """Results of some episodes."""

    returns: list[float]
    steps: int  # sum over all episodes
    searched: float  # share of steps with a search
    planned: float  # share of steps at which a plan was executed


def play(policy: JEPAPolicy, env_id: str, episodes: int) -> Played:
    """Play the first evaluation episodes side by side, deterministically, each to its end.

    Args:
        policy: Policy in the mode that is to act.
        env_id: Gymnasium id.
        episodes: Number of episodes.
    """
    with side_by_side(lambda: gym.make(env_id), episodes) as envs:
        return _play(policy, envs)


def _play(policy: JEPAPolicy, envs: list[gym.Env]) -> Played:
    """Play one episode in each environment; ended ones leave the batch."""
    episodes = len(envs)
    obs = np.stack([env.reset(seed=EVALUATION_SEED + k)[0] for k, env in enumerate(envs)])
    returns, alive, memory = np.zeros(episodes), np.arange(episodes), policy.recall(None, episodes)
    steps = searched = planned = 0
    while len(alive):
        seen, _ = policy.obs_to_tensor(obs)
        assert isinstance(seen, torch.Tensor)
        decision, memory = policy.act(seen, memory, deterministic=True)
        steps += len(alive)
        searched += int(decision.searched.sum())
        planned += int(decision.planned.sum())
        after = [envs[k].step(action) for k, action in zip(alive, policy.to_env(decision.action), strict=True)]
        returns[alive] += [float(step[1]) for step in after]
        # Rows of the batch, while `alive` holds indices of environments.
        on = np.flatnonzero([not (step[2] or step[3]) for step in after])
        obs, alive, memory = np.stack([step[0] for step in after])[on], alive[on], memory.take(torch.from_numpy(on))
    return Played(returns.tolist(), steps, searched / steps, planned / steps)


def decision_milliseconds(policy: JEPAPolicy, env_id: str) -> float:
    """Return the mean CPU milliseconds of a decision for one environment, the environment's own time excluded.

    Args:
        policy: Policy in the mode that is to act.
        env_id: Gymnasium id.
    """
    with closing(gym.make(env_id)) as env:
        return _decision_milliseconds(policy, env)


def _decision_milliseconds(policy: JEPAPolicy, env: gym.Env) -> float:
    """Measure decisions on the first steps of an environment."""
    memory = policy.recall(None, 1)
    obs, _ = env.reset(seed=EVALUATION_SEED)
    spent = 0.0
    for step in range(-1, _TIMED_STEPS):
        began = time.process_time()
        seen, _ = policy.obs_to_tensor(obs)
        assert isinstance(seen, torch.Tensor)
        decision, memory = policy.act(seen, memory, deterministic=True)
        spent += (time.process_time() - began) * (step >= 0)  # step -1 is a warm-up: torch's first call is slow
        obs, _, terminated, truncated, _ = env.step(policy.to_env(decision.action)[0])
        if terminated or truncated:
            (obs, _), memory = env.reset(), policy.recall(None, 1)
    return 1000.0 * spent / _TIMED_STEPS


def agents_of(study: ModeStudy, run: Run, root: Path) -> dict[int, Path]:
    """Return the saved agents of a run by environment step, training them first unless all exist.

    Args:
        study: Study that decides settings and checkpoints.
        run: Training run.
        root: Folder of the trained agents.
    """
    folder, steps = run.folder(root), study.steps(run.env)
    paths = {step: folder / f"agent_{step}_steps.zip" for step in steps}
    if not all(path.exists() for path in paths.values()):
        with closing(make_vec_env(run.env, 1, seed=run.seed)) as env:
            model = JEPA("MlpPolicy", env, seed=run.seed, device="cpu", **study.variants[run.variant])
            model.learn(steps[-1], callback=CheckpointCallback(steps.step, str(folder), "agent"))
    return paths


def evaluate(study: ModeStudy, run: Run, agents: Path, lines: Path) -> Iterator[dict[str, Any]]:
    """Evaluate every mode on every agent of a run, appending a JSON line each.

    Args:
        study: Study that decides modes and episodes.
        run: Training run.
        agents: Folder of the trained agents.
        lines: File of the results; pairs of agent and mode that it holds are skipped.

    Yields:
        The rows that are added, each as soon as it is written.
    """
    done = {(row["step"], row["mode"]) for row in read_rows(lines)}
    lines.parent.mkdir(parents=True, exist_ok=True)
    for step, path in agents_of(study, run, agents).items():
        for mode in study.modes:
            if (step, mode) in done:
                continue
            # Loaded anew for each mode, so that nothing carries over from the mode before.
            policy = JEPA.load(path, device="cpu").policy
            policy.set_training_mode(False)
            policy.mode_switch = make_mode_switch(mode)
            row = {**run._asdict(), "step": step, "mode": mode, "decision_ms": decision_milliseconds(policy, run.env)}
            row.update(play(policy, run.env, study.n_eval_episodes)._asdict())
            with lines.open("a") as file:
                file.write(json.dumps(row) + "\n")
            yield row


def read_rows(lines: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines by today's names; none if the file does not exist."""
    return [renamed(json.loads(line)) for line in lines.read_text().splitlines()] if lines.exists() else []


def main(argv: Sequence[str]) -> None:
    """Train and evaluate what is missing in a study, then write the report on all results."""
    parser = ArgumentParser(description="Every mode on the same agents; goes on where it was stopped.")
    parser.add_argument("study", type=Path, help="YAML file, e.g. experiments/studies/modes/switches.yaml")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--agents", type=Path, default=Path("runs/modes"), help="folder of the trained agents")
    parser.add_argument("--seeds", type=list[int], help="only these, so that two processes can share a study")
    parser.add_argument("--tasks", type=list[str], help="only these")
    parser.add_argument("--report_only", type=bool, default=False, help="report on what there is, and do nothing else")
    options = parser.parse_args(argv)
    # CPU times are comparable only on one thread.
    torch.set_num_threads(1)
    refuse_links(options.output)
    study = read_as(ModeStudy, options.study)
    if not options.report_only:
        machine = {"cpu": cpu_model(), "versions": versions(), "study": options.study.name}
        write_json(options.output / "machine.json", machine)
    files = {run: run.folder(options.output).with_suffix(".jsonl") for run in study.runs()}
    for run, lines in files.items():
        if run.seed in (options.seeds or [run.seed]) and run.env in (options.tasks or [run.env]) and not options.report_only:
            for row in evaluate(study, run, options.agents, lines):
                shown = f"{np.mean(row['returns']):9.1f} searched {row['searched']:.2f} {row['decision_ms']:.2f} ms"
                print(f"{run.env} {run.variant} seed {run.seed} step {row['step']} {row['mode']:18} {shown}", flush=True)
    found = [row for lines in files.values() for row in read_rows(lines)]
    rows = [row for mode in study.modes for row in found if row["mode"] == mode]  # in the study's order of modes
    scales = {env: (task.random, task.ceiling) for env, task in study.tasks.items()}
    command = f"python -m jepa_agent.experiments.modes {options.study} --output {options.output}"
    write_report(rows, scales, command, options.output)


if __name__ == "__main__":
    main(sys.argv[1:])
