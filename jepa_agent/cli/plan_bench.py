"""``jepa-agent plan-bench``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from jepa_agent.cli import trained
from jepa_agent.cli.common import UsageError, console, make_env, say
from jepa_agent.cli.flags import parser_of
from jepa_agent.config import did_you_mean
from jepa_agent.experiments.evaluation import bounded
from jepa_agent.experiments.exact_models import EXACT_MODELS
from jepa_agent.experiments.folders import refuse_links
from jepa_agent.experiments.laboratory import HORIZONS, Laboratory, compared, design_for, planners_for
from jepa_agent.experiments.planner_figures import plot_compute
from jepa_agent.experiments.players import ExactPlayer, Player, TrainedAgent


def run(argv: Sequence[str]) -> int:
    """Measure, print the comparisons, draw."""
    options = parser_of("plan-bench").parse(argv)
    player = player_of(options)
    with closing(make_env(player.env_id, player.env_kwargs)) as env:
        fitting = planners_for(env.action_space)
    unknown = set(options.planners or ()) - set(fitting)
    if unknown:
        hint = did_you_mean(min(unknown), fitting)
        raise UsageError(f"--planners {', '.join(sorted(unknown))}: not for {player.env_id}{hint}")
    design = design_for(
        tuple(options.planners or fitting),
        options.horizon or HORIZONS[options.exact or "agent"],
        tuple(options.budgets),
        options.episodes,
        options.seed,
        options.quick,
    )
    folder = Path(options.output)
    refuse_links(folder)
    command = " ".join(["jepa-agent plan-bench", *argv])
    try:
        laboratory = Laboratory(
            player, lambda: bounded(make_env(player.env_id, player.env_kwargs)), design, folder / "results.json", command
        )
        with console.status("measuring") as status:
            result = laboratory.run(lambda what: status.update(f"measuring {what}"))
    except ValueError as error:
        raise UsageError(str(error)) from error
    show(result)
    plot_compute(result, folder / "compute.png")
    say(f"saved to {folder}: results.json, compute.png")
    return 0


def player_of(options: Any) -> Player:
    """The exact model or the trained agent that was asked for; `UsageError` unless it is one of them."""
    if (options.model is None) == (options.exact is None):
        raise UsageError("name either a trained agent or --exact pendulum, --exact cartpole")
    if options.exact and (options.env or options.env_kwargs):
        raise UsageError(f"--exact {options.exact} brings its own environment: leave --env and --env-kwargs out")
    if options.exact:
        return ExactPlayer(EXACT_MODELS[options.exact](), f"exact {options.exact}")
    agent = trained.load_as_trained(options.model, options.env, options.env_kwargs, "cpu")
    agent.env.close()  # others are made to play in
    name = f"agent after {agent.model.num_timesteps:,} steps of {agent.env_id}"
    identity = sha256(agent.path.read_bytes() + json.dumps(agent.env_kwargs, sort_keys=True).encode()).hexdigest()
    return TrainedAgent(agent.model, name, agent.env_id, agent.env_kwargs, identity)


def show(result: dict[str, Any]) -> None:
    """Print the comparisons at equal compute."""
    best = result["best"]
    if best is not None:
        say(f"the best there is: mean return {np.mean(best):.1f}")
    say(f"operations: {result['unit']}")
    say("gap: predicted less realised cost of plans; below zero they promise more than they keep")
    for title, rows in compared(result):
        table = Table(title=title, title_justify="left")
        for name in ("planner", "mean return", "std", "gap", "MFLOP", "ms", "candidates", "per s"):
            table.add_column(name, justify="left" if name == "planner" else "right")
        for row in rows:
            table.add_row(
                row["planner"],
                f"{np.mean(row['returns']):.1f}",
                f"{np.std(row['returns']):.1f}",
                "" if row["gap"] is None else f"{row['gap']:+.2f}",
                f"{row['mflop']:.3g}",
                f"{row['ms']:.2f}",
                f"{row['candidates']:,}",
                f"{1e3 * row['candidates'] / row['ms']:,.0f}",
            )
        console.print(table)
