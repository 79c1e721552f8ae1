"""The results table of README.md, made from the committed runs: ``python -m jepa_agent.experiments.readme``."""

from __future__ import annotations

from pathlib import Path

from jepa_agent.experiments.records import read_curves
from jepa_agent.experiments.report import markdown_table
from jepa_agent.experiments.statistics import summarise

STUDIES = {"cartpole": 475.0, "pendulum": -200.0}
START, END = "<!-- results -->", "<!-- /results -->"


def results_table(results: Path) -> str:
    """The table of all published studies below ``results``."""
    summaries = [s for name, threshold in STUDIES.items() for s in summarise(read_curves(results / name), threshold)]
    return markdown_table(summaries)


def with_results(text: str, table: str) -> str:
    """``text`` with ``table`` between its two markers."""
    before, rest = text.split(START)
    after = rest.split(END)[1]
    return f"{before}{START}\n{table}\n{END}{after}"


def main() -> None:
    """Rewrite README.md in the current folder."""
    readme = Path("README.md")
    readme.write_text(with_results(readme.read_text(), results_table(Path("experiments/results"))))


if __name__ == "__main__":
    main()
