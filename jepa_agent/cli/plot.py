"""``jepa-agent plot``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jepa_agent.cli.common import UsageError, say
from jepa_agent.cli.flags import parser_of
from jepa_agent.cli.pictures import picture_path
from jepa_agent.experiments.figures import plot_series
from jepa_agent.experiments.folders import saved_to
from jepa_agent.experiments.series import by_label, read_all


def run(argv: Sequence[str]) -> int:
    """Read, draw, say where."""
    options = parser_of("plot").parse(argv)
    output = picture_path(options.output)
    where = saved_to(output)
    try:
        series = read_all([Path(name) for name in options.runs], options.window, lambda why: say(f"left out: {why}"))
        plot_series({name: [(s.steps, s.returns) for s in own] for name, own in by_label(series).items()}, output)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    say(f"{where}: {len(series)} {'run' if len(series) == 1 else 'runs'}")
    return 0
