"""``jepa-agent plot``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse.typing import PositiveInt

from jepa_agent.cli.common import Parser, UsageError, say
from jepa_agent.cli.pictures import picture_path
from jepa_agent.experiments.figures import plot_series
from jepa_agent.experiments.series import by_label, read_all


def build_parser() -> Parser:
    """The verb's flags."""
    parser = Parser(
        "plot",
        "Draw learning curves from any mix of run folders: ours, comparisons, monitor files, rl_zoo3's evaluations.npz.",
        "jepa-agent plot runs/pendulum logs/sac/Pendulum-v1_1 --output curves.png",
    )
    parser.add_argument(
        "runs",
        type=str,
        nargs="+",
        help="folders, or evaluations.npz; runs below one folder that differ in their number are averaged",
    )
    parser.add_argument("--output", type=str, default="curves.png", help="the picture; its suffix decides the format")
    parser.add_argument("--window", type=PositiveInt, default=10, help="episodes to average in monitor files")
    return parser


def run(argv: Sequence[str]) -> int:
    """Read, draw, say where."""
    options = build_parser().parse(argv)
    output = picture_path(options.output)
    try:
        series = read_all([Path(name) for name in options.runs], options.window, lambda why: say(f"left out: {why}"))
        plot_series({name: [(s.steps, s.returns) for s in own] for name, own in by_label(series).items()}, output)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    say(f"saved to {output}: {len(series)} runs")
    return 0
