import json

import numpy as np
import torch

from jepa_agent.envs.rooms import REACHED, STEP, TwoRooms
from jepa_agent.experiments import rooms
from jepa_agent.experiments.rooms import Pair, pairs, play, table
from jepa_agent.experiments.steps_to_go import fit_steps_to_go


def test_steps_to_go_are_those_of_the_shortest_way_that_was_ever_taken():
    # A random walk of steps up to 0.2 along a line: five lead from end to end, but it takes some seventy.
    rng, place, places = np.random.default_rng(0), 0.0, [0.0]
    for _ in range(2_000):
        place = float(np.clip(place + rng.uniform(-0.2, 0.2), 0.0, 1.0))
        places.append(place)
    line = torch.tensor(places).unsqueeze(1)
    ended = np.arange(2_000) % 200 == 199
    steps = fit_steps_to_go(line[:-1], line[1:], ended, 300, seed=0)
    found = steps(torch.linspace(0.0, 1.0, 6).unsqueeze(1), torch.ones(1))
    assert 4.0 < found[0] < 12.0
    assert (found.diff() < -0.1).all()
    assert found[5] < found[0] / 2.0


def test_pairs_are_the_same_at_every_call_and_lie_in_both_rooms():
    first, again = pairs(60), pairs(60)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(np.concatenate(one), np.concatenate(other))
    assert 15 < sum(pair.other_room for pair in first) < 45
    env = TwoRooms()
    for pair in first:
        env.reset(options={"state": [*pair.goal, *pair.state[2:]]})
        np.testing.assert_array_equal(env.position, pair.goal)  # it can be there


def test_a_pair_counts_the_steps_until_its_goal_is_reached_and_none_if_it_is_not():
    state = np.array([0.2, 0.2, 0.5, 0.5])
    asked = [Pair(state, np.array([0.2, 0.48])), Pair(state, np.array([0.9, 0.2]))]
    goals = []

    def ask(goal):
        goals.append(goal)
        return lambda obs, state: (np.array([0.0, 1.0], np.float32), None)

    assert play("JEPA/TwoRooms-v0", asked, ask) == [int(np.ceil((0.28 - REACHED) / STEP)), None]
    np.testing.assert_allclose(goals[1], [0.9, 0.2, 0.5, 0.5])


def test_what_is_missing_is_measured_once_from_one_collection(tmp_path, monkeypatch):
    done = []
    for name in ("collect", "learn"):
        own = getattr(rooms, name)
        monkeypatch.setattr(rooms, name, lambda *given, own=own, name=name: done.append(name) or own(*given))
    short = {
        way: rooms.Way(rooms.PlannerConfig(horizon=2, num_samples=4, num_elites=2, replan_every=2), chosen.fitted)
        for way, chosen in rooms.WAYS.items()
    }
    monkeypatch.setattr(rooms, "WAYS", short)
    variants = ["prediction", "prediction, InfoNCE, inverse"]
    options = ["--output", str(tmp_path), "--seeds", "3", "--pairs", "2", "--steps", "150", "--updates", "3"]
    rooms.main([*options, "--variants", *variants])
    assert done == ["collect", "learn", "learn"]
    assert len(list(tmp_path.glob("*-seed3.json"))) == 5
    (tmp_path / "prediction-steps_to_go-seed3.json").unlink()
    rooms.main([*options, "--variants", *variants])
    assert done == ["collect", "learn", "learn", "collect", "learn"]
    result = json.loads((tmp_path / "prediction_InfoNCE_inverse-steps_to_go-seed3.json").read_text())
    assert len(result["steps"]) == result["of"] == 2
    assert any("Inverse" in term for term in result["terms"])
    assert len((tmp_path / "table.md").read_text().splitlines()) == 2 + 1 + 4


def test_the_table_gives_shares_of_all_and_of_either_room(tmp_path):
    for seed, steps in ((0, [10, None, 30, None]), (1, [20, 40, None, None])):
        result = {"variant": "prediction", "way": "steps to go", "steps": steps, "other_room": [0, 0, 1, 1]}
        (tmp_path / f"prediction-steps_to_go-seed{seed}.json").write_text(json.dumps(result))
    assert table(tmp_path).splitlines()[-1] == "| prediction | steps to go | 2 | 50 | 75 | 25 | 25 |"
