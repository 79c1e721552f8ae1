"""The actor: down the value gradient, and towards what the planner found."""

from __future__ import annotations

from torch import Tensor


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
