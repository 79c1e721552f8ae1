"""The actor: down the value gradient, and towards what the planner found."""

from __future__ import annotations

from torch import Tensor


def value_gradient_loss(cost_to_go: Tensor, spread: Tensor) -> Tensor:
    """Expected cost-to-go ``(B,)`` under the actor, in units of its ``spread`` over states: ``(B,)``."""
    return cost_to_go / spread


def distillation_loss(imitation: Tensor, actor_cost: Tensor, plan_cost: Tensor, planned: Tensor) -> Tensor:
    """Pull towards a stored plan only where Mode-2 acted and its action still looks cheaper than the actor's own.

    All ``(B,)``; the two costs gate and carry no gradient (the filter of Nair et al., 1709.10089), so a stale plan is
    forgotten as soon as the actor does better.
    """
    return imitation * ((plan_cost < actor_cost) & planned).float().detach()
