"""Tables and JSON summaries of a study's results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jepa_agent.experiments.figures import name_of
from jepa_agent.experiments.records import write_json
from jepa_agent.experiments.statistics import Interval, Spread, Summary
from jepa_agent.extras import needs

with needs("compare"):
    from rich import box
    from rich.console import Console
    from rich.table import Table

HEADINGS = ("n", "reached", "every", "steps", "CPU s", "final", "last 3", "ms/step")
_CAPTION = (
    "steps and CPU seconds of training to the threshold: median (least..most) of n runs, \u2264 where the first evaluation "
    "sufficed; "
    "final: mean return (95% interval); last 3: mean of a run's last three evaluations, median (least..most); "
    "ms/step: CPU milliseconds while evaluating, of deciding and of the environment"
)


def print_table(summaries: Sequence[Summary], console: Console | None = None) -> None:
    """Print a table per environment with a row per algorithm and mode; "-" means not reached or not known.

    Args:
        summaries: Summaries of any number of environments.
        console: Rich console to print to; standard output by default.
    """
    console = console or Console()
    for env, threshold in dict.fromkeys((summary.env, summary.threshold) for summary in summaries):
        title = f"{env}, threshold {threshold:g}"
        table = Table(title=title, caption=_CAPTION, box=box.SIMPLE)
        table.add_column("agent", overflow="fold")
        shown = [place for place, heading in enumerate(HEADINGS) if heading != "every"]  # terminals are narrow
        for place in shown:
            table.add_column(HEADINGS[place], justify="right", overflow="fold")
        for summary in summaries:
            if summary.env == env:
                agent, *values = cells(summary)
                table.add_row(agent, *(values[place] for place in shown))
        console.print(table)


def write_summary(summaries: Sequence[Summary], command: str, path: Path) -> None:
    """Write summaries as JSON; null means not reached.

    Args:
        summaries: Summaries to write.
        command: Shell command that reproduces them.
        path: File to write.
    """
    rows = [
        # `_asdict` does not convert nested named tuples, which JSON would make nameless lists.
        {name: value._asdict() if isinstance(value, Spread) else value for name, value in summary._asdict().items()}
        for summary in summaries
    ]
    write_json(path, {"command": command, "summaries": rows})


def cells(summary: Summary) -> list[str]:
    """Return a row of the table as text: the agent, then one cell for each of `HEADINGS`."""
    return [
        name_of(summary.algorithm, summary.mode),
        str(summary.n_seeds),
        f"{summary.n_reached}/{summary.n_seeds}",
        f"{summary.eval_freq:,}",
        # Steps are known only up to the interval between evaluations.
        at_first(summary) + _spread(summary.steps, ",.0f"),
        _spread(summary.cpu_seconds, ",.1f"),
        f"{summary.final_return:.1f} {_interval(summary.final_interval)}",
        _spread(summary.last_three, ",.1f"),
        f"{summary.ms_per_step:.2f}",
    ]


def at_first(summary: Summary) -> str:
    """Return a "less or equal" sign where the median run reached the threshold by the first evaluation, else nothing.

    How many steps fewer would have been enough is then unknown.
    """
    return "\u2264 " if summary.steps.median is not None and summary.steps.median <= summary.eval_freq else ""


def _spread(spread: Spread, style: str) -> str:
    """Format a median and its range; "-" where no run reached the threshold."""
    if spread.low is None or spread.high is None:
        return "-"
    median = "-" if spread.median is None else format(spread.median, style)
    return f"{median} ({spread.low:{style}}..{spread.high:{style}})"


def _interval(interval: Interval | None) -> str:
    """Format an interval; "(-)" where there is none."""
    return "(-)" if interval is None else f"({interval[0]:.1f}..{interval[1]:.1f})"
