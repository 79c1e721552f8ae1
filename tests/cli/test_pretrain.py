"""A world model fitted without rewards, on the command line: from random steps, from a run, and what follows."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml

from jepa_agent import JEPA, PlannerConfig
from jepa_agent.cli import main
from jepa_agent.cli.common import chosen_terms
from jepa_agent.costs import GoalCost
from jepa_agent.learning.terms import Cost, InfoNCE, InverseDynamics, Prediction, Reachability, Termination, make_terms

TINY = ["--model.latent_dim", "8", "--model.net_arch", "[16]", "--model.head_arch", "[8]", "--model.ensemble_size", "2"]
FEW = [*TINY, "--agent.batch_size", "16", "--agent.learning_starts", "20"]
ROOMS = ["pretrain", "--env", "JEPA/TwoRooms-v0", "-n", "80", "--updates", "6", "--log-freq", "4", *FEW]
TERMS = ["--terms", "prediction", "infonce:0.1", "inverse_dynamics:0.5"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "rooms"
    assert main([*ROOMS, *TERMS, "--output", str(folder)]) == 0
    return folder


def weights(model):
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()


def test_terms_go_by_name_and_weight_and_what_plans_need_is_added():
    assert make_terms(["prediction", "inverse_dynamics:0.5"]) == [Prediction(), InverseDynamics(0.5)]
    assert chosen_terms(["prediction", "infonce:0.1"]) == [Prediction(), InfoNCE(0.1), Cost(), Termination()]
    assert chosen_terms(["prediction", "cost:0", "termination:2"]) == [Prediction(), Cost(0.0), Termination(2.0)]
    assert chosen_terms(None) is None
    for words, told in (
        (["predicton"], "did you mean prediction?"),
        (["prediction:much"], "expected a weight after the colon, such as prediction:0.1"),
        (["prediction:-1"], "weights must be at least 0"),
        (["prediction", "prediction:2"], "two terms of one name"),
    ):
        with pytest.raises(ValueError, match=told.replace("?", r"\?")):
            make_terms(words)


def test_random_steps_are_learned_from_without_rewards_and_a_goal_is_planned_for(pretrained):
    model = JEPA.load(pretrained / "last_model.zip", env="JEPA/TwoRooms-v0")
    assert model.terms == [Prediction(), InfoNCE(0.1), InverseDynamics(0.5), Cost(), Termination()]
    assert (model._n_representation_updates, model._n_updates, model.num_timesteps) == (6, 0, 0)
    assert JEPA.resume(pretrained / "checkpoints", "JEPA/TwoRooms-v0").replay_buffer.size() == 80
    with model.using_cost(GoalCost(np.array([0.9, 0.9, 0.5, 0.5], np.float32)), PlannerConfig(horizon=3), end_cost=0.0):
        action, _ = model.predict(np.full(4, 0.5, np.float32))
    assert action.shape == (2,)


def test_lines_tell_loss_and_effective_rank(tmp_path, capsys):
    assert main([*ROOMS, "--output", str(tmp_path / "run")]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("update")]
    assert [line.partition(":")[0] for line in lines] == ["update 4 of 6", "update 6 of 6"]
    assert all("loss " in line and "effective rank " in line and "infonce" in line for line in lines)
    assert "cost" not in lines[0]  # no reward is read


def test_the_same_command_goes_on_and_more_updates_are_the_same_as_at_once(pretrained, tmp_path, capsys):
    short, whole = tmp_path / "short", tmp_path / "whole"
    for updates in ("3", "6"):
        assert main([*ROOMS, *TERMS, "--updates", updates, "--output", str(short)]) == 0
    assert main([*ROOMS, *TERMS, "--output", str(whole)]) == 0
    first, second = (JEPA.load(folder / "last_model.zip") for folder in (short, whole))
    assert torch.equal(weights(first), weights(second))
    capsys.readouterr()
    assert main([*ROOMS, *TERMS, "-n", "90", "--output", str(short)]) == 2
    assert "n_timesteps 80, now 90" in capsys.readouterr().err


def test_a_stop_keeps_what_was_learned(tmp_path):
    folder = tmp_path / "run"
    call = [sys.executable, "-c", "import sys; from jepa_agent.cli import main; sys.exit(main())", *ROOMS, *TERMS]
    call += ["--updates", "1000000", "--output", str(folder)]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 60
    while "update 4 " not in process.stdout.readline():
        assert time.time() < deadline
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "interrupted after" in out
    made = JEPA.load(folder / "last_model.zip")._n_representation_updates
    assert made >= 4
    assert JEPA.resume(folder / "checkpoints", "JEPA/TwoRooms-v0")._n_representation_updates == made


def test_the_experience_of_a_run_is_learned_from(pretrained, tmp_path, capsys):
    train = ["train", "--env", "CartPole-v1", "-n", "60", "--n-envs", "2", "--eval-freq", "0", *FEW]
    assert main([*train, "--output", str(tmp_path / "run")]) == 0
    fit = ["pretrain", "--data", str(tmp_path / "run"), "--updates", "2", *FEW]
    assert main([*fit, "--output", str(tmp_path / "fitted")]) == 0
    assert "60 steps of CartPole-v1 to learn from" in capsys.readouterr().out
    JEPA.resume(tmp_path / "run/checkpoints", env_of(2)).save_replay_buffer(tmp_path / "rows.zip")
    fit[2] = str(tmp_path / "rows.zip")
    assert main([*fit, "--env", "CartPole-v1", "--output", str(tmp_path / "again")]) == 0
    first, second = (JEPA.load(tmp_path / name / "last_model.zip") for name in ("fitted", "again"))
    assert torch.equal(weights(first), weights(second))
    assert main([*fit, "--env", "Acrobot-v1", "--output", str(tmp_path / "other")]) == 2
    assert "observation_space" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def env_of(count):
    from stable_baselines3.common.env_util import make_vec_env

    return make_vec_env("CartPole-v1", count)


def test_training_begins_with_the_weights_and_settings_of_a_saved_agent(pretrained, tmp_path, capsys):
    # 20 random steps and no update: the weights are those that it began with.
    train = ["train", "--from", str(pretrained), "-n", "10", "--eval-freq", "0"]
    assert main([*train, "--output", str(tmp_path / "run")]) == 0
    assert "warning" not in capsys.readouterr().err
    begun, saved = (JEPA.load(folder / "last_model.zip") for folder in (tmp_path / "run", pretrained))
    assert torch.equal(weights(begun), weights(saved))
    assert begun.terms == saved.terms
    assert (begun.num_timesteps, begun._n_representation_updates) == (10, 6)
    settings = yaml.safe_load((tmp_path / "run/config.yml").read_text())
    assert (settings["env"], settings["model"]["latent_dim"], settings["agent"]["batch_size"]) == ("JEPA/TwoRooms-v0", 8, 16)
    # With rewards it learns on, and what is said goes before what was saved.
    more = ["-n", "40", "--env-kwargs", '{"goal": [0.9, 0.9]}', "--agent.gamma", "0.9", "--seed", "3", "--mode", "actor"]
    assert main([*train, *more, "--output", str(tmp_path / "tuned")]) == 0
    tuned = JEPA.load(tmp_path / "tuned/last_model.zip")
    assert (tuned.gamma, tuned.seed, tuned.mode, tuned.num_timesteps) == (0.9, 3, "actor", 40)
    assert tuned._n_updates > 0
    assert main(["train", "--resume", str(tmp_path / "tuned"), "-n", "50"]) == 0
    assert JEPA.load(tmp_path / "tuned/last_model.zip").num_timesteps == 50


def test_terms_may_be_others_than_those_that_the_weights_were_fitted_to(pretrained, tmp_path, capsys):
    train = ["train", "--from", str(pretrained), "-n", "30", "--eval-freq", "0", "--mode", "actor"]
    with pytest.warns(UserWarning, match="dropped: inverse_dynamics; new: reachability"):
        assert main([*train, "--terms", "prediction", "reachability:0.1", "--output", str(tmp_path / "run")]) == 0
    assert JEPA.load(tmp_path / "run/last_model.zip").terms == [Prediction(), Reachability(0.1), Cost(), Termination()]


def test_a_trained_agent_goes_on_from_its_values(small, tmp_path):
    model = small("Pendulum-v1", mode="actor").learn(40)
    model.save(tmp_path / "agent.zip")
    train = ["train", "--from", str(tmp_path / "agent.zip"), "--env", "Pendulum-v1", "-n", "5", "--eval-freq", "0"]
    assert main([*train, "--agent.learning_starts", "0", "--output", str(tmp_path / "run")]) == 0
    tuned = JEPA.load(tmp_path / "run/last_model.zip")
    assert tuned._n_updates > model._n_updates
    assert tuned.num_timesteps == 5
    # Where costs-to-go begin is set by the first update of all, and never again.
    assert tuned.world_model.cost_module.value_offset == model.world_model.cost_module.value_offset


def test_what_cannot_be_begun_with_is_told_in_a_line(pretrained, small, tmp_path, capsys):
    small("CartPole-v1", planner=PlannerConfig(kind="cem"), representation=[Prediction(), Wild()]).save(tmp_path / "own.zip")
    begin = ["train", "--eval-freq", "0", "-n", "5", "--output", str(tmp_path / "run"), "--from"]
    for words, told in (
        ([*begin, str(tmp_path)], "no model at"),
        ([*begin, str(tmp_path / "own.zip"), "--env", "CartPole-v1"], "a term of your own, Wild; go on in Python"),
        ([*begin, str(pretrained), "--model.latent_dim", "16"], "leave --model.* out"),
        ([*begin, str(pretrained), "--env", "CartPole-v1"], "spaces do not match"),
        ([*begin, str(pretrained), "--terms", "predicton"], "did you mean prediction?"),
        ([*ROOMS, "--terms", "cost"], "without rewards there is nothing to fit"),
        (["pretrain"], "name the environment with --env"),
        (["pretrain", "--data", str(tmp_path / "nothing")], "there is no such file or folder"),
        ([*ROOMS, "--agent.buffer_size", "50"], "do not fit into --agent.buffer_size 50"),
    ):
        assert main(words) == 2, words
        err = capsys.readouterr().err
        assert told in err, err
        assert err.count("\n") == 1
        assert not (tmp_path / "run").exists()


class Wild(Prediction):
    name = "wild"
