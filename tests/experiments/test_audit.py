import json

import numpy as np
import pytest
import torch

from jepa_agent.experiments import audit as module
from jepa_agent.experiments.audit import _judged, audit, main

EASY = {"gamma": 0.8, "mode": "actor", "learning_rate": 3e-3, "learning_starts": 100}  # 14 steps are nearly all the future


def test_a_trained_an_untrained_and_a_collapsed_agent_are_told_apart(small, tmp_path, capsys):
    trained = small("Pendulum-v1", **EASY).learn(250)
    untrained = small("Pendulum-v1", **EASY)
    known, unknown = (audit(agent, "Pendulum-v1", {}, 4, 30)[0] for agent in (trained, untrained))
    assert min(known["value_rank"], known["plan_rank"]) > 0.8  # was 0.96 and 0.97
    assert max(unknown["value_rank"], unknown["plan_rank"]) < 0.5  # 0.03 and 0.22
    assert abs(known["plan_gap"]) < 1 < abs(unknown["plan_gap"])  # 0.25 and -2.7
    with torch.no_grad():
        trained.world_model.encoder.net[0].weight.zero_()  # all observations look the same
    trained.save(tmp_path / "last_model")
    main([str(tmp_path), "--env", "Pendulum-v1", "--episodes", "4", "--steps", "30"])
    assert "collapse: latents lie almost at a point" in capsys.readouterr().out
    collapsed = json.loads((tmp_path / "audit.json").read_text())
    assert collapsed["std"] < 0.05 < min(known["std"], unknown["std"])
    assert collapsed["value_rank"] is None  # all states look alike
    assert (tmp_path / "audit.png").stat().st_size > 1_000


def test_the_cost_that_came_is_discounted_and_cut_where_the_future_was_not_seen():
    rows = [(np.zeros(2), np.zeros(1), 7.0, cost) for cost in (1.0, 2.0, 4.0, 8.0)]
    z, z_next, _, promised, realised = _judged(rows, gamma=0.5, steps=9, beyond=2)
    assert realised.tolist() == [4.0, 6.0]  # 1 + 2/2 + 4/4 + 8/8 and 2 + 4/2 + 8/4
    assert len(z) == len(z_next) == len(promised) == 2
    assert len(_judged(rows, gamma=0.5, steps=1, beyond=1)[0]) == 1


def test_what_cannot_be_audited_is_told_in_one_line(tmp_path, capsys):
    for argv, told in (
        ([str(tmp_path)], "no agent at"),
        ([str(tmp_path), "--episodes", "0"], "--episodes and --steps must be at least 1"),
    ):
        with pytest.raises(SystemExit):
            main(argv)
        assert told in capsys.readouterr().err.splitlines()[-1]
    (tmp_path / "last_model.zip").write_bytes(b"no agent")
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "name it with --env" in capsys.readouterr().err.splitlines()[-1]


def test_every_number_is_explained(small):
    agent = small("CartPole-v1", energy_coef=1.0, **EASY)
    found, _ = audit(agent, "CartPole-v1", {}, 2, 10)
    assert set(found) == set(module._MEANING)
