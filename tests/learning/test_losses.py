import math

import pytest
import torch

from jepa_agent.learning.losses import distillation_loss, n_step_return
from jepa_agent.learning.representation import energy_loss, prediction_loss, termination_loss

COST = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
ALIVE = torch.zeros(1, 4)
ALL = torch.ones(1, 4)


def returns(start, n_steps, terminated=ALIVE, mask=ALL):
    found = n_step_return(COST, terminated, mask, 0.5, torch.tensor([start]), n_steps)
    return found.cost.item(), found.discount.item(), found.last.item()


def test_n_step_return_discounts_and_names_where_to_bootstrap():
    assert returns(0, 2) == (1.0 + 0.5 * 2.0, 0.25, 1)


def test_n_step_return_from_inside_a_window():
    assert returns(1, 2) == (2.0 + 0.5 * 4.0, 0.25, 2)


def test_windows_too_short_for_a_start_are_refused():
    with pytest.raises(RuntimeError, match="out of bounds"):
        returns(2, 3)


def test_termination_stops_the_bootstrap():
    ended, mask = torch.tensor([[0.0, 1.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert returns(0, 3, ended, mask) == (1.0 + 0.5 * 2.0, 0.0, 1)


def test_a_time_limit_is_bootstrapped_through():
    mask = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert returns(0, 3, ALIVE, mask) == (1.0 + 0.5 * 2.0, 0.25, 1)


def test_every_row_has_a_start_of_its_own():
    found = n_step_return(COST.expand(2, 4), ALIVE.expand(2, 4), ALL.expand(2, 4), 0.5, torch.tensor([0, 3]), 1)
    assert found.cost.tolist() == [1.0, 8.0]
    assert found.last.tolist() == [0, 3]


def test_prediction_target_carries_no_gradient():
    z_hat, target = torch.zeros(1, 1, 2, requires_grad=True), torch.ones(1, 1, 2, requires_grad=True)
    loss = prediction_loss(z_hat, target)
    assert loss.item() == 1.0
    loss.sum().backward()
    assert target.grad is None
    assert z_hat.grad is not None


def test_termination_loss_is_the_cross_entropy():
    loss = termination_loss(torch.zeros(1, 1), torch.ones(1, 1))
    assert loss.item() == pytest.approx(math.log(2.0))


@pytest.mark.parametrize(
    ("promise", "planned", "pull"), [(9.0, True, 3.0), (0.5, True, 1.5), (-2.0, True, 0.0), (9.0, False, 0.0)]
)
def test_a_plan_pulls_as_strongly_as_it_promises_to_be_better(promise, planned, pull):
    imitation = torch.tensor([3.0], requires_grad=True)
    weight = torch.tensor([promise], requires_grad=True)
    loss = distillation_loss(imitation, weight, torch.tensor([planned]))
    assert loss.item() == pull
    loss.sum().backward()
    assert weight.grad is None


def test_energy_is_satisfied_once_the_margin_is_kept():
    assert energy_loss(torch.tensor([0.0]), torch.tensor([1.0])).item() == 0.0
    assert energy_loss(torch.tensor([0.5]), torch.tensor([0.5])).item() == 1.0


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="against"):
        prediction_loss(torch.zeros(2, 3, 4), torch.zeros(2, 1, 4))
