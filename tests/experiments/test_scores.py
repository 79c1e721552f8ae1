import numpy as np

from jepa_agent.experiments.records import Curve, RunSpec
from jepa_agent.experiments.scores import normalised_scores, quickness, random_return, random_returns
from jepa_agent.experiments.study import Study, Task

STUDY = Study({"CartPole-v1": Task(475, 400, random=25.0), "Pendulum-v1": Task(-200, 400, random=-1200.0)})


def curves(algorithm: str, mode: str, means: list[float], env: str = "CartPole-v1") -> list[Curve]:
    """Two runs with the same evaluations, every 100 steps."""
    steps = 100 * np.arange(1, len(means) + 1)
    specs = [RunSpec(algorithm, env, seed, 400, 100, 1) for seed in range(2)]
    return [Curve(spec, mode, steps, np.array(means)[:, None], steps / 100, np.ones(len(means))) for spec in specs]


CURVES = [
    *curves("JEPA", "actor", [480.0, 475.0]),
    *curves("PPO", "policy", [5.0, 5.0, 5.0, 500.0]),
    *curves("DQN", "policy", [5.0, 475.0, 25.0]),
    *curves("JEPA", "actor", [-300.0, -150.0], "Pendulum-v1"),
    *curves("SAC", "policy", [-900.0, -300.0], "Pendulum-v1"),
]


def test_scores_are_nought_for_a_random_policy_and_one_at_the_threshold() -> None:
    scores = normalised_scores(STUDY, CURVES, random_returns(STUDY, CURVES))
    assert set(scores) == {"JEPA (actor)", "best baseline"}
    assert [task.tolist() for task in scores["JEPA (actor)"]] == [[1.0, 1.0], [1.05, 1.05]]
    assert scores["best baseline"][0].tolist() == [(500 - 25) / 450] * 2  # PPO's, not DQN's
    assert scores["best baseline"][1].tolist() == [0.9, 0.9]


def test_quickness_is_more_where_fewer_steps_were_needed_and_least_where_all_were_too_few() -> None:
    found = quickness(STUDY, CURVES)
    assert [task.tolist() for task in found["JEPA (actor)"]] == [[-100.0, -100.0], [-200.0, -200.0]]
    assert found["best baseline"][0].tolist() == [-200.0, -200.0]  # DQN's, though PPO ends better
    assert found["best baseline"][1].tolist() == [-np.inf, -np.inf]


def test_tasks_on_which_jepa_has_not_run_yet_wait() -> None:
    scores = normalised_scores(STUDY, CURVES[:6] + CURVES[8:], random_returns(STUDY, CURVES))
    assert {name: len(tasks) for name, tasks in scores.items()} == {"JEPA (actor)": 1, "PPO": 1, "DQN": 1}


def test_a_task_that_a_random_policy_solves_is_left_out() -> None:
    easy, own = Study({"CartPole-v1": Task(10, 400)}), curves("PPO", "policy", [500.0])
    assert normalised_scores(easy, own, random_returns(easy, own)) == {}


def test_a_random_policy_is_measured_where_the_study_does_not_say() -> None:
    first = random_return("CartPole-v1", {})
    assert 15 < first < 35
    assert random_return("CartPole-v1", {}) == first
    assert random_return("CartPole-v1", {}, longest=3) == 3.0
