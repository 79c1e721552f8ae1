"""However a run ends, and in whatever place, going on is what the command line says it is."""

import errno
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import ResultsWriter
from tensorboard.summary.writer.record_writer import RecordWriter

from jepa_agent import JEPA
from jepa_agent.cli import _OneLine, main
from jepa_agent.persistence import archive, checkpoint_folder

TINY = ["--model.net_arch", "[16]", "--model.latent_dim", "8", "--model.ensemble_size", "2"]
TRAIN = ["train", "--eval-freq", "0", "--agent.learning_starts", "20", "--agent.batch_size", "8", "--mode", "actor", *TINY]


class Hook(gym.Env):
    """Calls ``how()`` at its 30th step, and ``last()`` when it is closed."""

    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)

    def __init__(self, how, last):
        self.how, self.last, self.t = how, last, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        if self.t == 30:
            self.how()
        return np.ones(2, np.float32), 1.0, self.t % 10 == 0, False, {}

    def close(self):
        if self.t:
            self.last()


@pytest.fixture
def hooked():
    def register(how, last=lambda: None):
        gym.register("Hook-v0", lambda: Hook(how, last))

    yield register
    gym.registry.pop("Hook-v0", None)


def told(out):
    """What is printed after ``go on:``, as words."""
    [line] = [line for line in out.splitlines() if line.startswith("go on:")]
    return shlex.split(line.partition("jepa-agent ")[2].partition("  (")[0])


def steps_of(folder):
    return JEPA.load(folder / "last_model.zip").num_timesteps


class Panic(BaseException):
    """As Rust's panics and asyncio's cancellations arrive."""


def raises(error):
    def how():
        raise error

    return how


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_way_to_go_on_works_for_a_module_and_a_folder_that_need_naming(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_task.py").write_text(
        "import gymnasium as gym\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Once(CartPoleEnv):\n"
        "    t = 0\n"
        "    def step(self, action):\n"
        "        Once.t += 1\n"
        "        if Once.t == 30: raise KeyboardInterrupt\n"
        "        return super().step(action)\n"
        "gym.register('Once-v0', Once)\n"
    )
    assert main([*TRAIN, "--env", "my_task:Once-v0", "-n", "40", "--output", "my run"]) == 130
    out = capsys.readouterr().out
    assert main(told(out)) == 0
    assert steps_of(tmp_path / "my run") == 40
    [evaluate] = [line.partition("jepa-agent ")[2] for line in out.splitlines() if line.startswith("evaluate:")]
    assert main([*shlex.split(evaluate), "--episodes", "1", "--modes", "actor"]) == 0
    gym.registry.pop("Once-v0")


def test_an_environment_that_changes_the_working_directory_takes_nothing_along(hooked, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    hooked(lambda: os.chdir(tmp_path / "elsewhere"))
    assert main([*TRAIN, "--env", "Hook-v0", "-n", "40", "--save-freq", "20", "--output", "run"]) == 0
    assert os.listdir(tmp_path / "elsewhere") == []
    assert steps_of(tmp_path / "run") == 40


def test_a_folder_that_is_gone_altogether_is_made_again_and_gone_on_with(hooked, tmp_path, capsys):
    folder = tmp_path / "run"

    def vanish():
        shutil.rmtree(folder)
        raise ArithmeticError("gone")

    hooked(vanish)
    call = [*TRAIN, "--env", "Hook-v0", "-n", "40", "--save-freq", "10", "--output", str(folder)]
    assert main(call) == 1
    hooked(lambda: None)
    assert main(told(capsys.readouterr().out)) == 0
    assert checkpoint_folder.entries(folder / "checkpoints")[-1].num_timesteps == steps_of(folder) == 40


@pytest.mark.parametrize(
    ("error", "code"), [(Panic("{odd}"), 1), (SystemExit("bye"), 1), (OSError("gone"), 1), (BrokenPipeError(), 1)]
)
def test_whatever_an_environment_raises_and_however_it_closes_the_run_is_kept(hooked, tmp_path, capsys, error, code):
    hooked(raises(error), last=raises(RuntimeError("cannot close")))
    folder = tmp_path / "run"
    with pytest.warns(UserWarning, match="could not be closed: cannot close"):
        assert main([*TRAIN, "--env", "Hook-v0", "-n", "40", "--output", str(folder)]) == code
    out = capsys.readouterr().out
    assert f"failed after 29 steps: {type(error).__name__}: {error or type(error).__name__}" in out
    hooked(lambda: None)
    assert main(told(out)) == 0
    assert steps_of(folder) == 40


def test_logs_that_cannot_be_written_cost_a_warning_each_and_no_step(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ResultsWriter, "write_row", full_disk)
    monkeypatch.setattr(RecordWriter, "write", full_disk)
    folder = tmp_path / "run"
    with pytest.warns(UserWarning, match="training goes on") as all_told:
        assert main([*TRAIN, "--env", "CartPole-v1", "-n", "150", "--eval-freq", "50", "--output", str(folder)]) == 0
    lost = [str(one.message) for one in all_told if "no longer written" in str(one.message)]
    assert len(lost) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert steps_of(folder) == 150
    assert np.load(folder / "evaluations.npz")["timesteps"].tolist() == [50, 100, 150]


def test_a_disk_that_is_full_from_the_first_save_on_leaves_no_promise(hooked, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    hooked(lambda: monkeypatch.setattr(os, "fsync", full_disk))
    call = [*TRAIN, "--env", "Hook-v0", "-n", "40", "--output", str(folder)]
    assert main(call) == 1
    out = capsys.readouterr().out
    assert "saved to" not in out
    assert "evaluate:" not in out
    monkeypatch.undo()
    hooked(lambda: None)
    [anew] = [line for line in out.splitlines() if line.startswith("begin anew:")]
    assert main(shlex.split(anew.partition("jepa-agent ")[2])) == 0
    assert steps_of(folder) == 40


def test_a_run_of_which_only_the_last_agent_could_be_saved_says_so(hooked, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    hooked(lambda: monkeypatch.setattr(JEPA, "save_checkpoint", full_disk))
    call = [*TRAIN, "--env", "Hook-v0", "-n", "40", "--output"]
    assert main([*call, str(folder)]) == 1
    out = capsys.readouterr().out
    assert "not saved:   the run: [Errno 28] No space left on device" in out
    assert "begin anew:  the same command with another --output" in out
    assert steps_of(folder) == 40
    monkeypatch.undo()
    hooked(lambda: None)
    assert main([*call, str(folder)]) == 2
    assert "name another --output" in capsys.readouterr().err
    assert main([*call, str(tmp_path / "another")]) == 0


def test_an_impatient_user_loses_nothing(hooked, tmp_path, capsys, monkeypatch):
    write = archive.write

    def pressed_again(*args):
        signal.raise_signal(signal.SIGINT)
        write(*args)

    def pressed():
        signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(archive, "write", pressed_again)

    hooked(pressed)
    folder = tmp_path / "run"
    assert main([*TRAIN, "--env", "Hook-v0", "-n", "40", "--output", str(folder)]) == 130
    assert checkpoint_folder.entries(folder / "checkpoints")[-1].num_timesteps == steps_of(folder) == 30


def test_an_agent_older_than_the_last_checkpoint_is_not_taken_for_the_last(tmp_path, capsys):
    folder = tmp_path / "run"
    call = [*TRAIN, "--env", "CartPole-v1", "--output", str(folder)]
    assert main([*call, "-n", "30"]) == 0
    older = (folder / "last_model.zip").read_bytes()
    assert main([*call, "-n", "60"]) == 0
    for content in (older, older[:1000]):
        (folder / "last_model.zip").write_bytes(content)  # as a run killed right after its last checkpoint leaves it
        assert main([*call, "-n", "60"]) == 0
        assert steps_of(folder) == 60
    capsys.readouterr()
    assert main([*call, "-n", "60"]) == 0
    assert "is finished" in capsys.readouterr().out


def test_when_nobody_reads_what_is_printed_training_goes_on_and_tells_the_end_on_stderr(tmp_path):
    folder = tmp_path / "run"
    call = [*TRAIN, "--env", "CartPole-v1", "-n", "100", "--verbose", "1", "--eval-freq", "20", "--output", str(folder)]
    code = "import sys; from jepa_agent.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, *call], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(60) == 0
    assert f"saved to {folder}" in err
    assert "Traceback" not in err
    assert "Broken" not in err
    assert steps_of(folder) == 100


def test_a_warning_is_one_line_without_colour_and_told_once():
    told = _OneLine()
    assert told(UserWarning("two\nlines"), UserWarning, "file.py", 3) == "jepa-agent: warning: two lines\n"
    coloured = UserWarning("\x1b[33mWARN: old\x1b[0m")
    assert told(coloured, UserWarning, "file.py", 3) == "jepa-agent: warning: old\n"
    assert told(coloured, UserWarning, "file.py", 3) == ""


def test_a_hanging_close_does_not_keep_back_what_was_saved(hooked, tmp_path, capsys):
    said = []

    def late():
        said.append(capsys.readouterr().out)
        time.sleep(0.01)

    hooked(lambda: None, last=late)
    assert main([*TRAIN, "--env", "Hook-v0", "-n", "40", "--output", str(tmp_path / "run")]) == 0
    assert "saved to" in said[0]


@pytest.mark.parametrize("n_envs", [1, 2])
def test_an_environment_that_raises_before_its_first_step_leaves_a_run_that_begins_anew(hooked, tmp_path, capsys, n_envs):
    folder, reset = tmp_path / "run", Hook.reset
    hooked(lambda: None)
    with pytest.MonkeyPatch.context() as patched:
        call = [*TRAIN, "--env", "Hook-v0", "-n", "40", "--n-envs", str(n_envs), "--output", str(folder)]
        patched.setattr(Hook, "reset", lambda self, **_: 1 / 0)
        assert main(call) == 1
    assert Hook.reset is reset
    [anew] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("begin anew:")]
    assert main(shlex.split(anew.partition("jepa-agent ")[2])) == 0
    assert steps_of(folder) == 40


def test_logs_that_are_folders_keep_no_run_from_going_on(tmp_path):
    folder = tmp_path / "run"
    call = [*TRAIN, "--env", "CartPole-v1", "--output", str(folder)]
    assert main([*call, "-n", "30"]) == 0
    for name in ("0.monitor.csv", "evaluations.npz", "error.txt"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()
    with pytest.warns(UserWarning, match=r"episodes are not written: .*0\.monitor\.csv"):
        assert main([*call, "-n", "60"]) == 0
    assert steps_of(folder) == 60


def test_a_last_agent_of_a_newer_version_is_not_written_over(tmp_path, capsys):
    folder = tmp_path / "run"
    call = [*TRAIN, "--env", "CartPole-v1", "-n", "30", "--output", str(folder)]
    assert main(call) == 0
    content = archive.read(folder / "last_model.zip", "agent")
    newer = {**content.manifest, "format": 99, "written_by": "9.9.9"}
    archive.write(folder / "last_model.zip", "agent", newer, content.members)
    before = (folder / "last_model.zip").read_bytes()
    assert main(call) == 2
    err = capsys.readouterr().err
    assert "written by jepa_agent 9.9.9" in err
    assert "upgrade" in err
    assert (folder / "last_model.zip").read_bytes() == before
