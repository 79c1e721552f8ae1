import json
from pathlib import Path

import pytest

from jepa_agent.experiments.progress import cost_per_step, key, read_progress, remaining_seconds
from jepa_agent.experiments.records import EVALUATIONS, RESULT, RunSpec, spec_as_dict, write_json

SPECS = [RunSpec(name, "CartPole-v1", seed, 1000, 100) for name in ("JEPA", "PPO") for seed in range(2)]


def evaluated(spec: RunSpec, root: Path, *rows: dict, tail: str = "") -> None:
    folder = spec.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / EVALUATIONS).write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)


def test_progress_is_the_last_whole_evaluation(tmp_path: Path) -> None:
    rows = [{"step": step, "mode": mode, "mean": step + 0.5} for step in (100, 200) for mode in ("actor", "planner")]
    evaluated(SPECS[0], tmp_path, *rows)
    assert read_progress(SPECS[0], tmp_path) == (200, {"actor": 200.5, "planner": 200.5})
    evaluated(SPECS[0], tmp_path, *rows, tail='{"step": 300, "mo')
    assert read_progress(SPECS[0], tmp_path).step == 200
    assert read_progress(SPECS[1], tmp_path) == (0, {})


def test_what_is_left_is_reckoned_from_what_finished_runs_took(tmp_path: Path) -> None:
    done = {"spec": spec_as_dict(SPECS[2]), "total_cpu_seconds": 50.0, "steps": 1000}
    write_json(SPECS[2].folder(tmp_path) / RESULT, done)
    assert cost_per_step(SPECS, tmp_path)[key(SPECS[3])] == 0.05
    evaluated(SPECS[3], tmp_path, {"step": 600, "mode": "policy", "mean": 1.0})
    assert remaining_seconds([], [SPECS[3]], SPECS, tmp_path, jobs=4) == pytest.approx(400 * 0.05)
    assert remaining_seconds([SPECS[3]], [], SPECS, tmp_path, jobs=4) == pytest.approx(1000 * 0.05)  # it starts afresh
    typical = cost_per_step(SPECS, tmp_path)[key(SPECS[0])]
    assert remaining_seconds(SPECS[:2], [], SPECS, tmp_path, jobs=2) == pytest.approx(1000 * typical)
    assert remaining_seconds([], [], SPECS, tmp_path, jobs=2) == 0.0
