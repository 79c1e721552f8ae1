"""The command line, in process where that is enough and as a subprocess where it is not."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jepa_agent import JEPA
from jepa_agent.cli import VERBS, main, trained
from jepa_agent.cli.flags import parser_of
from jepa_agent.config import PlannerConfig
from jepa_agent.planning import CategoricalCEM, ExhaustivePlanner

TINY = ["--model.latent_dim", "8", "--model.net_arch", "[16]", "--model.ensemble_size", "2", "--agent.learning_starts", "20"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "cart"
    short = ["--eval-freq", "60", "--eval-episodes", "2", "--agent.batch_size", "16"]
    assert main(["train", "--env", "CartPole-v1", "-n", "120", "--output", str(folder), *TINY, *short]) == 0
    return folder


def test_train_leaves_a_complete_run_folder(run_folder):
    for name in ("config.yml", "0.monitor.csv", "evaluations.npz", "best_model.zip", "last_model.zip"):
        assert (run_folder / name).stat().st_size > 0, name
    evaluations = np.load(run_folder / "evaluations.npz")
    assert evaluations["timesteps"].tolist() == [60, 120]
    assert evaluations["results"].shape == (2, 2)
    assert JEPA.load(run_folder / "last_model.zip").num_timesteps == 120
    assert JEPA.load(run_folder / "last_model.zip").policy.sizes.latent_dim == 8


def test_train_writes_sb3s_tags_and_ours(run_folder):
    events = EventAccumulator(str(run_folder)).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"rollout/ep_rew_mean", "eval/mean_reward", "time/fps", "train/value_loss"} <= tags
    assert {"time/plan_ms", "mode/planner_fraction", "latent/surprise"} <= tags


def test_a_run_can_be_repeated_from_its_config(run_folder, tmp_path, capsys):
    again = tmp_path / "again"
    assert main(["train", "--config", str(run_folder / "config.yml"), "--output", str(again)]) == 0
    assert f"jepa-agent evaluate {again}" in capsys.readouterr().out
    rewards = [(folder / "0.monitor.csv").read_text().splitlines()[2:] for folder in (run_folder, again)]
    assert [line.split(",")[:2] for line in rewards[0]] == [line.split(",")[:2] for line in rewards[1]]
    settings = yaml.safe_load((again / "config.yml").read_text())
    assert settings["model"]["net_arch"] == [16]


def test_evaluate_prints_both_modes(run_folder, capsys):
    assert main(["evaluate", str(run_folder), "--episodes", "1"]) == 0
    out = capsys.readouterr().out
    assert "Mode-1" in out
    assert "Mode-2" in out


def test_an_environment_named_anew_keeps_the_arguments_it_was_trained_with(tmp_path, capsys):
    train = ["train", "--env", "CartPole-v1", "--env-kwargs", "max_episode_steps:7", "-n", "30", "--eval-freq", "0"]
    assert main([*train, "--mode", "actor", "--output", str(tmp_path / "run"), *TINY]) == 0
    for words, length in (([], 7), (["--env-kwargs", "max_episode_steps:5"], 5)):
        capsys.readouterr()
        call = ["evaluate", str(tmp_path / "run"), "--env", "CartPole-v1", *words, "--modes", "actor", "--episodes", "1"]
        assert main(call) == 0
        row = next(line for line in capsys.readouterr().out.splitlines() if "Mode-1" in line)
        assert int(re.findall(r"[\d.]+", row.split("(Mode-1)")[1])[2]) == length


def test_enjoy_records_a_film(run_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert main(["enjoy", str(run_folder), "--mode", "planner", "--output", str(tmp_path / "films")]) == 0
    films = list((tmp_path / "films").glob("*.mp4"))
    assert len(films) == 1
    assert b"ftyp" in films[0].read_bytes()[:16]


def test_a_trained_agent_takes_another_planner_and_refuses_one_that_does_not_fit(run_folder, capsys):
    call = ["evaluate", str(run_folder), "--episodes", "1", "--modes", "planner"]
    assert main([*call, "--planner.kind", "cem", "--planner.num_samples", "4", "--planner.replan_every", "2"]) == 0
    assert "Mode-2" in capsys.readouterr().out
    assert main([*call, "--planner.kind", "mppi"]) == 2
    assert "planner 'mppi' does not fit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "kind", "horizon"),
    [
        (["--planner.budget_ms", "50"], "cem", 7),
        (["--planner.horizon", "3"], "cem", 3),
        (["--planner.kind", "exhaustive"], "exhaustive", 3),
        ([], "cem", 7),
    ],
)
def test_what_is_not_said_of_a_planner_stays_as_trained(small, tmp_path, said, kind, horizon):
    small("CartPole-v1", planner=PlannerConfig(kind="cem", horizon=7)).save(tmp_path / "agent.zip")
    options = trained.parse(parser_of("evaluate"), [str(tmp_path / "agent.zip"), "--env", "CartPole-v1", *said])
    model = trained.load(options).model
    assert isinstance(model.policy.planner, {"cem": CategoricalCEM, "exhaustive": ExhaustivePlanner}[kind])
    assert model.policy.planner.horizon == horizon


def test_explain_draws_an_episode(run_folder, tmp_path, capsys):
    assert main(["explain", str(run_folder), "--output", str(tmp_path / "told.png")]) == 0
    assert "steps" in capsys.readouterr().out
    assert (tmp_path / "told.png").read_bytes().startswith(b"\x89PNG")


def test_plan_bench_compares_at_equal_compute(run_folder, tmp_path, capsys):
    call = ["plan-bench", str(run_folder), "--quick", "--episodes", "1", "--horizon", "1", "--planners", "exhaustive"]
    assert main([*call, "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "MFLOP per plan" in out
    assert "ms per plan" in out
    assert (tmp_path / "compute.png").exists()
    assert main([*call, "--seed", "7", "--output", str(tmp_path)]) == 2
    assert "something else" in capsys.readouterr().err
    assert main([*call, "--env-kwargs", "sutton_barto_reward:true", "--env", "CartPole-v1", "--output", str(tmp_path)]) == 2
    assert "something else" in capsys.readouterr().err
    assert main(["plan-bench"]) == 2
    assert "--exact" in capsys.readouterr().err
    assert main(["plan-bench", "--exact", "pendulum", "--env", "CartPole-v1"]) == 2
    assert "brings its own environment" in capsys.readouterr().err
    assert main([*call, "--planners", "mppi"]) == 2
    assert "choose one of exhaustive, cem" in capsys.readouterr().err


def test_compare_trains_reports_and_goes_on_where_it_stopped(tmp_path, capsys):
    study = tmp_path / "study"
    call = ["compare", "--env", "JEPA/ActionMatters-v0", "--baselines", "PPO", "--seeds", "2", "-n", "40", *TINY]
    call += ["--eval-freq", "20", "--eval-episodes", "2", "--threshold", "0.5", "--jobs", "2", "--output", str(study)]
    assert main(call) == 0
    out = capsys.readouterr().out
    assert out.count("finished") == 4
    assert "PPO" in out
    assert (study / "figures" / "JEPA-ActionMatters-v0.png").read_bytes()[:4] == b"\x89PNG"
    assert "| PPO | 2 |" in (study / "report.md").read_text()
    assert (study / "report.html").stat().st_size > 10_000
    assert main(call) == 0
    assert capsys.readouterr().out.count("skipped") == 4


STUDY = """
overrides:
  JEPA: {learning_starts: 10, policy_kwargs: {latent_dim: 8, net_arch: [8]}}
  "stable_baselines3:A2C": {n_steps: 5}
tasks:
  JEPA/ActionMatters-v0:
    {threshold: 0.5, n_timesteps: 20, eval_freq: 20, seeds: 1, baselines: [PPO, "stable_baselines3:A2C"]}
  JEPA/ConstantReward-v0: {threshold: 0.5, random: 0, n_timesteps: 20, eval_freq: 20, seeds: 1, baselines: [PPO]}
"""


def test_compare_reads_a_study_and_says_first_what_it_would_do(tmp_path, capsys):
    (tmp_path / "study.yaml").write_text(STUDY)
    call = [
        "compare",
        str(tmp_path / "study.yaml"),
        "--baselines",
        "stable_baselines3:A2C",
        "--output",
        str(tmp_path / "out"),
        "--jobs",
        "2",
    ]
    assert main([*call, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "5 of 5 runs to do" in out
    assert "nothing has been started" in out
    assert not (tmp_path / "out").exists()
    assert main(call) == 0
    report = (tmp_path / "out" / "report.md").read_text()
    assert "stable_baselines3:A2C" in report
    assert "| best baseline | 2 |" in report
    assert main([*call, "--dry-run"]) == 0
    assert "0 of 5 runs to do" in capsys.readouterr().out


def test_compare_reports_on_what_has_finished_without_running_the_rest(tmp_path, capsys):
    (tmp_path / "study.yaml").write_text(STUDY)
    folder = tmp_path / "out"
    call = ["compare", str(tmp_path / "study.yaml"), "--baselines", "stable_baselines3:A2C", "--output", str(folder)]
    assert main([*call, "--report-only"]) == 1
    assert "no run finished" in capsys.readouterr().out
    assert main(call) == 0
    shutil.rmtree(folder / "JEPA-ActionMatters-v0" / "PPO-seed0")
    assert main([*call, "--report-only"]) == 0
    report = (folder / "report.md").read_text()
    assert "| PPO |" in report.split("ConstantReward-v0", 1)[1]
    assert not (folder / "JEPA-ActionMatters-v0" / "PPO-seed0").exists()
    assert "--report-only" not in report  # the command that does it all
    (folder / "report.md").unlink()
    (folder / "report.md").symlink_to(tmp_path / "elsewhere")
    capsys.readouterr()
    assert main([*call, "--report-only"]) == 2
    assert "report.md is a symbolic link" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()
    (folder / "report.md").unlink()
    (tmp_path / "study.yaml").write_text(STUDY.replace("n_timesteps: 20", "n_timesteps: 30"))
    assert main([*call, "--report-only"]) == 2
    assert "holds the result of another spec" in capsys.readouterr().err
    (tmp_path / "study.yaml").write_text(STUDY.replace("learning_starts", "learning_start"))
    assert main([*call, "--dry-run"]) == 2
    assert "overrides of JEPA: 'learning_start' is no setting of JEPA; did you mean" in capsys.readouterr().err


def test_a_failing_run_is_reported_and_does_not_stop_the_others(tmp_path, capsys):
    text = STUDY.replace("n_steps: 5", "n_steps: 5, learning_rate: -1")
    (tmp_path / "study.yaml").write_text(text)
    assert (
        main(
            [
                "compare",
                str(tmp_path / "study.yaml"),
                "--baselines",
                "stable_baselines3:A2C",
                "--output",
                str(tmp_path / "out"),
            ]
        )
        == 1
    )
    out = capsys.readouterr().out
    assert "failed: stable_baselines3:A2C seed 0 in JEPA/ActionMatters-v0" in out
    assert "Invalid learning rate" in out
    assert len(list((tmp_path / "out").rglob("result.json"))) == 4


def test_plot_draws_a_mix_of_runs(run_folder, tmp_path, capsys):
    picture = tmp_path / "new" / "curves.png"
    assert main(["plot", str(run_folder), str(run_folder / "0.monitor.csv"), "--output", str(picture)]) == 0
    assert "2 runs" in capsys.readouterr().out
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_doctor_finds_this_machine_well_and_a_locked_folder_not(capsys, tmp_path):
    assert main(["doctor", "--folder", str(tmp_path / "runs")]) == 0
    out = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    for told in ("stable_baselines3", "cores", "without a screen", "can be written"):
        assert told in out, told
    assert not (tmp_path / "runs").exists()
    assert main(["doctor", "--folder", "/proc/runs"]) == 1
    assert "cannot be written" in re.sub(r"[│\s]+", " ", capsys.readouterr().out)


@pytest.mark.parametrize(("words", "expected"), [("jepa-agent do", "doctor"), ("jepa-agent plot --win", "--window")])
def test_completion_completes_in_bash(tmp_path, capsys, words, expected):
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion.sh"
    script.write_text(capsys.readouterr().out)
    ask = f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; _jepa_agent; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected]


def test_envs_tells_what_is_supported(capsys):
    assert main(["envs", "JEPA/"]) == 0
    out = capsys.readouterr().out
    assert "Discounting" in out
    assert "yes" in out


TRAIN = ["train", "--env", "CartPole-v1"]
BAD = {
    "unknown verb": (["trian"], "did you mean train"),
    "unknown environment": (["train", "--env", "CartPol-v1"], "did you mean CartPole-v1"),
    "no environment": (["train"], "env"),
    "seed": ([*TRAIN, "--seed", "5000000000"], "seed"),
    "buffer": ([*TRAIN, "--agent.buffer_size", "1000000000000"], "lower --agent.buffer_size"),
    "tensorboard folder": ([*TRAIN, "--tensorboard-log", "/proc/nope"], "cannot be written"),
    "setting of another planner": ([*TRAIN, "--planner.num_starts", "9"], "has no num_starts"),
    "flag of before": ([*TRAIN, "--agent.exploration_std", "0.1"], "since 0.2.0 the actor explores by draws of its own"),
    "unknown flag": ([*TRAIN, "--planer.horizon", "3"], "did you mean --planner.horizon"),
    "unknown nested flag": ([*TRAIN, "--planner.horizn", "3"], "did you mean --planner.horizon"),
    "wrong type": ([*TRAIN, "-n", "many"], "--n-timesteps many: expected a whole number of at least 1; write"),
    "out of range": ([*TRAIN, "--planner.horizon", "0"], "horizon must lie between 1 and 1000, got 0"),
    "negative steps": ([*TRAIN, "-n", "-5"], "--n-timesteps -5: expected"),
    "unsupported observations": (["train", "--env", "Blackjack-v1"], "FlattenObservation"),
    "unknown module": (["train", "--env", "no_such_module:Env-v0"], "no_such_module"),
    "environment argument": (
        [*TRAIN, "--env-kwargs", "gravity:1"],
        "has no argument 'gravity'; choose one of",
    ),
    "unknown mode": ([*TRAIN, "--mode", "fast"], "choose actor, planner"),
    "planner of the other kind": ([*TRAIN, "--planner.kind", "mppi"], "choose one of auto, exhaustive"),
    "device": ([*TRAIN, "--device", "abacus"], "choose cpu or auto"),
    "config file": (["train", "--config", "nowhere.yml"], "nowhere.yml"),
    "no model": (["evaluate", "nowhere"], "no model at nowhere"),
    "no threshold": (["compare", "--env", "Pendulum-v1", "--output", "x"], "--threshold"),
    "baseline of the other kind": (["compare", "--env", "CartPole-v1", "--baselines", "SAC", "--output", "x"], "choose of"),
    "a study and flags": (["compare", "study.yaml", "--seeds", "9", "--output", "x"], "--seeds: a study file says it"),
    "neither study nor environment": (["compare", "--output", "x"], "either a study file or --env"),
    "nothing to plot": (["plot", "nowhere"], "nowhere does not exist"),
    "a shell unknown": (["completion", "ksh"], "bash"),
    "no such study": (["compare", "nowhere.yaml", "--output", "x"], "No such file"),
    "unknown baseline": (["compare", "--env", "CartPole-v1", "--baselines", "POP", "--output", "x"], "no baseline"),
}


@pytest.mark.parametrize(("argv", "says"), BAD.values(), ids=BAD.keys())
def test_bad_input_gives_one_line_exit_code_2_and_leaves_nothing(argv, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    assert os.listdir(tmp_path) == []


def test_unknown_yaml_keys_are_told_with_near_names(tmp_path, capsys):
    config = tmp_path / "c.yml"
    for text, near in (
        ("planer:\n  horizon: 3\n", "planner.horizon"),
        ("planner:\n  horizn: 3\n", "planner.horizon"),
        ("agent:\n  target_noise: 0.2\n", "since 0.2.0"),
    ):
        config.write_text("env: CartPole-v1\n" + text)
        assert main(["train", "--config", str(config)]) == 2
        assert near in capsys.readouterr().err


def test_a_folder_in_use_or_unwritable_is_refused(run_folder, tmp_path, capsys):
    before = sorted(os.listdir(run_folder))
    assert main([*TRAIN, "--output", str(run_folder)]) == 2
    assert "in use" in capsys.readouterr().err
    assert sorted(os.listdir(run_folder)) == before
    (tmp_path / "file").write_text("")
    assert main([*TRAIN, "--output", str(tmp_path / "file" / "deeper")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_missing_extra_is_named_with_the_pip_line(capsys, monkeypatch):
    import gymnasium as gym

    def missing(*args, **kwargs):
        raise gym.error.DependencyNotInstalled("MuJoCo is not installed")

    monkeypatch.setattr(gym, "make", missing)
    assert main(["train", "--env", "Hopper-v5"]) == 2
    assert "pip install 'jepa_agent[mujoco]'" in capsys.readouterr().err


def test_a_damaged_model_is_told(run_folder, tmp_path, capsys):
    (tmp_path / "model.zip").write_bytes((run_folder / "last_model.zip").read_bytes()[:5000])
    assert main(["evaluate", str(tmp_path / "model.zip"), "--env", "CartPole-v1"]) == 2
    assert "model.zip" in capsys.readouterr().err


def command(*argv):
    return [sys.executable, "-c", "import sys; from jepa_agent.cli import main; sys.exit(main())", *argv]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_shows_an_example(verb, capsys):
    assert main([verb, "--help"] if verb else ["--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "jepa-agent " + (verb or "train") in out


def test_the_installed_script_finds_an_environment_in_the_users_folder_and_tells_its_failure_in_a_line(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import gymnasium as gym\nfrom gymnasium.envs.classic_control import PendulumEnv\n"
        "class Fragile(PendulumEnv):\n"
        "    left = 40\n"
        "    def step(self, action):\n"
        "        self.left -= 1\n"
        "        if not self.left: raise RuntimeError('the rod broke')\n"
        "        return super().step(action)\n"
        "gym.register('Fragile-v0', Fragile)\n"
    )
    script = Path(sys.executable).with_name("jepa-agent")
    call = [script, "train", "--env", "mine:Fragile-v0", "-n", "60", "--eval-freq", "0", "--output", "run", *TINY]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "failed after 39 steps: RuntimeError: the rod broke" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "RuntimeError" in (tmp_path / "run/error.txt").read_text()
    assert JEPA.load(tmp_path / "run/last_model.zip").num_timesteps == 39


def test_as_a_process_bad_input_exits_with_2():
    done = subprocess.run(command("train", "--env", "CartPol-v1"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_saves_the_agent_and_exits_as_shells_expect(tmp_path, sent, code):
    folder = tmp_path / "run"
    call = command(*TRAIN, "-n", "1000000", "--eval-freq", "0", "--output", str(folder), *TINY)
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    monitor = Path(folder) / "0.monitor.csv"
    deadline = time.time() + 60
    while time.time() < deadline and not (monitor.exists() and monitor.read_text().count("\n") > 5):
        time.sleep(0.1)
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "interrupted after" in out
    assert JEPA.load(folder / "last_model.zip").num_timesteps > 0


def test_a_run_too_short_for_an_evaluation_says_so(tmp_path, capsys):
    assert (
        main(["train", "--env", "CartPole-v1", "-n", "20", *TINY, "--eval-freq", "50", "--output", str(tmp_path / "run")])
        == 0
    )
    assert "no evaluation was made: they come every 50 steps" in capsys.readouterr().out
