from types import SimpleNamespace

import pytest
import torch

from jepa_agent.learning.diagnostics import decision_measures, realised_gain
from jepa_agent.types import Decision


def decision(cost_to_go=(0.0, 0.0, 0.0), gain=(2.0, -1.0, 0.0)):
    """Of three environments: a plan executed, a plan not executed, no plan."""
    planned, searched = torch.tensor([True, False, False]), torch.tensor([True, True, False])
    zero, action = torch.zeros(3), torch.zeros(3, 1)
    situation = SimpleNamespace(cost_to_go=torch.tensor(cost_to_go))
    milliseconds = torch.tensor([4.0, 4.0, 0.0])
    gain = torch.tensor(gain)
    return Decision(action, planned, searched, gain, zero, zero + 0.3, action, zero + 0.2, milliseconds, situation)


def test_shares_are_of_all_steps_and_gains_of_executed_plans():
    measures = decision_measures(decision(), tracks_state=True)
    assert measures["mode/planner_fraction"] == pytest.approx(2 / 3)
    assert measures["mode/executed_fraction"] == pytest.approx(1 / 3)
    assert measures["mode/gain_predicted"] == 2.0
    assert measures["time/plan_ms"] == 4.0
    assert measures["latent/surprise"] == pytest.approx(0.3)
    assert measures["plan/spread"] == pytest.approx(0.2)


def test_a_search_is_worth_its_gain_whether_its_plan_is_executed_or_not():
    assert decision(gain=(2.0, 1.0, 3.0)).worth.tolist() == [2.0, 1.0, 0.0]
    assert decision(gain=(torch.nan, -1.0, 0.0)).worth.tolist() == [0.0, 0.0, 0.0]


def test_a_realised_gain_is_what_the_actor_had_in_prospect_less_what_came():
    before, after = decision(cost_to_go=(10.0, 10.0, 10.0)), decision(cost_to_go=(8.0, 10.0, 20.0))
    gained = realised_gain(before, torch.tensor([1.0, 0.0, 0.0]), after, gamma=0.5)
    assert gained.tolist() == [5.0, 5.0, 0.0]
