"""Files that are odd or hostile cost their own curve and one line, and links are not written through."""

import json

import numpy as np
import pytest

from jepa_agent.cli import main
from jepa_agent.experiments.folders import FolderError, refuse_links
from jepa_agent.experiments.records import EVALUATIONS, RESULT, RunSpec, spec_as_dict, write_json
from jepa_agent.experiments.series import read_series
from jepa_agent.persistence.plain_data import parse_json

SPEC = RunSpec("PPO", "CartPole-v1", 0, 20, 20, 2)
DEEP = "[" * 100_000
ROW = {"step": 20, "mode": "policy", "returns": [1.0, 3.0], "cpu_seconds": 1.0, "ms_per_step": 0.1}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (RESULT, DEEP),
        (EVALUATIONS, DEEP),
        (EVALUATIONS, json.dumps({**ROW, "returns": [["a"]]})),
        (EVALUATIONS, json.dumps({**ROW, "returns": ["a", "b"]})),
        (EVALUATIONS, json.dumps({**ROW, "returns": [None, 1.0]})),
        (EVALUATIONS, json.dumps({**ROW, "returns": []})),
        (EVALUATIONS, json.dumps({**ROW, "step": "later"})),
        (EVALUATIONS, json.dumps({**ROW, "step": {}})),
        ("0.monitor.csv", f"#{DEEP}\nr,l,t\n1,2,3\n"),
    ],
)
def test_an_odd_file_costs_its_own_curve_and_one_line(tmp_path, capsys, name, content):
    good, bad = tmp_path / "runs" / "good", tmp_path / "runs" / "bad"
    good.mkdir(parents=True)
    np.savez(good / "evaluations.npz", timesteps=[10, 20], results=np.ones((2, 2)))
    bad.mkdir()
    if name == EVALUATIONS:
        write_json(bad / RESULT, {"spec": spec_as_dict(SPEC)})
    (bad / name).write_text(content)
    told = []
    [series] = read_series(tmp_path / "runs", on_skip=told.append)
    assert series.label == "runs/good"
    [line] = told
    assert str(bad) in line
    assert main(["plot", str(tmp_path / "runs"), "--output", str(tmp_path / "curves.png")]) == 0
    assert capsys.readouterr().out.count("left out: ") == 1


def test_what_nests_too_deeply_is_no_json():
    with pytest.raises(ValueError, match="nests too deeply"):
        parse_json(DEEP)
    assert parse_json('{"a": [1]}') == {"a": [1]}


@pytest.mark.parametrize("name", ["report.md", "report.html", "summary.json", "figures"])
def test_a_comparison_is_not_reported_through_a_link(tmp_path, capsys, name):
    folder, victim = tmp_path / "out", tmp_path / "precious"
    flags = ["--env", "CartPole-v1", "--baselines", "PPO", "--seeds", "1", "-n", "20", "--eval-freq", "20"]
    flags += ["--eval-episodes", "2"]
    spec = RunSpec("PPO", "CartPole-v1", 0, 20, 20, 2)
    write_json(spec.folder(folder) / RESULT, {"spec": spec_as_dict(spec)})
    (spec.folder(folder) / EVALUATIONS).write_text(json.dumps(ROW))
    victim.write_text("precious")
    (folder / name).symlink_to(victim)
    assert main(["compare", *flags, "--output", str(folder), "--report-only"]) == 2
    assert "symbolic link" in capsys.readouterr().err
    assert victim.read_text() == "precious"


def test_planners_are_not_measured_through_a_link(tmp_path, capsys):
    (tmp_path / "compute.png").symlink_to(tmp_path / "precious")
    assert main(["plan-bench", "--exact", "pendulum", "--quick", "--output", str(tmp_path)]) == 2
    assert "symbolic link" in capsys.readouterr().err
    with pytest.raises(FolderError):
        refuse_links(tmp_path)
