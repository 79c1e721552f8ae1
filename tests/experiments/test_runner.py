import dataclasses
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO as PPO_CLASS
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.policies import ActorCriticCnnPolicy
from stable_baselines3.common.vec_env import VecNormalize

from jepa_agent.experiments import machine, runner
from jepa_agent.experiments.baselines import make_baseline
from jepa_agent.experiments.evaluation import Evaluator, SeededEpisodes, TrainingClock, bounded
from jepa_agent.experiments.folders import FolderInUseError, locked
from jepa_agent.experiments.records import EVALUATIONS, RESULT, RunSpec, read_curves, read_spec
from jepa_agent.experiments.runner import Event, run, run_all
from jepa_agent.learning.terms import Cost, Disagreement, Prediction

PPO = RunSpec("PPO", "CartPole-v1", 1, 200, 100, 2, overrides={"n_envs": 2, "n_steps": 32})
DQN = RunSpec("DQN", "CartPole-v1", 1, 200, 80, 2, overrides={"learning_starts": 20, "buffer_size": 200})
SMALL_JEPA = {"learning_starts": 20, "batch_size": 8, "planner": {"horizon": 2}}
SMALL_JEPA["policy_kwargs"] = {"latent_dim": 8, "net_arch": [8], "activation_fn": "SiLU"}
JEPA = RunSpec("JEPA", "CartPole-v1", 1, 40, 20, 2, overrides=SMALL_JEPA)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / EVALUATIONS).read_text().splitlines()]


class Sleepers:
    """Stands in for `subprocess.Popen`: processes that sleep, all of them remembered."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start = subprocess.Popen

    def __call__(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        self.processes.append(self.start(["sleep", "60"]))
        return self.processes[-1]


def test_a_spec_survives_json_and_shares_nothing_with_the_caller() -> None:
    overrides: dict[str, Any] = {"policy_kwargs": {"net_arch": (8, 8)}}
    spec = RunSpec("JEPA", "CartPole-v1", 0, 10, 10, modes=("actor",), overrides=overrides)
    overrides["policy_kwargs"]["net_arch"] = ()
    assert RunSpec(**json.loads(json.dumps(dataclasses.asdict(spec)))) == spec
    assert spec.overrides == {"policy_kwargs": {"net_arch": [8, 8]}}


def test_a_baseline_has_a_single_mode() -> None:
    assert PPO.modes == ("policy",)
    assert JEPA.modes == ("actor", "planner")


@pytest.mark.parametrize("name", ["n_timesteps", "eval_freq", "n_eval_episodes"])
def test_a_spec_without_work_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        dataclasses.replace(PPO, **{name: 0})


def test_folders_hold_no_separators_of_ids(tmp_path: Path) -> None:
    spec = dataclasses.replace(PPO, env="package:Own/Rooms-v0")
    assert spec.folder(tmp_path) == tmp_path / "package-Own-Rooms-v0" / "PPO-seed1"
    own = dataclasses.replace(PPO, algorithm="module:Class")
    assert own.folder(tmp_path) == tmp_path / "CartPole-v1" / "module-Class-seed1"


def test_the_kth_episode_starts_alike_whatever_came_before() -> None:
    env = SeededEpisodes(gym.make("CartPole-v1"))
    starts = []
    for draws in (0, 3):
        first, _ = env.reset(seed=7)
        env.unwrapped.np_random.random(draws)
        second, _ = env.reset()
        starts.append((first, second))
    assert np.array_equal(starts[0], starts[1])
    assert not np.array_equal(*starts[0])


def test_the_clock_stands_still_while_paused() -> None:
    clock = TrainingClock()
    with clock.paused():
        before = clock._now()
        while clock._now()[0] - before[0] < 0.05:
            pass
    cpu, wall = clock.read()
    assert 0 <= cpu < 0.04
    assert 0 <= wall < 0.04


def test_a_run_evaluates_on_time_and_ends_on_time(tmp_path: Path) -> None:
    run(DQN, tmp_path)
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [80, 160, 200]
    assert {row["mode"] for row in found} == {"policy"}
    assert all(row["mean"] == np.mean(row["returns"]) and len(row["returns"]) == 2 for row in found)
    seconds = [row["cpu_seconds"] for row in found]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    result = json.loads((tmp_path / RESULT).read_text())
    assert result["finished"] is True
    assert result["steps"] == 200
    assert result["training_cpu_seconds"] < result["total_cpu_seconds"]
    assert {"python", "torch", "stable_baselines3", "gymnasium", "jepa_agent", "numpy"} <= set(result["versions"])
    assert (result["settings"]["batch_size"], result["settings"]["learning_starts"]) == (64, 20)
    assert read_spec(tmp_path / RESULT) == DQN


def test_a_rollout_is_cut_at_the_last_step(tmp_path: Path) -> None:
    run(dataclasses.replace(PPO, n_timesteps=80, overrides={"n_envs": 2, "n_steps": 32}), tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == [80]


def test_a_run_replaces_what_an_earlier_one_left(tmp_path: Path) -> None:
    (tmp_path / EVALUATIONS).write_text("left over\n")
    run(PPO, tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == [100, 200]


def test_the_same_seed_gives_the_same_returns_however_often_it_is_evaluated(tmp_path: Path) -> None:
    run(DQN, tmp_path / "often")
    run(dataclasses.replace(DQN, eval_freq=200), tmp_path / "once")
    assert rows(tmp_path / "often")[-1]["returns"] == rows(tmp_path / "once")[-1]["returns"]


def test_episodes_played_side_by_side_return_what_they_return_one_by_one(tmp_path: Path) -> None:
    model = make_baseline("DQN", "CartPole-v1", 0)
    model.learn(64, callback=Evaluator(RunSpec("DQN", "CartPole-v1", 0, 64, 64, 3), tmp_path / EVALUATIONS))
    alone = SeededEpisodes(gym.make("CartPole-v1"))
    returns, _ = evaluate_policy(model, alone, 3, return_episode_rewards=True, warn=False)
    [row] = rows(tmp_path)
    assert sorted(row["returns"]) == sorted(returns)


def test_training_stops_when_the_return_suffices(tmp_path: Path) -> None:
    run(dataclasses.replace(PPO, stop_at=1.0), tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == [100]


def test_a_normalising_baseline_is_evaluated_with_the_statistics_of_training(tmp_path: Path) -> None:
    overrides = {"normalize": True, "n_envs": 1, "n_steps": 32}
    spec = RunSpec("PPO", "Pendulum-v1", 0, 64, 64, 1, overrides=overrides)
    model = make_baseline(spec.algorithm, spec.env, spec.seed, overrides=spec.overrides)
    evaluator = Evaluator(spec, tmp_path / EVALUATIONS)
    model.learn(64, callback=evaluator)
    trained, evaluated = model.get_env(), evaluator._env
    assert isinstance(trained, VecNormalize)
    assert isinstance(evaluated, VecNormalize)
    assert trained.obs_rms.count == pytest.approx(65, abs=0.01)  # 64 steps and a reset; evaluation added nothing
    assert evaluated.obs_rms.count == trained.obs_rms.count
    assert np.array_equal(evaluated.obs_rms.mean, trained.obs_rms.mean)
    [row] = rows(tmp_path)
    assert row["mean"] < -500  # of raw rewards


def test_a_variant_may_be_fitted_to_other_terms() -> None:
    wanted = {**SMALL_JEPA, "representation": ["prediction", "cost", "disagreement:0.5"]}
    model = runner._build(dataclasses.replace(JEPA, overrides=wanted))
    assert model.terms == [Prediction(), Cost(), Disagreement(0.5)]
    with pytest.raises(ValueError, match="unknown term 'curiosity'"):
        runner.check_overrides("JEPA", {"representation": ["curiosity"]})


def test_every_mode_of_jepa_is_evaluated_and_the_training_mode_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def remember(spec: RunSpec) -> Any:
        built.append(build(spec))
        return built[-1]

    build = runner._build
    monkeypatch.setattr(runner, "_build", remember)
    run(dataclasses.replace(JEPA, overrides={**JEPA.overrides, "mode": "every_3"}), tmp_path)
    assert [(row["step"], row["mode"]) for row in rows(tmp_path)] == [
        (20, "actor"),
        (20, "planner"),
        (40, "actor"),
        (40, "planner"),
    ]
    assert built[0].mode == "every_3"
    assert built[0].policy.mode_switch.k == 3
    assert built[0].planner.horizon == 2
    curves = read_curves(tmp_path)
    assert [(curve.mode, curve.steps.tolist()) for curve in curves] == [("actor", [20, 40]), ("planner", [20, 40])]


def test_runs_are_done_side_by_side_failures_reported_and_finished_ones_skipped(tmp_path: Path) -> None:
    events: list[Event] = []
    broken = dataclasses.replace(PPO, env="Nowhere-v0")
    [failure] = run_all([broken, PPO], tmp_path, jobs=2, on_event=events.append)
    assert failure.spec == broken
    assert "Nowhere" in failure.reason
    assert failure.log.read_text().strip().endswith(failure.reason)
    assert sorted((event.kind, event.spec.env) for event in events) == [
        ("failed", "Nowhere-v0"),
        ("finished", "CartPole-v1"),
        ("started", "CartPole-v1"),
        ("started", "Nowhere-v0"),
    ]
    [curve] = read_curves(tmp_path)
    assert curve.spec == PPO
    assert curve.steps.tolist() == [100, 200]
    assert curve.returns.shape == (2, 2)
    assert curve.cpu_seconds.shape == curve.ms_per_step.shape == (2,)

    events.clear()
    assert run_all([PPO], tmp_path, jobs=1, on_event=events.append) == []
    assert [event.kind for event in events] == ["skipped"]


def test_the_result_of_another_spec_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(PPO, PPO.folder(tmp_path))
    sleepers = Sleepers()
    monkeypatch.setattr(runner.subprocess, "Popen", sleepers)
    other = dataclasses.replace(PPO, n_timesteps=300)
    with pytest.raises(ValueError, match="CartPole-v1/PPO-seed1 holds the result of another spec"):
        run_all([DQN, other], tmp_path, jobs=2)
    with pytest.raises(ValueError, match="two runs would share the folder"):
        run_all([DQN, dataclasses.replace(DQN, n_timesteps=300)], tmp_path, jobs=2)
    assert sleepers.processes == []


def test_an_interrupt_ends_the_runs_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleepers = Sleepers()
    monkeypatch.setattr(runner.subprocess, "Popen", sleepers)

    def interrupt(event: Event) -> None:
        if event.spec == DQN:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all([PPO, DQN], tmp_path, jobs=2, on_event=interrupt)
    assert len(sleepers.processes) == 2
    assert [process.returncode for process in sleepers.processes] == [-signal.SIGTERM, -signal.SIGTERM]
    assert read_curves(tmp_path) == []


def test_there_must_be_at_least_one_job(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        run_all([PPO], tmp_path, jobs=0)


def test_two_processes_never_do_the_same_run(tmp_path: Path) -> None:
    (tmp_path / EVALUATIONS).write_text("its own\n")
    with locked(tmp_path), pytest.raises(FolderInUseError, match=f"in use by process {os.getpid()}"):
        run(DQN, tmp_path)
    assert (tmp_path / EVALUATIONS).read_text() == "its own\n"
    run(DQN, tmp_path)
    assert not (tmp_path / ".running").exists()


def test_a_run_does_not_outlive_who_started_it(tmp_path: Path) -> None:
    parent = subprocess.Popen(["sleep", "60"])
    long = dataclasses.replace(DQN, n_timesteps=10**7, eval_freq=10**7)
    (tmp_path / "spec.json").write_text(json.dumps(dataclasses.asdict(long)))
    child = subprocess.Popen([*runner.command_of(tmp_path), str(parent.pid)])
    while not (tmp_path / ".running").exists():
        assert child.poll() is None
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    assert child.wait(timeout=30) == 1


@pytest.mark.parametrize("damage", [RESULT, EVALUATIONS])
def test_a_result_that_cannot_be_read_is_named_before_anything_starts(tmp_path: Path, damage: str) -> None:
    run(PPO, PPO.folder(tmp_path))
    (PPO.folder(tmp_path) / damage).write_text("")
    with pytest.raises(ValueError, match=f"PPO-seed1/{damage}.*the run is done again"):
        run_all([PPO, DQN], tmp_path, jobs=1)


def test_a_run_that_was_killed_is_said_to_have_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleepers = Sleepers()
    monkeypatch.setattr(runner.subprocess, "Popen", sleepers)

    def kill(event: Event) -> None:
        if event.kind == "started":
            (event.folder / "log.txt").write_text("a harmless warning\n")
            sleepers.processes[0].kill()

    [failure] = run_all([PPO], tmp_path, jobs=1, on_event=kill)
    assert failure.reason == "killed by SIGKILL, perhaps for want of memory"


@pytest.mark.parametrize(
    ("algorithm", "overrides", "says"),
    [
        ("JEPA", {"learning_rat": 3}, "did you mean learning_rate"),
        ("JEPA", {"planner": {"kindd": "cem"}}, "did you mean kind"),
        ("JEPA", {"planner": {"horizon": 0}}, "horizon must lie between"),
        ("JEPA+big", {"policy_kwargs": {"latent_dims": 8}}, "did you mean latent_dim"),
        ("PPO", {"n_step": 8}, "did you mean n_steps"),
    ],
)
def test_mistyped_overrides_are_refused_with_near_names(algorithm: str, overrides: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        runner.check_overrides(algorithm, overrides)
    runner.check_overrides("PPO", {"n_envs": 2, "n_steps": 8})
    runner.check_overrides("JEPA", SMALL_JEPA)


def test_a_baseline_sees_pictures_as_such() -> None:
    model = make_baseline("PPO", "JEPA/BrightOrDark-v0", 0, {"side": 40}, {"n_steps": 8, "batch_size": 8})
    assert isinstance(model.policy, ActorCriticCnnPolicy)


def test_observations_of_several_parts_are_taken(tmp_path: Path) -> None:
    run(RunSpec("JEPA", "JEPA/PictureAndNumber-v0", 0, 16, 16, 1, ("actor",), overrides=SMALL_JEPA), tmp_path)
    assert len(rows(tmp_path)) == 1


def test_an_episode_without_end_is_evaluated_up_to_a_limit() -> None:
    env = bounded(gym.make("Pendulum-v1").unwrapped, max_steps=3)
    env.reset(seed=0)
    assert [env.step(env.action_space.sample())[3] for _ in range(3)] == [False, False, True]


def test_a_run_keeps_its_best_and_last_agent_and_says_how_it_was_computed(tmp_path: Path) -> None:
    run(dataclasses.replace(PPO, n_timesteps=64, eval_freq=32), tmp_path)
    best, last = (PPO_CLASS.load(tmp_path / name) for name in ("best_model.zip", "last_model.zip"))
    assert best.num_timesteps <= last.num_timesteps
    found = json.loads((tmp_path / "result.json").read_text())["versions"]
    assert found["instructions"] == torch.backends.cpu.get_cpu_capability()


def test_instructions_are_pinned_where_the_processor_has_them_and_the_user_has_not_said(monkeypatch) -> None:
    monkeypatch.setattr(machine, "Path", lambda name: CpuInfo("flags : sse2 avx2 avx512f "))
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    assert machine.pinned_instructions()["ATEN_CPU_CAPABILITY"] == "avx2"
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert machine.pinned_instructions()["ATEN_CPU_CAPABILITY"] == "default"
    monkeypatch.setattr(machine, "Path", lambda name: CpuInfo("Features : asimd "))
    assert machine.pinned_instructions() == {}


class CpuInfo:
    """What /proc/cpuinfo says."""

    def __init__(self, text: str):
        self.text = text

    def exists(self) -> bool:
        return True

    def read_text(self) -> str:
        return self.text
