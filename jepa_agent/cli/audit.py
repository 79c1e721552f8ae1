"""``jepa-agent audit``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from jepa_agent.cli import trained
from jepa_agent.cli.common import UsageError, console, say, writable_folder
from jepa_agent.cli.flags import parser_of
from jepa_agent.cli.tables import print_rows
from jepa_agent.experiments.audit import MEANING, audit
from jepa_agent.experiments.figures import save
from jepa_agent.experiments.folders import refuse_links, saved_to
from jepa_agent.experiments.records import write_json
from jepa_agent.learning.diagnostics import signs_of_collapse


def run(argv: Sequence[str]) -> int:
    """Play, judge, print the table, write ``audit.json`` and ``audit.png``."""
    options = trained.parse(parser_of("audit"), argv)
    agent = trained.load(options)
    agent.env.close()  # others are made to play in
    folder = Path(options.output) if options.output else agent.path.parent
    refuse_links(folder)
    writable_folder(folder)
    asked = {"episodes": options.episodes, "steps": options.steps, "seed": options.seed}
    try:
        with console.status("playing"):
            found, figure = audit(agent.model, agent.env_id, agent.env_kwargs, **asked)
    except ValueError as error:
        raise UsageError(str(error)) from error
    known = {name: value if math.isfinite(value) else None for name, value in found.items()}
    rows = [{"number": name, "value": _short(value), "meaning": MEANING[name]} for name, value in known.items()]
    print_rows(options.format, rows)
    where = saved_to(folder / "audit.json")
    write_json(folder / "audit.json", {"agent": agent.path.name, "env": agent.env_id, "asked": asked, **known})
    save(figure, folder / "audit.png")
    if options.format == "table":
        for sign in signs_of_collapse(found, {}).values():
            say(f"collapse: {sign}")
        if not agent.model._n_updates:
            say("values have learned nothing yet: numbers of value, cost and plan are those of fresh networks")
        if None in known.values():
            say("-: nothing to tell, as all states that were judged look alike or came to cost the same")
        say(f"{where} and audit.png")
    return 0


def _short(value: float | None) -> float | None:
    """Three digits that count."""
    return None if value is None else float(f"{value:.3g}")
