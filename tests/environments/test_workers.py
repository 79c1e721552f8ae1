"""Environments that fail: what is made anew, what of it is learned from, and what goes through."""

import os
import signal

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from jepa_agent.environments.guards import WorkerVecEnv
from jepa_agent.environments.observations import RESTARTED
from jepa_agent.environments.workers import RestartingEnv, Worker, WorkerError, WorkerLost
from jepa_agent.interruption import Interrupted, noting_signals


class Frail(gym.Env):
    """Raises what ``faults`` holds for a call of ``make``, ``reset`` or ``step``, counted over all that are made; observes
    a number drawn at reset and the step, always in the same array."""

    observation_space, action_space = spaces.Box(-99, 99, (2,)), spaces.Discrete(2)
    faults, calls, closed = {}, {}, []

    def __init__(self):
        self.obs = np.zeros(2, np.float32)
        self.call("make")

    def call(self, what):
        self.calls[what] = self.calls.get(what, 0) + 1
        if error := self.faults.get((what, self.calls[what])):
            raise error

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.call("reset")
        self.obs[:] = self.np_random.uniform(), 0
        return self.obs, {}

    def step(self, action):
        self.obs[1] += 1
        self.call("step")
        return self.obs, 1.0, False, False, {}

    def close(self):
        self.closed.append(self)


@pytest.fixture
def frail():
    """Make frail environments: ``frail(restarts, {("step", 3): error, ...})``."""

    def make(restarts, faults):
        Frail.faults, Frail.calls, Frail.closed = faults, {}, []
        return RestartingEnv(Frail, restarts, "environment 1")

    return make


GONE = RuntimeError("the simulator\nwent away")


def test_a_step_that_fails_ends_the_episode_at_the_last_observation_in_an_environment_made_anew(frail):
    env = frail(2, {("step", 3): GONE})
    first, _ = env.reset(seed=4)
    start = first[0]
    env.step(0)
    env.step(0)
    before = env.unwrapped
    with pytest.warns(UserWarning, match=r"environment 1: raised RuntimeError: the simulator; .* 1 restart\(s\) left"):
        obs, reward, terminated, truncated, info = env.step(0)
    assert obs.tolist() == [start, 2.0]
    assert (reward, terminated, truncated, info) == (0.0, False, True, {RESTARTED: True})
    assert Frail.closed == [before]
    assert env.unwrapped is not before
    env.reset()
    assert env.step(0)[0][1] == 1


@pytest.mark.parametrize("faults", [("reset", 2), ("make", 2)])
def test_what_fails_in_reset_or_when_it_is_made_anew_is_tried_again(frail, faults):
    env = frail(2, {("step", 1): GONE, faults: ValueError("not yet")})
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="not yet"):
        obs, _ = env.reset() if env.step(0)[3] else (np.nan, {})
    assert np.isfinite(obs).all()
    assert env.restarts == 2


def test_an_error_too_many_goes_through_as_it_is(frail):
    env = frail(1, {("step", 1): GONE, ("step", 2): GONE})
    env.reset(seed=0)
    env.step(0)
    env.reset()
    with pytest.raises(RuntimeError) as told:
        env.step(0)
    assert told.value is GONE


def test_episodes_after_a_restart_follow_from_the_last_seed_and_are_not_those_of_the_seed(frail):
    def firsts(seed):
        env = frail(3, {("step", 1): GONE, ("step", 2): GONE})
        found = [env.reset(seed=seed)[0][0]]
        for _ in range(2):
            env.step(0)
            found.append(env.reset()[0][0])
        return found

    assert firsts(1) == firsts(1)
    assert len({*firsts(1), *firsts(2)}) == 6


def test_lost_workers_do_not_count_but_for_four_in_a_row(frail):
    env = frail(0, {("step", k): WorkerLost("gone") for k in range(1, 9, 2)})
    env.reset(seed=0)
    for _ in range(8):
        if env.step(0)[3]:
            env.reset()
    env = frail(0, {("reset", k): WorkerLost("gone") for k in range(1, 5)})
    with pytest.raises(WorkerLost, match="gone"):
        env.reset(seed=0)
    assert env.restarts == 3


def test_a_signal_that_ends_this_process_is_heeded_before_anything_is_made_anew(frail):
    env = frail(9, {("step", 1): GONE})
    env.reset(seed=0)
    with noting_signals():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            env.step(0)
    assert (Frail.calls["make"], Frail.closed) == (1, [])


def test_the_step_that_failed_is_not_learned_from_and_is_counted(frail, small, tmp_path):
    model = small(frail(1, {("step", 31): GONE})).learn(60, log_interval=1000)
    void = np.flatnonzero(model.replay_buffer.dones[:60, 0] == 2.0)
    assert void.tolist() == [30]
    assert model.num_timesteps == 60
    assert model.logger.name_to_value["rollout/env_restarts"] == 1
    model.save(tmp_path / "agent")
    assert type(model).load(tmp_path / "agent")._env_restarts == 1


def test_how_often_and_how_long_are_checked():
    with pytest.raises(ValueError, match="restarts must not be negative, got -1"):
        RestartingEnv(Frail, -1)
    for seconds in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"timeout must be above 0 and at most 100,000 seconds, got {seconds}"):
            Worker(Frail, seconds)


# ---------------------------------------------------------------------- processes

OBEDIENT = """
import os, time
from pathlib import Path
import gymnasium as gym
import numpy as np
class Obedient(gym.Env):
    observation_space, action_space = gym.spaces.Box(0, 99, (1,)), gym.spaces.Discrete(6)
    def __init__(self, folder, name):
        self.folder, self.name = Path(folder), name
        (self.folder / f"{name}.pid").write_text(str(os.getpid()))
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}
    def step(self, action):
        self.t += 1
        [self.nothing, self.fail, self.die, self.hang, self.leave, self.meet][int(action)]()
        return np.full(1, self.t, np.float32), 1.0, False, False, {}
    def nothing(self): pass
    def fail(self): raise ArithmeticError("odd\\ntwo")
    def die(self): os.kill(os.getpid(), 9)
    def hang(self): time.sleep(1000)
    def leave(self): os._exit(3)
    def meet(self):
        (self.folder / f"{self.name}.here").touch()
        while len(list(self.folder.glob("*.here"))) < 2: time.sleep(0.01)
    def close(self): (self.folder / f"{self.name}.closed").touch()
"""
NOTHING, FAIL, DIE, HANG, LEAVE, MEET = range(6)


@pytest.fixture
def obedient(tmp_path, monkeypatch):
    """A function that makes a maker of environments which do what the action says."""
    (tmp_path / "obedient_task.py").write_text(OBEDIENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = str(tmp_path)
    return lambda name: lambda: __import__("obedient_task").Obedient(folder, name)


def is_alive(pid_file):
    try:
        os.kill(int(pid_file.read_text()), 0)
        return True
    except ProcessLookupError:
        return False


def test_a_worker_steps_raises_dies_or_hangs_and_is_gone_after_that(obedient, tmp_path):
    env = Worker(obedient("a"), 20.0)
    assert env.observation_space == spaces.Box(0, 99, (1,))
    assert is_alive(tmp_path / "a.pid")
    env.reset(seed=0)
    with pytest.raises(WorkerError) as told:
        env.step(FAIL)
    first, _, others = str(told.value).partition("\n")
    assert first == "ArithmeticError: odd"
    assert "in fail" in others
    assert env.step(NOTHING)[0] == [2.0]
    env.begin_step(NOTHING)  # whose outcome nobody waits for
    assert env.reset(seed=0)[0] == [0.0]
    env.close()
    assert (tmp_path / "a.closed").exists()
    assert not is_alive(tmp_path / "a.pid")
    for action, how in (
        (DIE, "was killed by signal 9"),
        (LEAVE, "ended with exit code 3"),
        (HANG, "gave no answer within 1 s"),
    ):
        env = Worker(obedient("b"), 1.0 if action == HANG else 20.0)
        env.reset(seed=0)
        with pytest.raises(WorkerLost, match=how):
            env.step(action)
        assert not is_alive(tmp_path / "b.pid")
        env.close()


def test_workers_step_at_the_same_time_and_one_that_is_lost_takes_nothing_from_the_others(obedient):
    names = ("a", "b")
    env = WorkerVecEnv([lambda name=name: RestartingEnv(lambda: Worker(obedient(name), 20.0), 0, name) for name in names])
    env.seed(0)
    env.reset()
    assert env.step(np.array([MEET, MEET]))[0].tolist() == [[1.0], [1.0]]
    with pytest.warns(
        UserWarning, match=r"b: its worker, process \d+, was killed by signal 9; it is begun anew .restart 1."
    ):
        obs, rewards, dones, infos = env.step(np.array([NOTHING, DIE]))
    assert obs.tolist() == [[2.0], [0.0]]
    assert (rewards.tolist(), dones.tolist()) == ([1.0, 0.0], [False, True])
    assert (infos[1]["terminal_observation"].tolist(), infos[1]["TimeLimit.truncated"]) == ([1.0], True)
    assert env.step(np.array([NOTHING, NOTHING]))[0].tolist() == [[3.0], [1.0]]
    env.close()
