from pathlib import Path

import pytest

from jepa_agent.experiments.records import AGENT
from jepa_agent.experiments.study import Study, Task, read_study

STUDIES = sorted((Path(__file__).parents[2] / "experiments" / "studies").glob("*.yaml"))
TEXT = """
stop_early: true
overrides: {DQN: {gamma: 0.9}}
tasks:
  CartPole-v1: {threshold: 475, random: 22, n_timesteps: 100, baselines: [PPO, DQN], baseline_timesteps: 900, seeds: 2}
  Pendulum-v1: {threshold: -200, n_timesteps: 300, seeds: 1, eval_freq: 50, env_kwargs: {g: 9.8}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_a_study_says_what_is_run(tmp_path: Path) -> None:
    specs = read_study(written(tmp_path, TEXT)).specs()
    assert [(s.env, s.algorithm, s.seed, s.n_timesteps) for s in specs] == [
        ("CartPole-v1", AGENT, 0, 100),
        ("CartPole-v1", "PPO", 0, 900),
        ("CartPole-v1", "DQN", 0, 900),
        ("CartPole-v1", AGENT, 1, 100),
        ("CartPole-v1", "PPO", 1, 900),
        ("CartPole-v1", "DQN", 1, 900),
        ("Pendulum-v1", AGENT, 0, 300),
    ]
    assert specs[2].overrides == {"gamma": 0.9}
    assert specs[0].overrides == {}
    assert [specs[0].stop_at, specs[-1].stop_at] == [475, -200]
    assert (specs[-1].eval_freq, specs[-1].env_kwargs) == (50, {"g": 9.8})


def test_baselines_may_stop_early_and_be_fewer(tmp_path):
    text = TEXT.replace("stop_early: true", "stop_early: false\nbaselines_stop_early: true")
    study = read_study(written(tmp_path, text.replace("seeds: 2}", "seeds: 2, baseline_seeds: 1}")))
    cart = [spec for spec in study.specs() if spec.env == "CartPole-v1"]
    assert [(spec.algorithm, spec.seed, spec.stop_at) for spec in cart] == [
        (AGENT, 0, None),
        ("PPO", 0, 475),
        ("DQN", 0, 475),
        (AGENT, 1, None),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tasks: {}", "expected a mapping with tasks"),
        ("]", "is no YAML"),
        ("tasks: {A: {threshold: x, n_timesteps: 3}}", "threshold: expected a number, as 0.5, got x"),
        ("tasks: {A: {treshold: 3}}", r"tasks: A: there is no setting 'treshold'; did you mean threshold\?"),
        ("tasks: {A: {threshold: 3}}", "tasks: A: n_timesteps is missing"),
        ("tasks: {A: 3}", "tasks: A: expected settings, as .*, got 3"),
        ("tasks: {A: {threshold: 3, n_timesteps: 1, baselines: PPO}}", "baselines: expected a list, as .*, got PPO"),
        ("tasks: {A: {threshold: 3, n_timesteps: 0}}", "n_timesteps must be at least 1, got 0"),
        ("tasks: {A: {threshold: 3, n_timesteps: 1, seeds: 0}}", "seeds must lie between 1 and 1000"),
        ("tasks: {A: {threshold: 3, random: 4, n_timesteps: 1}}", "random 4 must lie below"),
        ("mods: [actor]\ntasks: {A: {threshold: 3, n_timesteps: 1}}", r"there is no setting 'mods'; did you mean modes\?"),
        ("tasks: {A: {threshold: 3, n_timesteps: 1, env_kwargs: {since: 2024-01-01}}}", "not JSON"),
        ("tasks: {A: {threshold: 3, n_timesteps: 1, baselines: [JEPA+x]}}", "JEPA.x: say under overrides"),
        ("overrides: {PPP: {}}\ntasks: {A: {threshold: 3, n_timesteps: 1}}", "PPP, which no task uses"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=says) as error:
        read_study(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.yaml: No such file"):
        read_study(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_our_own_studies_can_be_read(path: Path) -> None:
    assert read_study(path).specs()


def test_a_study_of_ones_own_needs_no_file() -> None:
    study = Study({"CartPole-v1": Task(475, 10, baselines=("PPO",), seeds=1)}, modes=("auto",))
    assert [spec.modes for spec in study.specs()] == [("auto",), ("policy",)]
    assert study.thresholds() == {"CartPole-v1": 475}


def test_a_variant_of_the_agent_is_run_as_the_agent_is_with_overrides_of_its_own() -> None:
    task = Task(475, 10, baselines=("JEPA+gru",), baseline_timesteps=99, seeds=1)
    study = Study({"CartPole-v1": task}, modes=("actor", "auto"), overrides={"JEPA+gru": {"memory": "gru"}})
    plain, variant = study.specs()
    assert (variant.modes, variant.n_timesteps, variant.overrides) == (plain.modes, 10, {"memory": "gru"})
    assert variant.folder(Path()) != plain.folder(Path())
