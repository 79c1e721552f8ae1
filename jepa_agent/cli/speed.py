"""``jepa-agent speed``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from jepa_agent.cli.common import UsageError, console, say, writable_folder
from jepa_agent.cli.flags import parser_of
from jepa_agent.experiments.folders import saved_to
from jepa_agent.experiments.records import write_json
from jepa_agent.experiments.speed import measure

Row = dict[str, Any]


def run(argv: Sequence[str]) -> int:
    """Measure, print the tables, save the numbers."""
    path = Path(parser_of("speed").parse(argv).output)
    if path.is_dir():
        raise UsageError(f"--output {path} is a folder: name a file, such as {path / 'speed.json'}")
    writable_folder(path.parent)
    with console.status("measuring") as status:
        result = measure(lambda section: status.update(f"measuring: {section}"))
    show(result)
    where = saved_to(path)
    write_json(path, {"command": f"jepa-agent speed --output {path}", **result})
    say(where)
    return 0


def show(result: dict[str, Any]) -> None:
    """Print what was measured."""
    rates = result["matmul_gflops"]
    say(f"{result['cpu']}; float32 matrix products: {max(rates):.0f} GFLOP/s; peak memory {result['peak_memory_mb']:.0f} MB")
    updates: dict[str, Callable[[Row], str]] = {
        "environment": lambda r: r["env"],
        "batch": lambda r: f"{r['batch_size']}{' (default)' if r['default'] else ''}",
        "ms": lambda r: f"{r['ms']:.2f}",
        "ms per env step": lambda r: f"{r['ms_per_env_step']:.2f}",
        "SAC's ms": lambda r: f"{r['sac_ms']:.2f}",
        "ratio per env step": lambda r: f"{r['ratio_per_env_step']:.2f}",
        "of the roofline": lambda r: f"{100 * r['roofline_fraction']:.0f} %",
    }
    _table("One update", result["update"], updates)
    parts = [{"env": f"{r['env']}, {r['batch_size']}", **r["parts_ms"]} for r in result["update"]]
    _table("Its parts, ms", parts, {name: _cell(name, ".2f") for name in parts[0]})
    plans = {name: _cell(name, ".2f") for name in ("env", "planner", "n_envs", "ms", "ms_per_env")}
    _table("One step in Mode-2", result["plan"], plans)
    _table("One deterministic action at batch 1", result["predict"], {"agent": _cell("agent"), "us": _cell("us", ".0f")})
    images = {name: _cell(name, ".2f") for name in ("batch_size", "update_ms", "actor_ms", "planner_ms")}
    _table(f"Pictures of {result['images']['shape']}", [result["images"]], images)
    training = {"env": _cell("env"), "steps per CPU second": _cell("steps_per_cpu_second", ".0f")}
    _table("Training, all included", result["training"], training)
    buffer = {name: _cell(name, spec) for name, spec in (("size", ""), ("sample_ms", ".2f"), ("memory_ratio", ".2f"))}
    _table("256 windows of 6 from a full buffer; memory taken / bytes stored", [result["buffer"]], buffer)
    growth = {"what": _cell("what"), "against": _cell("quantity"), "value": _cell("value"), "ms": _cell("ms", ".2f")}
    _table("Growth", result["growth"], growth)


def _cell(name: str, spec: str = "") -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row[name]
        return format(value, spec) if isinstance(value, float) else format(value, "," if isinstance(value, int) else "")

    return cell


def _table(title: str, rows: Sequence[Row], columns: dict[str, Callable[[Row], str]]) -> None:
    table = Table(title=title, title_justify="left")
    for name in columns:
        words = name in ("environment", "env", "planner", "agent", "what")
        table.add_column(name, justify="left" if words else "right", overflow="fold")
    for row in rows:
        table.add_row(*(cell(row) for cell in columns.values()))
    console.print(table)
