"""Latents watched by default: how often healthy runs are warned of, and what watching costs.

``python -m jepa_agent.experiments.watching`` trains with the defaults and counts warnings of collapse. Runs of the first
seed are made twice, unwatched and watched, one after the other. Each run is a file of its own: an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_agent import JEPA
from jepa_agent.callbacks import LatentCallback
from jepa_agent.experiments.folders import refuse_links
from jepa_agent.experiments.machine import cpu_model, versions
from jepa_agent.experiments.records import write_json

ENVS = ("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCarContinuous-v0")


class TimedWatch(LatentCallback):
    """Measures as by default, and keeps what was measured and the CPU seconds that it took.

    Args:
        freq: Environment steps between two measurements; 0 measures never.
    """

    def __init__(self, freq: int):
        super().__init__(freq)
        self.cpu_seconds = 0.0
        self.measured: list[dict[str, float]] = []

    def measure(self) -> dict[str, float]:
        began = time.process_time()
        measures = super().measure()
        self.cpu_seconds += time.process_time() - began
        self.measured.append({"step": self.num_timesteps, **{name: round(value, 4) for name, value in measures.items()}})
        return measures


def run(env: str, seed: int, steps: int, watched: bool) -> dict[str, Any]:
    """Train once.

    Args:
        env: Gymnasium id.
        seed: Of everything.
        steps: Environment steps.
        watched: Whether latents are measured.

    Returns:
        The last episode's return, warnings of collapse, CPU seconds of training and of watching, and what was measured.
    """
    model = JEPA("MlpPolicy", env, seed=seed, device="cpu")
    watch = TimedWatch(LatentCallback().freq if watched else 0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        began = time.process_time()
        model.learn(steps, callback=watch)
        spent = time.process_time() - began
    returns = [float(episode["r"]) for episode in model.ep_info_buffer or ()]
    return {
        "env": env,
        "seed": seed,
        "steps": steps,
        "watched": watched,
        "warnings": [str(one.message) for one in told if "collapse begins" in str(one.message)],
        "cpu_seconds": round(spent, 2),
        "cpu_seconds_watching": round(watch.cpu_seconds, 3),
        "best_return": max(returns, default=None),
        "last_return": returns[-1] if returns else None,
        "measured": watch.measured,
    }


def table(folder: Path) -> str:
    """A Markdown table of what a folder holds: a row per environment, and one for all.

    Args:
        folder: Of the results.
    """
    found = [json.loads(file.read_text()) for file in sorted(folder.glob("*-seed*.json"))]
    rows: list[tuple[str, ...]] = [
        ("environment", "watched runs", "warnings", "best return, median", "CPU time watching", "watched / unwatched"),
        ("---", *["---:"] * 5),
    ]
    for env in [*dict.fromkeys(result["env"] for result in found), None]:
        own = [result for result in found if env in (None, result["env"])]
        on, off = ([r for r in own if r["watched"] == watched] for watched in (True, False))
        paired = {(r["env"], r["seed"]): r["cpu_seconds"] for r in off}
        ratios = [r["cpu_seconds"] / paired[r["env"], r["seed"]] for r in on if (r["env"], r["seed"]) in paired]
        share = sum(r["cpu_seconds_watching"] for r in on) / sum(r["cpu_seconds"] for r in on)
        best = [r["best_return"] for r in on if r["best_return"] is not None]
        rows.append(
            (
                env or "all",
                str(len(on)),
                str(sum(len(r["warnings"]) for r in on)),
                f"{np.median(best):.0f}" if env and best else "-",
                f"{100 * share:.1f} %",
                f"{np.mean(ratios):.3f} ({len(ratios)})" if ratios else "-",
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, then write ``table.md``; ``argv`` defaults to the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m jepa_agent.experiments.watching", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--output", type=Path, default=Path("experiments/results/watching"), help="folder of the results")
    parser.add_argument("--envs", nargs="+", default=list(ENVS), help="Gymnasium ids")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="seeds of everything")
    parser.add_argument("--steps", type=int, default=1_500, help="environment steps of each run")
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = parser.parse_args(arguments)
    refuse_links(options.output)
    torch.set_num_threads(1)
    shared = {
        "command": shlex.join(["python", "-m", "jepa_agent.experiments.watching", *arguments]),
        "versions": versions(),
        "cpu": cpu_model(),
    }
    for seed in options.seeds:
        for env in options.envs:
            for watched in (False, True) if seed == options.seeds[0] else (True,):
                name = f"{env}-{'watched' if watched else 'unwatched'}-seed{seed}.json"
                if not (options.output / name).exists():
                    result = run(env, seed, options.steps, watched)
                    options.output.mkdir(parents=True, exist_ok=True)
                    write_json(options.output / name, {**result, **shared})
    (options.output / "table.md").write_text(table(options.output) + "\n")


if __name__ == "__main__":
    main()
