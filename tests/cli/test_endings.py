"""However a run ends, what it had is saved, the truth is told, and the way to go on that is printed works."""

import errno
import os
import re
import signal
import subprocess
import sys
import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from jepa_agent import JEPA
from jepa_agent.callbacks import PeriodicCheckpoint, ResumableEvalCallback
from jepa_agent.cli import main, train
from jepa_agent.persistence import agent_file, archive, checkpoint_folder

TINY = ["--model.net_arch", "[16]", "--model.latent_dim", "8", "--model.ensemble_size", "2"]
TRAIN = ["train", "--eval-freq", "0", "--agent.learning_starts", "20", "--agent.batch_size", "8", "--mode", "actor", *TINY]


class Ends(gym.Env):
    """Does ``how()`` at its 50th step, unless the file ``calm`` is there."""

    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)

    def __init__(self, how, calm):
        self.how, self.calm, self.t = how, calm, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        self.t += 1
        if self.t == 50 and not self.calm.exists():
            self.how()
        return self.observation_space.sample(), 1.0, self.t % 10 == 0, False, {}


def raises(error):
    def how():
        raise error

    return how


def sends(signum):
    """Sends a signal to this process and then hangs in the step."""

    def how():
        os.kill(os.getpid(), signum)
        time.sleep(30)

    return how


@pytest.fixture
def registered(tmp_path):
    def register(how):
        gym.register("Ends-v0", lambda: Ends(how, tmp_path / "calm"))

    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup make test` would have ignored
    yield register
    signal.signal(signal.SIGHUP, hangup)
    gym.registry.pop("Ends-v0", None)


@pytest.mark.parametrize(
    ("how", "code"),
    [
        (raises(ArithmeticError("broke")), 1),
        (raises(SystemExit(0)), 1),
        (raises(GeneratorExit()), 1),
        (raises(MemoryError()), 1),
        (raises(KeyboardInterrupt()), 130),
        (sends(signal.SIGHUP), 129),
        (sends(signal.SIGTERM), 143),
    ],
    ids=["error", "sys.exit", "generator", "memory", "ctrl-c", "hangs at SIGHUP", "hangs at SIGTERM"],
)
def test_a_run_that_ends_is_saved_and_goes_on_as_it_says(registered, tmp_path, capsys, monkeypatch, how, code):
    monkeypatch.setattr("jepa_agent.interruption.PATIENCE", 0.2)
    registered(how)
    folder = tmp_path / "run"
    assert main([*TRAIN, "--env", "Ends-v0", "-n", "80", "--output", str(folder)]) == code
    out = capsys.readouterr().out
    assert "after 49 steps" in out
    assert out.index("after 49 steps") < out.index("saved to")
    [go_on] = [line.split("jepa-agent ")[1].split() for line in out.splitlines() if line.startswith("go on:")]
    (tmp_path / "calm").touch()
    assert main(go_on) == 0
    assert JEPA.load(folder / "last_model.zip").num_timesteps == 80


@pytest.mark.parametrize("when", ["the agent is built", "nothing is learned yet"])
def test_a_run_stopped_before_its_first_step_leaves_nothing(registered, tmp_path, capsys, monkeypatch, when):
    monkeypatch.chdir(tmp_path)
    registered(raises(KeyboardInterrupt()))

    def stop(*args):
        if when == "the agent is built":
            raise KeyboardInterrupt
        return KeyboardInterrupt()

    monkeypatch.setattr(train, "new_agent" if when == "the agent is built" else "learn", stop)
    for words in (["--output", "run"], []):
        assert main([*TRAIN, "--env", "Ends-v0", "-n", "80", *words]) == 130
        told = "".join(capsys.readouterr())
        assert "interrupted" in told
        assert "saved" not in told
    assert [path.name for path in tmp_path.rglob("*")] in ([], ["runs", "jepa"])


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_told_and_nothing_is_said_to_be_saved(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    call = [*TRAIN, "--env", "CartPole-v1", "--output", str(folder)]
    assert main([*call, "-n", "40"]) == 0
    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(archive.os, "fsync", full_disk)
        patched.setattr("jepa_agent.cli.train.write_settings", lambda *args: None)
        assert main([*call, "-n", "80"]) == 1
    out = capsys.readouterr().out
    for what in ("the run", "last_model.zip"):
        assert re.search(rf"not saved: +{what}: \[Errno 28\] No space left on device", out)
    assert "saved to" not in out
    [go_on] = [line.split("jepa-agent ")[1] for line in out.splitlines() if line.startswith("go on:")]
    assert "(from step 40)" in go_on
    assert main([*go_on.partition("  (")[0].split(), "-n", "60"]) == 0


def test_a_failed_periodic_save_is_told_and_the_next_is_tried(small, tmp_path, monkeypatch):
    model, write, tries = small("CartPole-v1"), archive.write, []

    def sometimes(*args, **kwargs):
        tries.append(1)
        if len(tries) == 1:
            full_disk()
        write(*args, **kwargs)

    monkeypatch.setattr(archive, "write", sometimes)
    with pytest.warns(UserWarning, match="no checkpoint at step 20: .*No space left.*training goes on"):
        model.learn(50, callback=PeriodicCheckpoint(tmp_path, 20))
    assert [entry.num_timesteps for entry in checkpoint_folder.entries(tmp_path)] == [40]


def test_evaluations_that_cannot_be_written_do_not_stop_training(small, tmp_path, monkeypatch):
    model = small("CartPole-v1")
    evaluation = ResumableEvalCallback(gym.make("CartPole-v1"), 1, str(tmp_path), 10, 1)
    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.warns(UserWarning, match=r"evaluations\.npz is no longer written: .*No space left.*training goes on"):
        model.learn(40, callback=evaluation)
    assert model.num_timesteps == 40


def test_a_folder_that_vanished_is_made_again(registered, tmp_path, capsys):
    folder = tmp_path / "run"

    def vanish():
        for file in folder.iterdir():
            if file.is_file():
                file.unlink()
        raise ArithmeticError("gone")

    registered(vanish)
    assert main([*TRAIN, "--env", "Ends-v0", "-n", "80", "--output", str(folder)]) == 1
    (tmp_path / "calm").touch()
    assert main(["train", "--resume", str(folder)]) == 0


@pytest.mark.parametrize("words", [["--help"], ["envs"]])
def test_a_closed_pipe_is_no_error(words):
    call = f"{sys.executable} -W ignore -c 'import sys; from jepa_agent.cli import main; sys.exit(main())' {' '.join(words)}"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {call} | true"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# ---------------------------------------------------------------------- damage


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    call = [*TRAIN, "--env", "CartPole-v1", "-n", "90", "--save-freq", "30", "--keep-last", "3", "--output", str(folder)]
    assert main(call) == 0
    return folder


def damage(path, how):
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "noise": b"\0" * len(data)}[how])


@pytest.mark.parametrize("how", ["cut", "empty", "noise", "gone"])
@pytest.mark.parametrize("what", ["agent", "rows", "index"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(run, capsys, what, how):
    checkpoints = run / "checkpoints"
    steps = [entry.num_timesteps for entry in checkpoint_folder.entries(checkpoints)]
    newest = checkpoint_folder.entries(checkpoints)[-1]
    name = {"agent": newest.agent, "rows": newest.chunks[-1].file, "index": "index.zip"}[what]
    if how == "gone":
        (checkpoints / name).unlink()
    else:
        damage(checkpoints / name, how)
    with pytest.warns(UserWarning, match=name.replace(".", r"\.")):
        again = JEPA.resume(checkpoints, "CartPole-v1")
    assert again.num_timesteps == (steps[-1] if what == "index" else steps[-2])
    assert again.replay_buffer.added == again.num_timesteps
    assert main(["train", "--resume", str(run), "-n", "120"]) == 0
    assert JEPA.load(run / "last_model.zip").num_timesteps == 120


def test_damaged_logs_never_keep_a_run_from_going_on(run):
    (run / "evaluations.npz").write_bytes(b"PK half")
    with (run / "0.monitor.csv").open("a") as log:
        log.write("1.0,")
    (run / ".running").write_bytes(b"\0noise")
    assert main(["train", "--resume", str(run), "-n", "100"]) == 0


def test_a_run_killed_before_its_last_agent_was_saved_saves_it(run):
    (run / "last_model.zip").unlink()
    assert main(["train", "--resume", str(run)]) == 0
    assert JEPA.load(run / "last_model.zip").num_timesteps == 90


def test_a_run_killed_in_its_very_first_save_begins_anew(run):
    (run / "last_model.zip").unlink()
    (run / "checkpoints" / "index.zip").unlink()
    assert main(["train", "--resume", str(run)]) == 0
    assert JEPA.load(run / "last_model.zip").num_timesteps == 90


@pytest.mark.parametrize("number", [2, 99, "x"])
def test_other_formats_are_told_with_the_version_that_wrote_them(small, tmp_path, number):
    manifest, tensors = agent_file.contents(small("CartPole-v1"))
    manifest["versions"]["jepa_agent"] = "7.8.9"
    for kind in ("agent", "replay", "index"):
        told = {**manifest, "format": number, "written_by": "7.8.9"}
        archive.write(tmp_path / "file.zip", kind, told, {"tensors": tensors})
        says = rf"file\.zip: field 'format': .*found {number!r}, written by jepa_agent 7\.8\.9" + (
            ".*upgrade" if number == 99 else ""
        )
        with pytest.raises(archive.CheckpointError, match=says):
            archive.read(tmp_path / "file.zip", kind)
