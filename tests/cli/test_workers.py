"""Environments that raise, hang or are killed while `jepa-agent train` runs, and environments that no verb leaves open."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from jepa_agent import JEPA
from jepa_agent.cli import main
from jepa_agent.experiments.records import RunSpec
from jepa_agent.experiments.runner import run
from jepa_agent.persistence import checkpoint_folder

TINY = ["--model.net_arch", "[16]", "--model.latent_dim", "8", "--model.ensemble_size", "2"]
BRIEF = ["--agent.learning_starts", "20", "--agent.batch_size", "8", "--agent.buffer_size", "1000", "--mode", "actor", *TINY]
TRAIN = ["train", "--eval-freq", "0", *BRIEF]


def rows(folder):
    """Return and length of every episode, by environment."""
    files = sorted(folder.glob("*.monitor.csv"))
    return [[line.split(",")[:2] for line in file.read_text().splitlines()[2:]] for file in files]


def test_workers_learn_what_one_process_learns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = [*TRAIN, "--env", "CartPole-v1", "-n", "80", "--n-envs", "2", "--eval-freq", "40", "--eval-episodes", "1"]
    assert main([*call, "--output", "one"]) == 0
    assert main([*call, "--output", "many", "--step-timeout", "60"]) == 0
    one, many = (JEPA.load(f"{name}/last_model.zip").policy.state_dict() for name in ("one", "many"))
    assert all(torch.equal(one[name], many[name]) for name in one)
    assert rows(tmp_path / "one") == rows(tmp_path / "many")
    assert "step_timeout" not in (tmp_path / "one" / "config.yml").read_text()
    assert main(["train", "--resume", "many", "-n", "100", "--env-restarts", "1"]) == 0
    recorded = (tmp_path / "many" / "config.yml").read_text()
    assert "step_timeout: 60.0" in recorded
    assert "env_restarts: 1" in recorded
    assert rows(tmp_path / "many")[0][: len(rows(tmp_path / "one")[0])] == rows(tmp_path / "one")[0]


def test_a_killed_worker_is_begun_anew_and_told_and_the_run_gets_to_its_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mortal_task.py").write_text(
        "import os\nimport gymnasium as gym\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Mortal(CartPoleEnv):\n"
        "    steps = 0\n"
        "    def step(self, action):\n"
        "        self.steps += 1\n"
        "        if self.steps == 25:\n"
        "            try: os.close(os.open('once', os.O_CREAT | os.O_EXCL))\n"
        "            except FileExistsError: pass\n"
        "            else: os.kill(os.getpid(), 9)\n"
        "        return super().step(action)\n"
        "gym.register('Mortal-v0', Mortal, max_episode_steps=5)\n"
    )
    call = [*TRAIN, "--env", "mortal_task:Mortal-v0", "-n", "80", "--n-envs", "2", "--output", "run"]
    with pytest.warns(UserWarning, match=r"environment \d: its worker, .* was killed by signal 9; it is begun anew"):
        assert main([*call, "--step-timeout", "60"]) == 0
    assert JEPA.load("run/last_model.zip").num_timesteps == 80
    assert sorted(len(episodes) for episodes in rows(tmp_path / "run")) == [8, 8]
    lengths = sorted(int(length) for episodes in rows(tmp_path / "run") for _, length in episodes)
    assert lengths == [5] * 16, "the step in which the worker was killed ends its episode"
    gym.registry.pop("Mortal-v0")


class Door(gym.Env):
    """Counts who is open; raises where ``how`` says, ``times`` times altogether."""

    observation_space, action_space = spaces.Box(-9, 9, (2,), np.float32), spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    opened, closed, raised = [], [], []

    def __init__(self, how="", times=99, render_mode=None):
        self.how, self.times, self.render_mode, self.t = how, times, render_mode, 0
        if how == "space":
            self.observation_space = spaces.Text(3)
        self.opened.append(self)

    def check(self, what):
        if self.how == what and len(self.raised) < self.times:
            self.raised.append(what)
            raise RuntimeError(f"no {what} today")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.check("reset")
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        if self.t == 5:
            self.check("step")
        return np.full(2, self.t % 5, np.float32), 1.0, self.t == 8, False, {}

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)

    def close(self):
        self.closed.append(self)


@pytest.fixture
def door(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gym.register("Door-v0", Door)

    def left_open():
        """How many are, of those made since it was last asked."""
        assert Door.opened, "none was made"
        left = len({*Door.opened} - {*Door.closed})
        for counted in (Door.opened, Door.closed, Door.raised):
            counted.clear()
        return left

    yield left_open
    gym.registry.pop("Door-v0")


@pytest.mark.parametrize(
    ("restarts", "times", "n_envs", "code"), [(None, 1, 1, 1), (2, 2, 1, 0), (1, 1, 2, 0), (2, 3, 1, 1), (1, 1, 1, 0)]
)
def test_an_environment_that_raises_is_rebuilt_as_often_as_asked(door, restarts, times, n_envs, code, tmp_path, capsys):
    words = [] if restarts is None else ["--env-restarts", str(restarts)]
    call = [*TRAIN, "--env", "Door-v0", "--env-kwargs", "how:step", f"times:{times}", "-n", "60", "--n-envs", str(n_envs)]
    assert main([*call, *words, "--output", "run"]) == code
    steps = checkpoint_folder.entries(tmp_path / "run" / "checkpoints")[-1].num_timesteps
    assert steps == 60 if code == 0 else 0 < steps < 60
    out = capsys.readouterr().out
    assert ("RuntimeError: no step today" in out) == (code == 1)
    assert len(Door.raised) == times
    assert door() == 0


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", "inf"])
def test_a_time_that_is_none_is_refused_in_one_line(seconds, capsys):
    assert main([*TRAIN, "--env", "CartPole-v1", "--step-timeout", seconds]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--step-timeout" in line
    assert seconds in line


def test_every_verb_closes_every_environment_on_every_way_out(door, tmp_path, monkeypatch):
    named, bad = ["--env", "Door-v0"], ["--env-kwargs", "how:step"]
    good = ["train", *named, *BRIEF, "--eval-freq", "20", "--eval-episodes", "1", "-n", "40", "--output"]
    short = ["--quick", "--planners", "random", "--budgets", "1", "--episodes", "1", "--horizon", "2"]
    bench = ["plan-bench", "run", *named, *short, "--output"]
    calls = {
        "train": ([*good, "run"], 0),
        "train, gone on with": ([*good, "run", "-n", "60"], 0),
        "train, step raises": ([*good, "bad", *bad], 1),
        "train, an evaluation's step raises": ([*good, "bad2", *bad, "--env-restarts", "1"], 1),
        "train, another space": ([*good, "bad3", "--env-kwargs", "how:space"], 2),
        "train, nothing to go on with": ([*good, "bad", *bad], 2),
        "evaluate": (["evaluate", "run", *named, "--modes", "actor", "--episodes", "1"], 0),
        "evaluate, another space": (["evaluate", "run", *named, "--env-kwargs", "how:space"], 2),
        "evaluate, no such planner": (["evaluate", "run", *named, "--planner.kind", "mppi"], 2),
        "enjoy, folder in use": (["enjoy", "run", *named, "--output", "run"], 2),
        "explain": (["explain", "run", *named, "--mode", "actor"], 0),
        "explain, reset raises": (["explain", "run", *named, "--env-kwargs", "how:reset"], RuntimeError),
        "plan-bench": ([*bench, "bench"], 0),
        "plan-bench, step raises": ([*bench, "bench2", *bad], RuntimeError),
        "compare": (["compare", *named, "--baselines", "--threshold", "1", "--dry-run"], 0),
    }
    left = {}
    for what, (call, expected) in calls.items():
        if what == "train, nothing to go on with":
            for file in (tmp_path / "bad" / "checkpoints").glob("agent*.zip"):
                file.write_bytes(b"noise")
        try:
            found = main(call)
        except RuntimeError as error:
            found = type(error)
        assert found == expected, what
        left[what] = door()
    assert left == dict.fromkeys(calls, 0)


@pytest.mark.parametrize("algorithm", ["JEPA", "DQN"])
def test_a_run_of_a_study_that_fails_leaves_no_environment_open(door, algorithm, tmp_path):
    small = {"learning_starts": 20, "batch_size": 8, "buffer_size": 1000}
    spec = RunSpec(algorithm, "Door-v0", 0, 30, 20, 2, env_kwargs={"how": "step"}, overrides=small)
    with pytest.raises(RuntimeError, match="no step today"):
        run(spec, tmp_path / "run")
    assert door() == 0
    with pytest.raises(TypeError):
        run(replace(spec, env_kwargs={}, overrides={"tau": "soft", "no_such": 1}), tmp_path / "other")
    assert door() == 0
