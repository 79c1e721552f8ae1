import csv
import io
import json

import numpy as np
import pytest
import torch

from jepa_agent.cli import main
from jepa_agent.experiments.audit import MEANING, _chance_higher, _judged, _slope, audit
from jepa_agent.learning.terms import (
    Contrast,
    Cost,
    InfoNCE,
    Prediction,
    Quasimetric,
    Reachability,
    Termination,
    TransitionContrast,
)

EASY = {"gamma": 0.8, "mode": "actor", "learning_rate": 3e-3, "learning_starts": 100}  # 14 steps are nearly all the future
TERMS = [Prediction(), Cost(), Termination(), InfoNCE(0.1)]
TERMS += [Contrast(0.1), TransitionContrast(0.1), Reachability(0.1), Quasimetric(0.1)]


def test_a_trained_an_untrained_and_a_collapsed_agent_are_told_apart(small, tmp_path, capsys):
    trained = small("Pendulum-v1", representation=TERMS, **EASY).learn(250)
    untrained = small("Pendulum-v1", representation=TERMS, **EASY)
    known, unknown = (audit(agent, "Pendulum-v1", {}, 4, 30)[0] for agent in (trained, untrained))
    assert set(known) == set(MEANING)
    assert min(known["value_rank"], known["plan_rank"]) > 0.8  # was 0.97 and 0.95
    assert max(unknown["value_rank"], unknown["plan_rank"]) < 0.5  # -0.20 and 0.02
    assert abs(known["plan_gap"]) < 1 < abs(unknown["plan_gap"])  # 0.27 and -2.6
    assert 0.5 < known["value_slope"] < 2.0  # 1.2; untrained -5.5
    assert known["cost_rank"] > 0.7  # 0.84, untrained 0.50
    assert known["reach_rank"] > 0.4 > unknown["reach_rank"]  # 0.71 and -0.37
    assert known["energy_random"] > 0.95 > unknown["energy_random"]  # 1 and 0.73
    assert known["transition_random"] > 0.95 > unknown["transition_random"]  # 1 and 0.30
    assert known["transition_imagined"] > 0.8 > unknown["transition_imagined"]  # 0.93 and 0.67
    with torch.no_grad():
        trained.world_model.encoder.net[0].weight.zero_()  # all observations look the same
    trained.save(tmp_path / "last_model")
    call = ["audit", str(tmp_path), "--env", "Pendulum-v1", "--episodes", "4", "--steps", "30"]
    assert main(call) == 0
    told = capsys.readouterr().out
    assert "collapse: latents lie almost at a point" in told
    assert all(name in told for name in MEANING)
    assert "None" not in told
    assert "-: nothing to tell, as all states" in told
    assert "fresh networks" not in told
    collapsed = json.loads((tmp_path / "audit.json").read_text())
    assert collapsed["std"] < 0.05 < min(known["std"], unknown["std"])
    assert collapsed["value_rank"] is collapsed["reach_rank"] is None  # all states look alike
    assert (tmp_path / "audit.png").stat().st_size > 1_000


def test_rows_are_printed_for_programs_and_only_energies_that_there_are(small, tmp_path, capsys):
    small("Pendulum-v1", **EASY).save(tmp_path / "agent.zip")
    call = ["audit", str(tmp_path / "agent.zip"), "--env", "Pendulum-v1", "--episodes", "2", "--steps", "5"]
    assert main([*call, "--format", "csv", "--output", str(tmp_path / "told")]) == 0
    rows = {row["number"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert float(rows["steps"]["value"]) == 10
    assert {"value_rank", "cost_rank"} <= rows.keys()
    assert not {"energy_rank", "reach_rank", "transition_rank"} & rows.keys()
    assert main(call) == 0
    assert "values have learned nothing yet" in capsys.readouterr().out
    assert json.loads((tmp_path / "told/audit.json").read_text())["asked"] == {"episodes": 2, "steps": 5, "seed": 20_000}


def test_the_cost_that_came_is_discounted_and_cut_where_the_future_was_not_seen():
    rows = [(np.zeros(2), np.zeros(1), 7.0, cost) for cost in (1.0, 2.0, 4.0, 8.0)]
    z, z_next, _, promised, realised = _judged(rows, gamma=0.5, steps=9, beyond=2)
    assert realised.tolist() == [4.0, 6.0]  # 1 + 2/2 + 4/4 + 8/8 and 2 + 4/2 + 8/4
    assert len(z) == len(z_next) == len(promised) == 2
    assert len(_judged(rows, gamma=0.5, steps=1, beyond=1)[0]) == 1


def test_slopes_and_chances_are_those_computed_by_hand():
    expected, realised = np.array([0.0, 1.0, 2.0]), np.array([1.0, 4.0, 7.0])
    assert _slope(expected, realised) == pytest.approx(3.0)
    assert np.isnan(_slope(np.ones(3), realised))
    assert np.isnan(_slope(expected, np.ones(3)))
    assert _chance_higher(np.array([1.0, 3.0]), np.array([0.0, 1.0])) == pytest.approx(3.5 / 4)  # one of four is a tie


def test_what_cannot_be_audited_is_told_in_one_line(tmp_path, capsys):
    (tmp_path / "last_model.zip").write_bytes(b"no agent")
    for argv, told in (
        ([str(tmp_path / "nowhere")], "no model at"),
        ([str(tmp_path), "--episodes", "0"], "--episodes 0: expected a whole number of at least 1"),
        ([str(tmp_path)], "name it with --env"),
    ):
        assert main(["audit", *argv]) == 2
        assert told in capsys.readouterr().err.splitlines()[-1]
