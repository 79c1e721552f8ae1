"""Stateless tensor maths used on every floor."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HUGE = 1e15  # sums of squares of numbers up to here are numbers still in float32


def check_same_shape(one: Tensor, other: Tensor) -> None:
    """``ValueError`` unless both have the same shape: broadcasting would make a loss of something else."""
    if one.shape != other.shape:
        raise ValueError(f"shapes differ: {tuple(one.shape)} against {tuple(other.shape)}")


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` over the entries where ``mask`` is 1; 0 if there are none. Both ``(B, T)``."""
    return (values * mask).sum() / mask.sum().clamp(min=1.0)


def discount_weights(terminated: Tensor, gamma: float) -> Tensor:
    """Weights of the depths of an imagined sequence: ``gamma^k`` times the probability of being alive after k steps.

    Args:
        terminated: Probability of ending at each step, ``(..., H)``.
        gamma: Discount per step.

    Returns:
        Weights ``(..., H+1)`` of depths 0..H; the first is 1.
    """
    alive = gamma * (1.0 - terminated)
    if alive.requires_grad and alive.shape[-1]:  # the gradient of cumprod asks the host whether any factor is 0
        alive = torch.stack([*itertools.accumulate(alive.unbind(-1), torch.mul)], dim=-1)
    else:
        alive = torch.cumprod(alive, dim=-1)
    return torch.cat([alive.new_ones(*alive.shape[:-1], 1), alive], dim=-1)


def mean_over_depths(cost: Tensor, weights: Tensor, ahead: Tensor) -> Tensor:
    """Discounted cost of a sequence, averaged over the depths at which a cost-to-go may take over: the mean over h = 0..H of
    ``sum_{k<h} w_k c_k + w_h Q_h``.

    Args:
        cost: Of each step, ``(..., H)``.
        weights: Of each depth, ``(..., H+1)``, as `discount_weights`.
        ahead: Cost-to-go at each depth, ``(..., H+1)``, or by each member of an ensemble, ``(E, ..., H+1)``.

    Returns:
        Costs ``(...)``, or ``(E, ...)``.
    """
    horizon = cost.shape[-1]
    # Step k is paid by the depths beyond it, H - k of the H + 1.
    depths = torch.arange(horizon, 0, -1, device=cost.device)
    paid = (weights[..., :-1] * cost * depths).sum(-1)
    return (paid + (weights * ahead).sum(-1)) / (horizon + 1)


def polyak_update(source: list[Tensor], target: list[Tensor], tau: float) -> None:
    """``target <- (1 - tau) target + tau source``, for parameters in the same order."""
    with torch.no_grad():
        torch._foreach_lerp_(target, source, tau)


def copy_buffers(source: nn.Module, target: nn.Module) -> None:
    """Make the target see by the same running scales as its source."""
    for theirs, ours in zip(target.buffers(), source.buffers(), strict=True):
        theirs.copy_(ours)


def row_count(values: Tensor | dict[str, Tensor]) -> int:
    """Length of the first axis; of a dictionary's tensors, which they share."""
    return len(values) if isinstance(values, Tensor) else len(next(iter(values.values())))


def one_hot(index: Tensor, n: int) -> Tensor:
    """Float one-hot vectors ``(..., n)``."""
    return F.one_hot(index.long(), n).float()


def one_hot_blocks(index: Tensor, num_choices: tuple[int, ...]) -> Tensor:
    """Choices ``(..., K)`` as float one-hot vectors side by side: ``(..., A)``."""
    if len(num_choices) == 1:
        return one_hot(index[..., 0], num_choices[0])
    ends = torch.tensor(num_choices, device=index.device).cumsum(0)
    place = index.long() + torch.cat([ends.new_zeros(1), ends[:-1]])
    return torch.zeros(*index.shape[:-1], sum(num_choices), device=index.device).scatter_(-1, place, 1.0)


def to_blocks(values: Tensor, num_choices: tuple[int, ...], fill: float) -> Tensor:
    """Blocks side by side ``(..., A)`` as rows ``(..., K, widest)``, the short ones filled up."""
    if len(set(num_choices)) == 1:
        return values.unflatten(-1, (len(num_choices), num_choices[0]))
    widest = max(num_choices)
    blocks = values.split(num_choices, dim=-1)
    return torch.stack([F.pad(block, (0, widest - block.shape[-1]), value=fill) for block in blocks], dim=-2)


def from_blocks(blocks: Tensor, num_choices: tuple[int, ...]) -> Tensor:
    """The inverse of `to_blocks`."""
    if len(set(num_choices)) == 1:
        return blocks.flatten(-2)
    return torch.cat([blocks[..., i, :n] for i, n in enumerate(num_choices)], dim=-1)


def span(values: Any, first: int | Tensor, count: int) -> Any:
    """Consecutive steps of a window.

    Args:
        values: ``(B, T, ...)``, or what is indexed like it.
        first: The step to begin at, the same for all rows or every row's own ``(B,)``.
        count: Number of steps.

    Returns:
        ``(B, count, ...)``.
    """
    if isinstance(first, int):
        return values[:, first : first + count]
    row = torch.arange(len(values), device=values.device).unsqueeze(1)
    return values[row, first.unsqueeze(1) + torch.arange(count, device=values.device)]


def pessimistic(cost: Tensor, pessimism: float, rounding: float = 0.0) -> Tensor:
    """The mean over an ensemble plus some standard deviations: a higher cost is worse.

    Args:
        cost: Costs ``(E, ...)`` by each member.
        pessimism: Standard deviations to add. Of two members 0.71 gives the larger one, the usual clipped double estimate.
        rounding: A standard deviation of at most this counts, but has no slope: rounding errors would point anywhere.

    Returns:
        Costs ``(...)``.
    """
    if cost.shape[0] == 1:
        return cost[0]
    std, mean = torch.std_mean(cost, dim=0)
    if std.requires_grad:
        std = torch.where(std > rounding, std, std.detach())
    return mean + pessimism * std


def spread(values: Tensor) -> Tensor:
    """Distance from the 5th to the 95th percentile of ``values`` ``(B,)``, by nearest rank."""
    ordered, last = values.sort().values, len(values) - 1  # torch.quantile takes ten times as long
    return ordered[round(0.95 * last)] - ordered[round(0.05 * last)]


def rank_last(cost: Tensor) -> Tensor:
    """Costs with NaN turned into +inf, so that a broken candidate can never win."""
    return torch.nan_to_num(cost, nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)


def effective_rank(z: Tensor) -> Tensor:
    """Exponential of the entropy of the principal axes' shares of the variance of ``z`` ``(B, D)``, in [1, D] (Roy &
    Vetterli, 2007, but of variances, so that a little noise in all directions counts for little)."""
    variance = torch.linalg.svdvals(z - z.mean(0)).square()
    share = variance / variance.sum().clamp(min=1e-24)
    return torch.exp(-(share * share.clamp(min=1e-12).log()).sum())


def ridge(inputs: Tensor, targets: Tensor, strength: float = 1e-5) -> Tensor:
    """Weights of a ridge regression in closed form, in double precision.

    Args:
        inputs: ``(N, F)``, a constant among them if one is wanted.
        targets: ``(N, K)``.
        strength: Penalty on squared weights, per row.

    Returns:
        Weights ``(F, K)``, float64.
    """
    inputs, targets = inputs.double(), targets.double()
    penalty = strength * len(inputs) * torch.eye(inputs.shape[1], device=inputs.device, dtype=torch.float64)
    return torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ targets)
