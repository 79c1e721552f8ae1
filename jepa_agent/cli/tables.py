"""Rows printed for people or for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from jepa_agent.cli.common import console, say


def print_rows(how: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print rows that have the same keys; for people a table, columns side by side where there is no terminal.

    Args:
        how: ``table``, ``csv`` or ``json``.
        rows: At least one.
    """
    if how == "json":
        say(json.dumps(list(rows), indent=2))
    elif how == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        say(text.getvalue().rstrip("\n"))
    elif console.is_terminal:
        table = Table()
        for place, column in enumerate(rows[0]):
            # Names are copied from the first column: it is never broken.
            table.add_column(column, justify="right" if _is_number(rows[0][column]) else "left", no_wrap=not place)
        for row in rows:
            table.add_row(*(escape(_cell(value)) for value in row.values()))
        console.print(table)
    else:
        lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
        widths = [max(len(line[place]) for line in lines) for place in range(len(rows[0]))]
        for line in lines:
            say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))
