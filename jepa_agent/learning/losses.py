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


def value_gradient_loss(cost_to_go: Tensor, spread: Tensor) -> Tensor:
    """Expected cost-to-go ``(B,)`` under the actor, in units of its ``spread`` over states: ``(B,)``."""
    return cost_to_go / spread


def distillation_loss(imitation: Tensor, promise: Tensor, planned: Tensor) -> Tensor:
    """Pull towards a stored plan where Mode-2 acted, as strongly as its action still promises to be cheaper than the
    actor's own, up to 1.

    All ``(B,)``, ``promise`` in units of the costs-to-go's spread over states. It weighs and carries no gradient (compare
    the filter of Nair et al., 1709.10089), so a stale plan is forgotten as the actor catches up.
    """
    return imitation * (promise.clamp(0.0, 1.0) * planned).detach()
