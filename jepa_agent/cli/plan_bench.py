"""``jepa-agent plan-bench``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jsonargparse.typing import PositiveFloat, PositiveInt
from rich.table import Table

from jepa_agent.cli import trained
from jepa_agent.cli.common import SEED, Parser, UsageError, console, make_env, say
from jepa_agent.experiments.evaluation import bounded
from jepa_agent.experiments.exact_models import EXACT_MODELS
from jepa_agent.experiments.folders import refuse_links
from jepa_agent.experiments.laboratory import HORIZONS, Laboratory, compared, design_for, planners_for
from jepa_agent.experiments.planner_figures import plot_compute
from jepa_agent.experiments.players import ExactPlayer, Player, TrainedAgent


def build_parser() -> Parser:
    """The verb's flags."""
    parser = Parser(
        "plan-bench",
        "Set planners side by side at equal operations and at equal milliseconds, on a trained agent or on a world model "
        "that makes no mistake, and draw the return against compute. Goes on where it was stopped.",
        "jepa-agent plan-bench runs/jepa/Pendulum-v1_1 --quick",
    )
    parser.add_argument("model", type=str, nargs="?", help="run folder or model file of a trained agent")
    parser.add_argument("--exact", type=Literal[tuple(EXACT_MODELS)], help="an exact model instead of a trained agent")
    parser.add_argument("--planners", type=str, nargs="+", help="kinds of planners; all that fit the actions by default")
    parser.add_argument(
        "--budgets", type=PositiveFloat, nargs="+", default=[1.0, 4.0], help="in units of the default planner"
    )
    parser.add_argument("--horizon", type=PositiveInt, help=f"imagined steps; {HORIZONS['agent']} for an agent by default")
    parser.add_argument("--episodes", type=PositiveInt, default=10, help="episodes per measurement")
    parser.add_argument("--seed", type=SEED, default=20_000, help="seed of the first episode, equal for all planners")
    parser.add_argument("--quick", action="store_true", help="three episodes and few settings: a first look")
    parser.add_argument("--output", type=str, default="runs/plan-bench", help="folder of results.json and the figure")
    trained.add_env_arguments(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Measure, print the comparisons, draw."""
    options = build_parser().parse(argv)
    player = player_of(options)
    with closing(make_env(player.env_id, player.env_kwargs)) as env:
        fitting = planners_for(env.action_space)
    unknown = set(options.planners or ()) - set(fitting)
    if unknown:
        raise UsageError(f"--planners {', '.join(sorted(unknown))}: {player.env_id} takes {', '.join(fitting)}")
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
