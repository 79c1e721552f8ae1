"""Runs that are stopped, by signals and by kill -9, and go on by the same command."""

import os
import signal
import time

import numpy as np
import pytest
import torch

from jepa_agent import JEPA
from jepa_agent.cli import main
from jepa_agent.cli.flags import parser_of
from jepa_agent.experiments.folders import locked

TINY = ["--model.latent_dim", "8", "--model.net_arch", "[16]", "--model.head_arch", "[8]", "--model.ensemble_size", "2"]
TRAIN = ["train", "--env", "CartPole-v1", *TINY, "--agent.learning_starts", "20", "--agent.batch_size", "16"]
SHORT = [*TRAIN, "-n", "200", "--save-freq", "40", "--keep-last", "2", "--eval-freq", "50", "--eval-episodes", "1"]


def forked(argv):
    """The command in a process of its own, which needs not import everything anew."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = main(argv)
        finally:
            os._exit(code)
    return pid


def exit_code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wait_for(condition, seconds=120):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline
        time.sleep(0.005)


def outcome(folder):
    rows = [line.split(",")[:2] for line in (folder / "0.monitor.csv").read_text().splitlines()]
    with np.load(folder / "evaluations.npz") as log:
        evaluations = {name: log[name].tolist() for name in log.files}
    return rows[1:], evaluations


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main([*SHORT, "--output", str(folder)]) == 0
    return folder


def test_a_run_that_was_killed_goes_on_by_the_same_command_and_ends_alike(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    index, rng = folder / "checkpoints" / "index.zip", np.random.default_rng(0)
    for _ in range(3):
        before = index.stat().st_mtime_ns if index.exists() else 0
        pid = forked([*SHORT, "--output", str(folder)])
        wait_for(lambda: index.exists() and index.stat().st_mtime_ns > before)  # noqa: B023
        time.sleep(rng.uniform(0.0, 0.1))
        os.kill(pid, signal.SIGKILL)
        assert exit_code(pid) in (-signal.SIGKILL, 0)
    assert main([*SHORT, "--output", str(folder)]) == 0
    assert outcome(folder) == outcome(whole)
    expected, found = (JEPA.load(run / "last_model.zip").policy.state_dict() for run in (whole, folder))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert len(list((folder / "checkpoints").glob("agent_*"))) == 2


def test_a_finished_run_says_so_and_is_extended_by_more_steps(whole, capsys):
    before = outcome(whole)
    assert main([*SHORT, "--output", str(whole)]) == 0
    out = capsys.readouterr().out
    assert "finished: 200 steps" in out
    assert f"jepa-agent train --resume {whole} -n 400" in out
    assert main(["train", "--resume", str(whole), "-n", "240"]) == 0
    assert JEPA.load(whole / "last_model.zip").num_timesteps == 240
    assert outcome(whole)[1]["timesteps"] == before[1]["timesteps"] == [50, 100, 150, 200]
    times = [float(line.split(",")[2]) for line in (whole / "0.monitor.csv").read_text().splitlines()[2:]]
    assert times == sorted(times)


def test_other_settings_are_told_in_one_line(whole, capsys):
    before = sorted(os.listdir(whole))
    assert main([*SHORT, "--output", str(whole), "--seed", "5", "--planner.horizon", "2"]) == 2
    err = capsys.readouterr().err
    assert "seed 0, now 5; planner.horizon 3, now 2" in err
    assert err.count("\n") == 1
    assert sorted(os.listdir(whole)) == before


def test_resuming_what_is_no_run_is_told(tmp_path, capsys):
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "no run there" in capsys.readouterr().err


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    call = [*TRAIN, "-n", "60", "--eval-freq", "0", "--output", str(folder)]
    (folder / "config.yml").write_text(parser_of("train").dump(parser_of("train").parse_plain(call[1:]), skip_check=True))
    (folder / "0.monitor.csv").write_text("half a li")
    assert main(call) == 0
    assert (folder / "0.monitor.csv").read_text().startswith("#")


def test_two_processes_do_not_train_in_one_folder(whole, capsys):
    with locked(whole):
        assert main([*SHORT, "--output", str(whole), "-n", "300"]) == 2
    assert f"in use by process {os.getpid()}" in capsys.readouterr().err
    (whole / ".running").write_text("1 0.0")  # left by a process that was killed; another has its number now
    assert main(["train", "--resume", str(whole), "-n", "250"]) == 0
    assert not (whole / ".running").exists()


LONG = {
    "collection": ["--agent.learning_starts", "1000000"],
    "evaluation": ["--eval-freq", "20", "--eval-episodes", "1000000"],
    "planning": ["--env", "Pendulum-v1", "--planner.num_iterations", "1000", "--planner.num_samples", "20000"],
    "updating": ["--agent.gradient_steps", "1000000"],
}


@pytest.mark.parametrize(("where", "sent"), zip(LONG, [signal.SIGINT, signal.SIGTERM] * 2, strict=True))
def test_a_signal_does_not_wait_for_the_end_of_what_is_under_way(tmp_path, where, sent, capsys):
    folder = tmp_path / "run"
    call = [*TRAIN, "-n", "1000000", "--eval-freq", "0", *LONG[where], "--output", str(folder)]
    pid = forked(call)
    wait_for(lambda: list(folder.glob("events.*")))
    time.sleep(1.0)
    os.kill(pid, sent)
    assert exit_code(pid) == 128 + sent
    done = JEPA.load(folder / "last_model.zip").num_timesteps
    assert done > 0
    capsys.readouterr()
    assert main(["train", "--resume", str(folder), "-n", str(done)]) == 0
    assert f"finished: {done} steps" in capsys.readouterr().out, "the checkpoint is as new as the model"
