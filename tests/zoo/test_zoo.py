import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from jepa_agent import JEPA
from jepa_agent.zoo import HYPERPARAMETERS, _defaults, main

STUDY = Path(__file__).parents[2] / "experiments" / "studies" / "classic.yaml"
TINY = "policy_kwargs:dict(latent_dim=8,net_arch=[16],head_arch=[16])"


@pytest.fixture(scope="module")
def zoo():
    pytest.importorskip("rl_zoo3")


@pytest.fixture(scope="module")
def run(zoo, tmp_path_factory):
    """A run as a user makes it and then watches it, in a process of its own: rl_zoo3 patches gymnasium when imported."""
    folder = tmp_path_factory.mktemp("zoo")
    options = "--env Pendulum-v1 --seed 1 -n 120 --eval-freq 40 --eval-episodes 2 --save-freq 80 -P --device cpu"
    train = ["train", *options.split(), "-params", TINY, "learning_starts:20", "normalize:True", "n_envs:2"]
    train += ["learning_rate:'lin_1e-3'", "train_freq:[2,'step']"]
    enjoy = ["enjoy", "--env", "Pendulum-v1", "--no-render", "-n", "210", "--load-best", "--device", "cpu"]
    script = f"from jepa_agent.zoo import main; main({train}); main({enjoy})"
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return folder / "logs" / "jepa" / "Pendulum-v1_1", result.stdout


def test_train_leaves_rl_zoo3s_folder(run):
    folder, _ = run
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    settings = {f"Pendulum-v1/{name}" for name in ("config.yml", "args.yml", "command.txt", "vecnormalize.pkl")}
    models = {"Pendulum-v1.zip", "best_model.zip", "rl_model_80_steps.zip"}
    assert {*models, *settings, "evaluations.npz", "0.monitor.csv", "1.monitor.csv"} <= found


def test_evaluations_have_the_form_that_rl_zoo3s_plots_read(run):
    log = np.load(run[0] / "evaluations.npz")
    assert log["timesteps"].tolist() == [40, 80, 120]
    assert log["results"].shape == log["ep_lengths"].shape == (3, 2)


def test_hyperparameters_on_the_command_line_override_ours(run):
    loaded = yaml.load((run[0] / "Pendulum-v1" / "config.yml").read_text(), Loader=yaml.UnsafeLoader)
    assert (loaded["learning_starts"], loaded["policy"]) == (20, "MlpPolicy")
    model = JEPA.load(run[0] / "Pendulum-v1.zip", device="cpu")
    assert model.lr_schedule(0.5) == 5e-4
    assert (model.learning_starts, model.policy.sizes.latent_dim, model.n_envs) == (20, 8, 2)


def test_enjoy_finds_the_best_agent_where_train_left_it(run):
    folder, said = run
    assert f"Loading logs/jepa/{folder.name}/best_model.zip" in said
    assert "Mean reward" in said.split("Loading running average")[1]


def test_every_environment_of_the_published_study_has_an_entry():
    entries = yaml.safe_load(HYPERPARAMETERS.read_text())
    assert set(yaml.safe_load(STUDY.read_text())["tasks"]) | {"default"} == set(entries)


def test_our_hyperparameters_are_not_handed_to_another_algorithm():
    assert "--conf-file" in _defaults("train", ["--env", "Pendulum-v1"])
    assert "--conf-file" not in _defaults("train", ["--env", "Pendulum-v1", "--algo", "sac"])


def test_what_the_search_draws_are_arguments_of_jepa(zoo, small):
    import optuna

    from jepa_agent.zoo.search import sample_params

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(3):
        small("Pendulum-v1", **sample_params(study.ask(), 1, 1, {}))


@pytest.mark.parametrize(("argv", "says"), [(["tarin"], "did you mean train"), (["fly"], "choose one of train, enjoy")])
def test_an_unknown_script_is_told_in_one_line(argv, says, capsys):
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1


def test_without_rl_zoo3_one_line_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rl_zoo3", None)
    assert main(["train"]) == 2
    assert capsys.readouterr().err == "jepa_agent.zoo: error: this needs rl_zoo3: pip install 'jepa_agent[zoo]'\n"
