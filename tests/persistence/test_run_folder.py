"""A run that is resumed, in another process, equals the one that was never stopped."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from jepa_agent import JEPA, agent, interruption
from jepa_agent.callbacks import PeriodicCheckpoint, ResumableEvalCallback
from jepa_agent.config import PlannerConfig
from jepa_agent.persistence import archive, checkpoint_folder
from jepa_agent.persistence.archive import CheckpointError

torch.set_num_threads(1)
CART, PENDULUM = "CartPole-v1", "Pendulum-v1"
CASES = {
    f"{env}-{mode}": (env, {"mode": mode}) for env in (CART, PENDULUM) for mode in ("actor", "planner", "auto", "every_3")
}
CASES["acting at random still"] = (PENDULUM, {"mode": "actor", "learning_starts": 250})
CASES["all at once"] = (
    PENDULUM,
    {
        "mode": "auto",
        "n_envs": 2,
        "normalize": True,
        "buffer_size": 150,  # the ring closes before the checkpoint and overwrites all of it after
        "learning_rate": LinearSchedule(1e-2, 1e-4, 1.0),
        "action_noise": OrnsteinUhlenbeckActionNoise(np.zeros(1), np.ones(1)),
    },
)

CASES["pictures"] = ("JEPA/BrightOrDark-v0", {"mode": "auto"})
CASES["a picture and a number"] = ("JEPA/PictureAndNumber-v0", {"mode": "auto"})
CASES["a memory network"] = ("JEPA/CartPoleNoVel-v1", {"mode": "auto", "memory": "gru"})


def make_env(env, n_envs=1, normalize=False):
    made = make_vec_env(env, n_envs, seed=0, env_kwargs={"max_episode_steps": 50})
    return VecNormalize(made) if normalize else made


def build(env, n_envs=1, normalize=False, **settings):
    small = {"latent_dim": 8, "net_arch": [16], "head_arch": [8], "ensemble_size": 2, "memory_size": 3}
    chosen = {"learning_starts": 40, "batch_size": 16, "train_freq": 10, "seed": 3, "device": "cpu"}
    chosen = {**chosen, "planner": PlannerConfig(horizon=2), **settings}
    made = make_env(env, n_envs, normalize)
    policy = "MultiInputPolicy" if isinstance(made.observation_space, gym.spaces.Dict) else "MlpPolicy"
    return JEPA(policy, made, policy_kwargs=small, **chosen)


def evaluation(folder, env, normalize=False):
    return ResumableEvalCallback(make_env(env, 1, normalize), seed=7, log_path=str(folder), eval_freq=100, n_eval_episodes=1)


def outcome(model, folder):
    """All that must be equal, to the last bit."""
    digest = hashlib.sha256()
    optimizer = model.policy.optimizer.state_dict()["state"]
    moments = [optimizer[index][name] for index in sorted(optimizer) for name in sorted(optimizer[index])]
    buffer = model.replay_buffer
    named = isinstance(buffer.observations, dict)
    seen = [buffer.observations[key] for key in sorted(buffer.observations)] if named else [buffer.observations]
    arrays = [*seen, buffer.actions, buffer.rewards, buffer.dones, buffer.timeouts, buffer.plan_mean]
    for array in [*model.policy.state_dict().values(), *moments, model.value_spread, *arrays]:
        digest.update(np.ascontiguousarray(array).tobytes())
    with np.load(folder / "evaluations.npz") as log:
        evaluations = {name: log[name].tolist() for name in log.files}
    return {
        "weights and buffer": digest.hexdigest(),
        "evaluations": evaluations,
        "counters": [model.num_timesteps, model._n_updates, model._episode_num],
        "next draws": [np.random.random(), torch.rand(()).item(), model.action_space.sample().tolist()],
    }


def straight(folder, env, n_envs=1, normalize=False, **settings):
    """400 steps that also save at 200."""
    model = build(env, n_envs, normalize, **settings)
    model.learn(400, [PeriodicCheckpoint(folder / "checkpoints", 200), evaluation(folder, env, normalize)])
    return model


def go_on(folder, env, n_envs=1, normalize=False, **_):
    """The other 200 steps."""
    model = JEPA.resume(folder / "checkpoints", make_env(env, n_envs, normalize), device="cpu")
    assert model.num_timesteps == 200
    model.learn(200, evaluation(folder, env, normalize), reset_num_timesteps=False)
    return model


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What came of every case straight, and resumed in a process of its own."""
    root = tmp_path_factory.mktemp("runs")
    straights = {}
    for case, (env, settings) in CASES.items():
        straights[case] = outcome(straight(root / case, env, **settings), root / case)
    done = subprocess.run([sys.executable, __file__, str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return straights, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_400_steps_equal_200_and_200_in_a_new_process(both, case):
    straights, resumed = both
    assert resumed[case] == straights[case]
    assert straights[case]["evaluations"]["timesteps"][-1] == 400


def test_saving_after_learning_is_as_good_as_saving_while_learning(tmp_path):
    whole = outcome(straight(tmp_path / "a", CART), tmp_path / "a")
    model = build(CART)
    log = evaluation(tmp_path / "b", CART)
    model.learn(200, log)
    model.save_checkpoint(tmp_path / "b" / "checkpoints")
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    model.learn(200, log, reset_num_timesteps=False)
    assert outcome(model, tmp_path / "b") == whole
    assert outcome(go_on(tmp_path / "c", CART), tmp_path / "c") == whole


def test_the_running_episode_ends_as_truncated(tmp_path):
    model = build(PENDULUM).learn(50)
    model.save_checkpoint(tmp_path)
    buffer = model.replay_buffer
    assert (buffer.dones[49, 0], buffer.timeouts[49, 0]) == (1, 1)
    model.learn(10, reset_num_timesteps=False)
    assert not np.allclose(buffer.observations[50], buffer.next_observations[49])


# ---------------------------------------------------------------------- the folder


def rows_of(folder):
    return sorted((chunk.first, chunk.last) for chunk in checkpoint_folder.entries(folder)[-1].chunks)


def test_a_save_writes_only_the_rows_that_are_new(tmp_path):
    model = build(CART, learning_starts=1000)
    model.learn(60)
    model.save_checkpoint(tmp_path)
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("rows_*")}
    model.learn(40, reset_num_timesteps=False)
    model.save_checkpoint(tmp_path)
    model.save_checkpoint(tmp_path)
    after = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("rows_*")}
    assert before.items() <= after.items()
    assert rows_of(tmp_path) == [(0, 60), (60, 100)]
    again = JEPA.resume(tmp_path, make_env(CART))
    again.learn(20, reset_num_timesteps=False)
    again.save_checkpoint(tmp_path)
    assert rows_of(tmp_path) == [(0, 60), (60, 100), (100, 120)]


def test_rows_that_the_ring_has_overwritten_are_dropped(tmp_path):
    model = build(CART, learning_starts=1000, buffer_size=100)
    for steps in (60, 60, 30, 250):
        model.learn(steps, reset_num_timesteps=False)
        model.save_checkpoint(tmp_path)
        again = JEPA.resume(tmp_path, make_env(CART)).replay_buffer
        for name in ("observations", "rewards", "dones"):
            np.testing.assert_array_equal(getattr(again, name), getattr(model.replay_buffer, name))
        assert (again.pos, again.full) == (model.replay_buffer.pos, model.replay_buffer.full)
    assert rows_of(tmp_path) == [(300, 400)]


def test_the_last_n_are_kept_and_nothing_else(tmp_path):
    model = build(CART, learning_starts=1000)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "agent_9_00000000.zip").touch()  # a killed save's
    (tmp_path / ".index.zip.99999999.x.tmp").touch()
    for _ in range(4):
        model.learn(10, reset_num_timesteps=False)
        model.save_checkpoint(tmp_path, keep_last=2)
    assert [entry.num_timesteps for entry in checkpoint_folder.entries(tmp_path)] == [30, 40]
    kinds = [file.name.split("_")[0] for file in tmp_path.iterdir()]
    assert sorted(kinds) == ["agent"] * 2 + ["index.zip", "notes.txt"] + ["rows"] * 4


def test_kill_9_at_any_moment_of_a_save_leaves_a_whole_checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "checkpoints"
    model = build(CART, learning_starts=1000, buffer_size=64)
    model.save_checkpoint(folder)
    for _ in range(8):
        reading, told = os.pipe()
        pid = os.fork()
        if pid == 0:  # a process of its own that learns and saves until it is killed
            try:
                while True:
                    model.learn(20, reset_num_timesteps=False)
                    model.save_checkpoint(folder, keep_last=2)
                    os.write(told, f"{model.num_timesteps}\n".encode())
            finally:
                os._exit(1)
        os.close(told)
        with os.fdopen(reading) as lines:
            saved = int(lines.readline())
            os.set_blocking(lines.fileno(), True)
            signal.setitimer(signal.ITIMER_REAL, 0)
            torch.rand(int(rng.integers(1, 2_000_000)))  # a while
            os.kill(pid, signal.SIGKILL)
            saved = max([saved, *(int(line) for line in lines if line.endswith("\n"))])
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        model = JEPA.resume(folder, make_env(CART), device="cpu")
        assert model.num_timesteps >= saved
        assert model.replay_buffer.added == model.num_timesteps
    model.save_checkpoint(folder)
    assert len(list(folder.iterdir())) == 2 + len(checkpoint_folder.entries(folder)[-1].chunks)


@pytest.mark.parametrize("victim", ["agent", "rows"])
def test_damage_to_any_file_is_told(tmp_path, victim):
    build(CART).learn(50).save_checkpoint(tmp_path)
    [file] = tmp_path.glob(f"{victim}*")
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], bytes([*whole[:-99], whole[-99] ^ 1, *whole[-98:]])):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=file.name):
            JEPA.resume(tmp_path, make_env(CART))


def test_an_index_that_points_out_of_the_folder_is_refused(tmp_path):
    build(CART).save_checkpoint(tmp_path)
    entry = checkpoint_folder.entries(tmp_path)[-1]
    for evil in (entry._replace(agent="../agent_1_00000000.zip"), entry._replace(chunks=(("/etc/passwd", 0, 1),))):
        archive.write(tmp_path / "index.zip", "index", {"checkpoints": [evil._asdict()]}, {})
        with pytest.raises(CheckpointError, match="names of files in the folder"):
            JEPA.resume(tmp_path, make_env(CART))
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("do not cut")
    archive.write(tmp_path / "index.zip", "index", {"checkpoints": [entry._replace(logs={"../precious": 0})._asdict()]}, {})
    with pytest.raises(CheckpointError, match="precious"):
        checkpoint_folder.cut_logs(tmp_path, tmp_path / "run", checkpoint_folder.entries(tmp_path)[-1].num_timesteps)
    assert (tmp_path / "precious").read_text() == "do not cut"


def test_an_environment_that_is_not_as_it_was_is_refused(tmp_path):
    build(PENDULUM, normalize=True).learn(50).save_checkpoint(tmp_path)
    for env, says in (
        (make_env(CART, normalize=True), "'observation_space'"),
        (make_env(PENDULUM, 2, normalize=True), "'n_envs': expected 1, found 2"),
        (make_env(PENDULUM), "VecNormalize"),
    ):
        with pytest.raises(CheckpointError, match=says):
            JEPA.resume(tmp_path, env)
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        JEPA.resume(tmp_path / "elsewhere", make_env(CART))


# ---------------------------------------------------------------------- signals


class Signalling(gym.Wrapper):
    """Gets a SIGTERM at its k-th step."""

    def __init__(self, env, k):
        super().__init__(env)
        self.left = k

    def step(self, action):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)
        return self.env.step(action)


def interrupted(model, callback=None):
    with interruption.noting_signals(), pytest.raises(interruption.Interrupted):
        model.learn(200, callback, reset_num_timesteps=False)


def test_a_signal_in_collection_ends_it_at_the_next_step(tmp_path):
    model = build(CART, learning_starts=1000)
    model.set_env(make_vec_env(lambda: Signalling(gym.make(CART), 30)))
    interrupted(model)
    assert (model.num_timesteps, model.replay_buffer.added) == (30, 30)


def test_an_evaluation_that_a_signal_ended_is_made_up_for(tmp_path):
    model = build(CART, mode="planner")
    log = evaluation(tmp_path, CART)
    log.eval_env = make_vec_env(lambda: Signalling(gym.make(CART), 3))
    interrupted(model, log)
    assert model.num_timesteps == model.replay_buffer.added == 99
    assert not (tmp_path / "evaluations.npz").exists()
    model.save_checkpoint(tmp_path / "checkpoints")
    again = JEPA.resume(tmp_path / "checkpoints", make_env(CART), device="cpu")
    again.learn(2, evaluation(tmp_path, CART), reset_num_timesteps=False)
    with np.load(tmp_path / "evaluations.npz") as found:
        assert found["timesteps"].tolist() == [100]


@pytest.mark.parametrize("what", ["plan", "update"])
def test_plans_and_updates_are_left_between_their_rounds(what, monkeypatch):
    settings = {"plan": {"mode": "planner"}, "update": {"mode": "actor", "gradient_steps": 1000}}
    model = build(PENDULUM, **settings[what])
    rounds: list[int] = []

    def counted(function):
        def call(*args):
            rounds.append(model.num_timesteps)
            if len(rounds) == 1:
                signal.raise_signal(signal.SIGTERM)
            return function(*args)

        return call

    if what == "plan":
        monkeypatch.setattr(model.world_model, "member_costs", counted(model.world_model.member_costs))
    else:
        monkeypatch.setattr(agent, "critic_loss", counted(agent.critic_loss))
    interrupted(model)
    assert rounds == [model.num_timesteps]
    if what == "update":
        assert model._n_updates == 1


def test_a_second_signal_is_heeded_at_once():
    with interruption.noting_signals():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(interruption.Interrupted):
            signal.raise_signal(signal.SIGTERM)
    interruption.poll()  # forgotten once left


if __name__ == "__main__":
    root = Path(sys.argv[1])
    print(json.dumps({case: outcome(go_on(root / case, env, **s), root / case) for case, (env, s) in CASES.items()}))


def test_a_run_saved_before_plans_were_told_by_a_bit_goes_on_as_if_it_had_been_saved_now(small, tmp_path):
    env = make_vec_env("CartPole-v1", seed=0)
    model = small(env, mode="planner", learning_starts=5).learn(230)
    model.save_checkpoint(tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    for file in (tmp_path / "old").glob("*.zip"):
        kind = {"agent": "agent", "rows": "replay"}.get(file.name.split("_")[0])
        if kind is None:
            continue
        content = archive.read(file, kind)
        manifest, members = dict(content.manifest), dict(content.members)
        if kind == "agent":
            members["run"] = {**members["run"], "memory/0": torch.ones(1, 8, 19)}
        else:
            rows = dict(members["rows"])
            rows["plan_std"] = torch.where(rows.pop("planned"), 0.1, -1.0).unsqueeze(-1).float()
            members["rows"] = rows
        del manifest["members"]
        archive.write(file, kind, {**manifest, "format": {"agent": 4, "replay": 3}[kind]}, members)
    gone_on = []
    for name in ("new", "old"):
        model = JEPA.resume(tmp_path / name, make_vec_env("CartPole-v1", seed=0))
        gone_on.append(model.learn(20, reset_num_timesteps=False))
    new, old = gone_on
    assert old.replay_buffer.planned.any()
    np.testing.assert_array_equal(old.replay_buffer.planned, new.replay_buffer.planned)
    assert all(torch.equal(a, b) for a, b in zip(new.policy.parameters(), old.policy.parameters(), strict=True))
