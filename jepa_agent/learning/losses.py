"""Losses of the costs-to-go and of the actor: pure functions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class NStepReturn(NamedTuple):
    """What is known of a cost-to-go; the rest is ``discount`` times the cost-to-go after step ``last``."""

    cost: Tensor  # (B,) discounted cost of the steps taken
    discount: Tensor  # (B,) gamma^steps, 0 after a termination
    last: Tensor  # (B,) index of the last step taken


def n_step_return(cost: Tensor, terminated: Tensor, mask: Tensor, gamma: float, start: Tensor, n_steps: int) -> NStepReturn:
    """What is known of a cost-to-go: ``sum_k gamma^k c_{start+k}`` over at most ``n_steps`` steps.

    A time limit ends the mask but not the discount: the cost-to-go is bootstrapped through it.

    Args:
        cost: Of each step, ``(B, T)``.
        terminated: 1 where a step ended the episode, ``(B, T)``.
        mask: 0 after an episode's end, ``(B, T)``.
        gamma: Discount per step.
        start: First step of each window to count, ``(B,)``, with ``start + n_steps <= T``.
        n_steps: Most steps to sum.
    """
    offset = torch.arange(n_steps, device=cost.device)
    index = start.unsqueeze(1) + offset  # (B, n)
    taken = mask.gather(1, index)
    length = taken.sum(1).clamp(min=1.0)
    last = start + length.long() - 1
    total = (cost.gather(1, index) * taken * gamma**offset).sum(1)
    ended = terminated.gather(1, last.unsqueeze(1)).squeeze(1)
    return NStepReturn(total, gamma**length * (1.0 - ended), last)


def distillation_loss(imitation: Tensor, promise: Tensor, planned: Tensor) -> Tensor:
    """Imitation of stored plans, weighted by how much cheaper than the actor's action the critic still expects them to be.

    A stale plan loses its weight as the actor catches up (compare the filter of Nair et al., 1709.10089).

    Args:
        imitation: Distance of the actor from each plan, ``(B,)``.
        promise: Cost-to-go of the actor's action less that of the plan's, ``(B,)`` in units of the spread over states;
            clipped to [0, 1], without gradient.
        planned: Where a plan was executed, bool ``(B,)``.

    Returns:
        Losses ``(B,)``.
    """
    return imitation * (promise.clamp(0.0, 1.0) * planned).detach()
