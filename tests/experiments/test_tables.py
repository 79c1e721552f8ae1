"""The tables of the README, on results whose tables are known."""

import json

import pytest

from jepa_agent.experiments.modes_report import Cell
from jepa_agent.experiments.readme import between, memory_table, modes_table, planners_table
from jepa_agent.experiments.records import RunSpec, spec_as_dict


def test_a_mode_s_mean_is_over_environments(tmp_path):
    cells = [
        Cell(env, "defaults", mode, 3, 0.0, score, 0.0, None, searched, 0.0, 1.0)
        for env, mode, score, searched in (
            ("A-v0", "actor", 0.5, 0.0),
            ("A-v0", "auto", 0.75, 1.0),
            ("B-v0", "actor", 0.25, 0.0),
            ("B-v0", "auto", 0.5, 0.5),
        )
    ]
    (tmp_path / "modes").mkdir()
    (tmp_path / "modes/summary.json").write_text(json.dumps({"cells": [cell._asdict() for cell in cells]}))
    assert modes_table(tmp_path).splitlines()[2:6] == [
        "| A-v0 (3) | 0.500 | 0.750 |",
        "| B-v0 (3) | 0.250 | 0.500 |",
        "| mean | 0.375 | 0.625 |",
        "| share of steps with a search | 0.00 | 0.75 |",
    ]


def test_planners_are_shown_at_equal_milliseconds(tmp_path):
    def row(study, planner, mean):
        return {"study": study, "planner": planner, "value": 1.0, "returns": [mean], "gap": 0.5, "ms": 4.0, "candidates": 80}

    rows = [row("equal mflop", "cem", 1.0), row("equal ms", "cem", 2.0), row("equal ms", "mppi", 3.0)]
    measured = {"design": {"budgets": [1.0]}, "standard": {"mflop": 5.0, "ms": 4.0}, "rows": rows}
    (tmp_path / "planners/A-v0").mkdir(parents=True)
    (tmp_path / "planners/A-v0/results.json").write_text(json.dumps(measured))
    assert planners_table(tmp_path).splitlines()[2:] == [
        "| A-v0 | mppi | 3.0 | +0.50 | 4.0 | 80 |",
        "| A-v0 | cem | 2.0 | +0.50 | 4.0 | 80 |",
    ]


def test_a_run_without_memory_stands_beside_one_with(tmp_path):
    env = "JEPA/CartPoleNoVel-v1"
    for algorithm, means in (("JEPA", (20.0, 30.0)), ("JEPA+gru", (100.0, 460.0))):
        spec = RunSpec(algorithm, env, 0, 20_000, 1000, 1, modes=("auto",))
        folder = spec.folder(tmp_path / "memory")
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({"spec": spec_as_dict(spec), "finished": True}))
        rows = [
            {"step": 1000 * (k + 1), "mode": "auto", "returns": [mean], "cpu_seconds": 10.0 * (k + 1), "ms_per_step": 1.0}
            for k, mean in enumerate(means)
        ]
        (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = memory_table(tmp_path)
    assert "| JEPA/CartPoleNoVel-v1, 450 | 20,000 | none | - (0/1) | 30 |" in table
    assert "| JEPA/CartPoleNoVel-v1, 450 | 20,000 | gru | 2,000 steps, 20.0 s (1/1) | 460 |" in table


def test_a_table_goes_between_its_markers_and_nowhere_else():
    text = "a <!-- x -->old<!-- /x --> b <!-- y --><!-- /y -->"
    assert between(text, "x", "new") == "a <!-- x -->\nnew\n<!-- /x --> b <!-- y --><!-- /y -->"
    with pytest.raises(ValueError, match="expected one <!-- z -->, found 0"):
        between(text, "z", "new")
