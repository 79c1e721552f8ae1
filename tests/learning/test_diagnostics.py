from types import SimpleNamespace

import pytest
import torch

from jepa_agent.learning.diagnostics import (
    Steps,
    action_effect,
    action_sensitivity,
    decision_measures,
    open_loop_error,
    readable,
    realised_gain,
    resolution,
    signs_of_collapse,
)
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


# ---------------------------------------------------------------------- latents, on numbers computed by hand


def steps(z, z_next, action):
    """Steps of which every fifth is kept from fits; the observations are not looked at."""
    return Steps(z, z_next, action, torch.zeros(len(z), 1), torch.arange(len(z)) % 5 == 0)


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_an_error_is_a_share_of_the_way_come_and_leaves_out_steps_after_the_end():
    observed = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]], [[0.0, 0.0], [3.0, 4.0], [9.0, 9.0]]])
    imagined = torch.tensor([[[0.0, 0.0], [3.0, 3.0], [6.0, 3.0]], [[0.0, 0.0], [4.0, 4.0], [0.0, 0.0]]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert open_loop_error(imagined, observed, mask, 1) == pytest.approx(1 / 5)  # 1 of 5, in both windows
    assert open_loop_error(imagined, observed, mask, 2) == pytest.approx(5 / 10)  # the second window has ended


def test_standing_still_has_an_error_of_one():
    observed = numbers(7, 4, 3)
    still = observed[:, :1].expand_as(observed)
    assert open_loop_error(still, observed, torch.ones(7, 3), 3) == pytest.approx(1.0)


def test_resolution_is_the_usual_distance_and_no_outlier_s():
    pairs = torch.tensor([[[0.0, 0.0], [0.3, 0.3]], [[1.0, 0.0], [1.0, 0.2**0.5]], [[0.0, 0.0], [50.0, 50.0]]])
    assert resolution(pairs) == pytest.approx(0.1**0.5)  # 0.3, 0.316 and 50
    assert resolution(pairs[:1]) == pytest.approx(0.3)


@pytest.mark.parametrize("reach", [0.0, 0.25])
def test_sensitivity_is_how_far_apart_two_actions_lead_by_how_far_a_step_goes(reach):
    # Half a turn later stand the other two actions; the third pair is one of equal actions, which say nothing.
    action, z = torch.tensor([[1.0], [-1.0], [1.0], [-1.0], [1.0], [1.0]]), torch.zeros(6, 1)
    model = SimpleNamespace(predict=lambda z, action: z + reach * action)
    assert action_sensitivity(model, steps(z, z + 2.0, action)) == pytest.approx(reach * 2.0 / 2.0)


def test_an_effect_is_seen_where_actions_tell_the_step_and_nowhere_else():
    z, action = numbers(500, 3), torch.tensor([[1.0], [-1.0]]).repeat(250, 1)
    # All of the step is the action's: two draws lie twice its variance apart.
    assert action_effect(steps(z, z + 0.5 * action, action)) == pytest.approx(2**0.5, rel=0.02)
    assert action_effect(steps(z, 1.5 * z + 0.5, action)) < 0.01
    assert action_effect(steps(z, z + numbers(500, 7)[:, 4:], action)) < 0.1  # nor in noise


def test_what_is_read_is_the_share_of_the_variance_on_rows_kept_from_the_fit():
    z, noise, held_out = numbers(4_000, 8)[:, :2], numbers(4_000, 8)[:, 2:3], torch.arange(4_000) % 5 == 0
    assert readable(z, z @ torch.tensor([[1.0], [2.0]]) + 3.0, held_out) == pytest.approx(1.0, abs=1e-4)
    assert readable(z, z[:, :1] + noise, held_out) == pytest.approx(0.5, abs=0.05)
    assert readable(torch.zeros_like(z), z, held_out) == pytest.approx(0.0, abs=0.01)
    # A target that never varies asks for nothing.
    both = torch.cat([z[:, :1], torch.ones(4_000, 1)], dim=-1)
    assert readable(z, both, held_out) == pytest.approx(1.0, abs=1e-4)


HEALTHY = {"std": 0.6, "resolution": 0.5, "rank": 7.0, "action_sensitivity": 0.3, "action_effect": 0.2}


@pytest.mark.parametrize(
    ("worse", "kinds"),
    [
        ({}, set()),
        ({"resolution": 0.26, "rank": 3.6, "action_sensitivity": 0.11}, set()),
        ({"resolution": 0.24}, {"contraction"}),
        ({"rank": 3.4}, {"rank"}),
        ({"std": 0.04}, {"contraction"}),
        ({"action_sensitivity": 0.09}, {"actions"}),
        ({"action_sensitivity": 0.0, "action_effect": 0.05}, set()),  # what is seen of actions may be chance
        ({"resolution": 0.01, "rank": 1.0, "action_sensitivity": 0.0}, {"contraction", "rank", "actions"}),
    ],
)
def test_what_falls_to_half_is_a_sign_of_collapse(worse, kinds):
    signs = signs_of_collapse({**HEALTHY, **worse}, HEALTHY)
    assert set(signs) == kinds
    for line in signs.values():
        assert "latent/" in line
        assert "\n" not in line


def test_a_first_measurement_tells_only_what_lies_at_a_point_or_on_a_line():
    assert signs_of_collapse({"std": 0.1, "resolution": 0.01, "rank": 1.2}, {}) == {}
    assert set(signs_of_collapse({"std": 0.04, "resolution": 0.01, "rank": 1.1}, {})) == {"contraction", "rank"}
