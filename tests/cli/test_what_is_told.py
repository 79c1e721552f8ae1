"""What the command line tells: a line per evaluation, commands that can be pasted, rows for programs."""

import csv
import io
import json
import re
import sys

import pytest

from jepa_agent.cli import main
from jepa_agent.cli.common import program

SMALL = ["--agent.learning_starts", "10", "--agent.batch_size", "8", "--model.latent_dim", "8", "--model.net_arch", "[8]"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("told") / "run"
    call = [
        "train",
        "--env",
        "CartPole-v1",
        "-n",
        "40",
        "--eval-freq",
        "20",
        "--eval-episodes",
        "2",
        "--output",
        str(folder),
    ]
    assert main([*call, "--eval-mode", "actor", *SMALL]) == 0
    return folder


def test_train_tells_of_every_evaluation_and_of_the_best_and_the_last(tmp_path, capsys):
    call = ["train", "--env", "CartPole-v1", "-n", "40", "--eval-freq", "20", "--eval-episodes", "2", "--eval-mode", "actor"]
    assert main([*call, "--output", str(tmp_path / "run"), *SMALL]) == 0
    told = capsys.readouterr().out
    lines = [line.split() for line in told.splitlines() if line.startswith("step ")]
    assert [line[1] for line in lines] == ["20", "40"]
    assert lines[0][2] == "eval"
    assert lines[0][-4] == "best"  # the first is always the best so far
    best, last = re.search(r"best ([\d.]+) at step \d+, last ([\d.]+); \d+ CPU s of training", told).groups()
    assert float(best) == max(float(line[3]) for line in lines)
    assert float(last) == float(lines[-1][3])


def test_a_run_that_goes_on_tells_from_where_and_remembers_the_best(run_folder, capsys):
    assert main(["train", "--resume", str(run_folder), "-n", "60"]) == 0
    told = capsys.readouterr().out
    assert "going on from step 40" in told
    assert re.search(r"best [\d.]+ at step \d+, last", told)


def test_cpu_seconds_go_on_where_the_run_was_stopped(tmp_path, capsys, monkeypatch):
    from jepa_agent import JEPA

    clock = iter(range(0, 10**9, 100))  # CPU seconds, of which each call finds 100 more
    monkeypatch.setattr("time.process_time", lambda: next(clock))
    call = ["train", "--env", "CartPole-v1", "-n", "40", "--eval-freq", "20", "--eval-episodes", "1", "--mode", "actor"]
    assert main([*call, "--output", str(tmp_path / "run"), *SMALL]) == 0
    first = int(re.search(r"(\d+) CPU s of training", capsys.readouterr().out)[1])
    assert first == JEPA.load(tmp_path / "run" / "last_model.zip")._cpu_seconds > 0
    assert main(["train", "--resume", str(tmp_path / "run"), "-n", "60"]) == 0
    told = capsys.readouterr().out
    [seconds] = [int(line.split()[-3]) for line in told.splitlines() if line.startswith("step ")]
    assert seconds > first
    assert int(re.search(r"(\d+) CPU s of training", told)[1]) > seconds


def test_evaluation_in_another_mode_leaves_the_one_that_collects(tmp_path):
    call = ["train", "--env", "CartPole-v1", "-n", "30", "--eval-freq", "15", "--eval-episodes", "1", "--mode", "every_3"]
    assert main([*call, "--eval-mode", "actor", "--output", str(tmp_path / "run"), *SMALL]) == 0
    from jepa_agent import JEPA

    assert JEPA.load(tmp_path / "run" / "last_model.zip").policy.mode_switch.k == 3


def test_few_updates_for_many_environments_are_told(tmp_path, capsys):
    call = ["train", "--env", "CartPole-v1", "-n", "40", "--eval-freq", "0", "--n-envs", "4", "--agent.gradient_steps", "1"]
    assert main([*call, "--output", str(tmp_path / "run"), *SMALL]) == 0
    assert "note: 4 environments, so 1 update(s) for every 4 steps" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["csv", "json"])
def test_evaluate_prints_rows_that_programs_read(run_folder, how, capsys):
    assert main(["evaluate", str(run_folder), "--episodes", "1", "--format", how]) == 0
    told = capsys.readouterr().out
    rows = json.loads(told) if how == "json" else list(csv.DictReader(io.StringIO(told)))
    assert [row["mode"] for row in rows] == ["actor (Mode-1)", "planner (Mode-2)", "auto"]
    assert all(float(row["mean return"]) > 0 for row in rows)


def test_evaluate_says_which_file_of_which_step_it_loaded(run_folder, capsys):
    assert main(["evaluate", str(run_folder / "last_model.zip"), "--episodes", "1", "--modes", "actor"]) == 0
    assert re.search(r"last_model\.zip, saved at step \d+; 1 episodes", capsys.readouterr().out)


def test_piped_rows_are_plain_and_never_broken(capsys):
    assert main(["envs", "JEPA/"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].split() == ["environment", "observations", "actions", "supported"]
    assert any(line.startswith("JEPA/CartPoleNoVel-v1 ") for line in told)


def test_a_program_is_named_as_it_can_be_pasted(tmp_path, monkeypatch):
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "jepa-agent"):
        (folder / name).touch(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin")
    assert program("jepa-agent") == "venv/bin/jepa-agent"
    monkeypatch.setenv("PATH", str(folder))
    assert program("jepa-agent") == "jepa-agent"
    assert program("tensorboard") == "tensorboard"  # not installed beside it
