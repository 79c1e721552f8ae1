"""What curiosity finds: MountainCar-v0 with and without `Disagreement`, whose reward random actions do not meet.

``python -m jepa_agent.experiments.curiosity`` trains the actor on seeds, evaluates as it goes, and writes a file per run, so
that an interrupted study can be continued.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from jepa_agent import JEPA
from jepa_agent.experiments.evaluation import EVALUATION_SEED
from jepa_agent.experiments.folders import refuse_links
from jepa_agent.experiments.machine import cpu_model, versions
from jepa_agent.experiments.records import write_json
from jepa_agent.learning.terms import Cost, Disagreement, Prediction, RepresentationTerm, Termination

ENV, THRESHOLD = "MountainCar-v0", -120.0
USUAL = [Prediction(), Cost(), Termination()]
VARIANTS: dict[str, list[RepresentationTerm]] = {"with": [*USUAL, Disagreement()], "without": USUAL}
_EPISODES = 20


def train(variant: str, seed: int, steps: int, every: int) -> dict[str, Any]:
    """Train one agent and evaluate its actor as it goes.

    Args:
        variant: One of `VARIANTS`.
        seed: Of the agent and its environment.
        steps: Environment steps.
        every: Steps between evaluations.

    Returns:
        Evaluations, a row each: step, mean return of 20 episodes, goals reached while collecting, CPU seconds so far of
        collecting and learning.
    """
    model = JEPA("MlpPolicy", ENV, seed=seed, device="cpu", mode="actor", representation=VARIANTS[variant])
    rows, spent = [], 0.0
    with closing(Monitor(gym.make(ENV))) as env:
        while model.num_timesteps < steps:
            began = time.process_time()
            model.learn(every, reset_num_timesteps=not rows)
            spent += time.process_time() - began
            env.reset(seed=EVALUATION_SEED)
            returns, _ = evaluate_policy(model, env, _EPISODES, return_episode_rewards=True)
            buffer = model.replay_buffer
            ends = buffer.dones[: buffer.size()] * (1.0 - buffer.timeouts[: buffer.size()])
            rows.append(
                {
                    "step": model.num_timesteps,
                    "mean": float(np.mean(returns)),
                    "goals": int((ends > 0).sum()),
                    "cpu_seconds": round(spent, 1),
                }
            )
    return {"variant": variant, "seed": seed, "terms": [str(term) for term in VARIANTS[variant]], "evaluations": rows}


def table(folder: Path) -> str:
    """Make a Markdown table of what a folder holds, a row per variant.

    Args:
        folder: Folder of results.
    """
    rows: list[tuple[str, ...]] = [
        ("curiosity", "runs", "solved", "first solved after, by seed", "last evaluation, by seed", "CPU s, median"),
        ("---", *["---:"] * 5),
    ]
    for variant in VARIANTS:
        runs = [json.loads(file.read_text()) for file in sorted(folder.glob(f"{variant}-seed*.json"))]
        if not runs:
            continue
        curves = [run["evaluations"] for run in runs]
        firsts = [next((row["step"] for row in curve if row["mean"] >= THRESHOLD), None) for curve in curves]
        solved = f"{sum(first is not None for first in firsts)}/{len(runs)}"
        needed = ", ".join("-" if first is None else f"{first:,}" for first in firsts)
        last = ", ".join(f"{curve[-1]['mean']:.0f}" for curve in curves)
        seconds = f"{np.median([curve[-1]['cpu_seconds'] for curve in curves]):.0f}"
        rows.append((variant, str(len(runs)), solved, needed, last, seconds))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, then write ``table.md``; ``argv`` defaults to the command line."""
    parser = argparse.ArgumentParser(prog="python -m jepa_agent.experiments.curiosity", description="Rewards seldom met.")
    parser.add_argument("--output", type=Path, default=Path("experiments/results/curiosity"), help="folder of the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="seeds of training")
    parser.add_argument(
        "--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="with curiosity, without"
    )
    parser.add_argument("--steps", type=int, default=10_000, help="environment steps of a run")
    parser.add_argument("--every", type=int, default=500, help="steps between evaluations")
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = parser.parse_args(arguments)
    refuse_links(options.output)
    command = shlex.join(["python", "-m", "jepa_agent.experiments.curiosity", *arguments])
    for seed in options.seeds:
        for variant in options.variants:
            file = options.output / f"{variant}-seed{seed}.json"
            if file.exists():
                continue
            found = train(variant, seed, options.steps, options.every)
            options.output.mkdir(parents=True, exist_ok=True)
            write_json(file, {"env": ENV, **found, "command": command, "versions": versions(), "cpu": cpu_model()})
            print(f"{file.name}: {found['evaluations'][-1]['mean']:.1f}", flush=True)
    (options.output / "table.md").write_text(table(options.output) + "\n")


if __name__ == "__main__":
    main()
