import json

import numpy as np
import pytest

from jepa_agent import JEPA
from jepa_agent.experiments import adapt
from jepa_agent.experiments.adapt import AdaptStudy, AdaptTask, Bench, Shift, main, played
from jepa_agent.experiments.adapt_report import share, table
from jepa_agent.experiments.study import read_as

STUDY = """
tasks:
  Pendulum-v1:
    n_timesteps: 30
    baseline: SAC
    baseline_timesteps: 20
    shifts:
      weak: {world: {WeakActuators: {factors: 0.6}, DelayedActions: {steps: 1}}}
      lean: {goal: {PendulumAngle: {angle: 0.3}}}
n_eval_episodes: 2
seeds: 1
"""


def rows():
    made = []
    for seed in (0, 1):
        for column, value in (("random", -10.0), ("planner, asked", -4.0 + seed), ("SAC, from scratch", 0.0)):
            made.append({"task": "T", "shift": "s", "seed": seed, "column": column, "returns": [value], "violations": 0.0})
    return made


def test_what_is_there_is_not_measured_again_and_every_column_is(tmp_path, monkeypatch):
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    asked = []

    def instead(bench, shift, act):
        return {"returns": [1.0, 2.0], "played": 2, "violations": 0.0}

    def trained(bench, column):
        asked.append(column)

    study = read_as(AdaptStudy, file)
    columns = {name: Bench("Pendulum-v1", study.tasks["Pendulum-v1"], 0, tmp_path, 2).columns(shift) for name, shift in
               study.tasks["Pendulum-v1"].shifts.items()}  # fmt: skip
    monkeypatch.setattr(Bench, "play", instead)
    monkeypatch.setattr(Bench, "trained", trained)
    monkeypatch.setattr(Bench, "columns", lambda *_: {name: (0, lambda agent: None) for name in columns["weak"]})
    for _ in range(2):
        main([str(file), "--output", str(tmp_path / "out"), "--agents", str(tmp_path)])
    lines = (tmp_path / "out" / "rows" / "Pendulum-v1-seed0.jsonl").read_text().splitlines()
    assert [json.loads(line)["column"] for line in lines] == 2 * list(columns["weak"])
    assert len(asked) == len(lines)
    assert "| weak |" in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "out" / "figure.png").exists()
    assert "planner, cost-to-go fitted" in columns["lean"]
    assert {"adapted, 200", "adapted, 1000", "SAC, tuned 200", "SAC, from scratch"} <= set(columns["weak"])


def test_shares_lie_between_random_actions_and_the_better_agent_from_scratch():
    found = share(rows(), "T", "s", "planner, asked")
    assert found.mean == pytest.approx(0.65)
    assert found.n_seeds == 2
    assert share(rows()[:2], "T", "s", "planner, asked") is None
    level = [{**row, "returns": [-10.0]} for row in rows()]
    assert share(level, "T", "s", "planner, asked") is None
    assert "| s | -10 | -4 (65%" in table(rows(), "T")


def test_violations_of_a_range_are_counted_over_real_steps():
    shift = Shift(keep={"feature": 2, "low": -1.0, "high": 1.0})
    env = shift.make("Pendulum-v1")
    found = played(lambda obs, state, deterministic: (np.zeros((len(obs), 1), np.float32), None), [env], shift.limits())
    env.reset(seed=adapt.EVALUATION_SEED)
    speeds = [env.step(np.zeros(1, np.float32))[0][2] for _ in range(200)]
    assert found["played"] == 200
    assert found["violations"] == pytest.approx(np.mean(np.abs(speeds) > 1.0))


def test_a_shifted_world_a_goal_and_a_range_are_asked_for_in_their_way(small, tmp_path):
    model = small("Pendulum-v1", learning_starts=1_000).learn(100)
    adapt._asked(model, Shift(world={"DelayedActions": {}}))
    assert model.cost is None
    assert model.mode == "planner"
    adapt._asked(model, Shift(goal={"PendulumAngle": {"angle": 0.3}}))
    assert model.cost is not None
    adapt._asked(model, Shift(keep={"feature": 2, "high": 1.0}))
    assert len(model.policy.objective.constraints) == 1


def test_the_trained_agent_is_kept_with_its_experience(tmp_path, monkeypatch):
    bench = Bench("Pendulum-v1", AdaptTask(n_timesteps=25, shifts={}), 100, tmp_path, 1)
    first = bench.jepa()
    monkeypatch.setattr(JEPA, "learn", None)
    assert bench.jepa().num_timesteps == first.num_timesteps == 25
    assert bench.jepa().replay_buffer.size() == 25


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"world": {"Gravity": {}}}, "there is no Gravity; choose among Physics"),
        ({"goal": {"Angle": {}}}, "there is no Angle; choose among PendulumAngle"),
        ({}, "a shift needs a world, one goal, or a range to keep"),
    ],
)
def test_a_shift_that_is_none_is_refused(own, message):
    with pytest.raises(ValueError, match=message):
        Shift(**own)
