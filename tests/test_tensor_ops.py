import pytest
import torch
from torch import nn

from jepa_agent.tensor_ops import (
    copy_buffers,
    discount_weights,
    effective_rank,
    masked_mean,
    pessimistic,
    polyak_update,
    rank_last,
    spread,
)


def test_masked_mean_ignores_what_is_masked():
    assert masked_mean(torch.tensor([[1.0, 3.0, 100.0]]), torch.tensor([[1.0, 1.0, 0.0]])) == 2.0


def test_masked_mean_of_nothing_is_zero():
    assert masked_mean(torch.tensor([[5.0]]), torch.zeros(1, 1)) == 0.0


def test_discount_weights_multiply_gamma_and_survival():
    weights = discount_weights(torch.tensor([[0.0, 0.5, 1.0]]), gamma=0.5)
    torch.testing.assert_close(weights, torch.tensor([[1.0, 0.5, 0.125, 0.0]]))


def test_pessimism_raises_cost_by_the_disagreement():
    costs = torch.tensor([[1.0, 4.0], [3.0, 4.0]])  # (E, B): means 2 and 4, standard deviations sqrt(2) and 0
    torch.testing.assert_close(pessimistic(costs, 0.5), torch.tensor([2.0 + 0.5 * 2**0.5, 4.0]))


def test_one_member_cannot_disagree():
    assert pessimistic(torch.tensor([[7.0]]), 3.0) == 7.0


def test_nan_ranks_last():
    cost = rank_last(torch.tensor([float("nan"), 1e9, -1.0]))
    assert cost.argsort().tolist() == [2, 1, 0]


def test_polyak_moves_parameters_by_tau():
    source, target = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    with torch.no_grad():
        source.weight.fill_(3.0)
    polyak_update(list(source.parameters()), list(target.parameters()), tau=0.25)
    assert target.weight.item() == pytest.approx(1.5)


def test_buffers_are_copied_whole():
    source, target = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    source.running_mean.fill_(5.0)
    copy_buffers(source, target)
    assert target.running_mean.item() == 5.0


def test_spread_leaves_out_a_twentieth_at_either_end():
    values = torch.cat([torch.arange(100.0), torch.tensor([1e6])])[torch.randperm(101)]
    assert spread(values) == 95.0 - 5.0


def test_effective_rank_counts_directions():
    torch.manual_seed(0)
    line = torch.randn(200, 1) @ torch.randn(1, 8)
    assert effective_rank(line) == pytest.approx(1.0, abs=0.01)
    assert effective_rank(torch.randn(2000, 8)) > 7.5


def test_a_spread_of_rounding_errors_counts_but_has_no_slope():
    cost = torch.tensor([[1e-7, 1.0], [-1e-7, 3.0]], requires_grad=True)
    value = pessimistic(cost, 2.0, rounding=1e-5)
    torch.testing.assert_close(value.detach(), pessimistic(cost.detach(), 2.0), rtol=0, atol=0)
    (slope,) = torch.autograd.grad(value.sum(), cost)
    assert slope[:, 0].tolist() == [0.5, 0.5]
    torch.testing.assert_close(slope[:, 1], 0.5 + 2.0 * torch.tensor([-1.0, 1.0]) / 2.0**0.5)
