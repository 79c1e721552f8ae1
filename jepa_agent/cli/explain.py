"""``jepa-agent explain``."""

from __future__ import annotations

from collections.abc import Sequence

from jepa_agent.cli import trained
from jepa_agent.cli.common import UsageError, say
from jepa_agent.cli.flags import parser_of
from jepa_agent.cli.pictures import picture_path
from jepa_agent.experiments.evaluation import bounded
from jepa_agent.experiments.folders import saved_to
from jepa_agent.experiments.planner_figures import plot_explanation
from jepa_agent.pictures.episode import explain


def run(argv: Sequence[str]) -> int:
    """Play the episode, draw it, say where."""
    options = trained.parse(parser_of("explain"), argv)
    output = picture_path(options.output)
    agent = trained.load(options)
    trained.check_modes(agent, options.mode)
    with trained.playing(agent):
        agent.model.set_mode(options.mode)
        told = explain(agent.model.policy, bounded(agent.env), options.mode, options.seed)
    where = saved_to(output)
    try:
        plot_explanation(told, output)
    except ValueError as error:
        raise UsageError(str(error)) from error
    say(f"{where}: return {-told.cost.sum():.1f} in {len(told.cost)} steps")
    return 0
