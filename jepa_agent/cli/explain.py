"""``jepa-agent explain``."""

from __future__ import annotations

from collections.abc import Sequence

from jepa_agent.cli import trained
from jepa_agent.cli.common import SEED, Parser, UsageError, modes_help, say
from jepa_agent.cli.pictures import picture_path
from jepa_agent.experiments.evaluation import bounded
from jepa_agent.experiments.planner_figures import plot_explanation
from jepa_agent.pictures.episode import explain


def build_parser() -> Parser:
    """The verb's flags."""
    parser = Parser(
        "explain",
        "Draw one episode: who acted, predicted and realised cost, surprise, and imagined against observed latents.",
        "jepa-agent explain runs/jepa/Pendulum-v1_1 --mode auto --output explained.png",
    )
    trained.add_arguments(parser)
    parser.add_argument("--mode", type=str, default="auto", help=f"who acts: {modes_help()}")
    parser.add_argument("--seed", type=SEED, default=1_000, help="seed of the episode")
    parser.add_argument("--output", type=str, default="explained.png", help="the picture; its suffix decides the format")
    return parser


def run(argv: Sequence[str]) -> int:
    """Play the episode, draw it, say where."""
    options = trained.parse(build_parser(), argv)
    output = picture_path(options.output)
    agent = trained.load(options)
    trained.check_modes(agent, options.mode)
    with trained.playing(agent):
        agent.model.set_mode(options.mode)
        told = explain(agent.model.policy, bounded(agent.env), options.mode, options.seed)
    try:
        plot_explanation(told, output)
    except ValueError as error:
        raise UsageError(str(error)) from error
    say(f"saved to {output}: return {-told.cost.sum():.1f} in {len(told.cost)} steps")
    return 0
