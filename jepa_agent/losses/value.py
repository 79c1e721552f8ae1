"""Cost-to-go: targets and loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class NStepReturn(NamedTuple):
    """What is known of a cost-to-go; the rest is ``discount`` times the cost-to-go after step ``last``."""

    cost: Tensor  # (B,) discounted cost of the steps taken
    discount: Tensor  # (B,) gamma^steps, 0 after a termination
    last: Tensor  # (B,) index of the last step taken


def n_step_return(cost: Tensor, terminated: Tensor, mask: Tensor, gamma: float, start: Tensor, n_steps: int) -> NStepReturn:
    """At most ``n_steps`` real steps of windows ``(B, T)``, from step ``start`` ``(B,)`` on; fewer where ``mask`` ends.

    A time limit ends the mask but not the discount: the cost-to-go is bootstrapped through it. Windows must be long
    enough for every start: ``start + n_steps <= T``.
    """
    offset = torch.arange(n_steps, device=cost.device)
    index = start.unsqueeze(1) + offset  # (B, n)
    taken = mask.gather(1, index)
    length = taken.sum(1).clamp(min=1.0)
    last = start + length.long() - 1
    total = (cost.gather(1, index) * taken * gamma**offset).sum(1)
    ended = terminated.gather(1, last.unsqueeze(1)).squeeze(1)
    return NStepReturn(total, gamma**length * (1.0 - ended), last)


def value_loss(cost_to_go: Tensor, target: Tensor) -> Tensor:
    """Huber loss of each member ``(E, B)`` against the shared target ``(B,)``, averaged over members: ``(B,)``."""
    return F.smooth_l1_loss(cost_to_go, target.detach().expand_as(cost_to_go), reduction="none").mean(0)
