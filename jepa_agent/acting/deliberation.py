"""Mode-2: what a planner is shown of imagined futures, and what its plan promises."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from jepa_agent.interruption import poll
from jepa_agent.model.actor import BoundedActor
from jepa_agent.model.world_model import WorldModel
from jepa_agent.planning import Planner
from jepa_agent.tensor_ops import pessimistic
from jepa_agent.types import Plan, PlanInit

_ROUNDING = 1e-5

SequenceCosts = Callable[[Tensor, Tensor], Tensor]
"""Latents ``(B, D)`` and sequences ``(B, N, H, A)`` in, what they cost by each member ``(E, B, N)`` out."""


def deliberate(
    model: WorldModel,
    planner: Planner,
    objective: SequenceCosts,
    pessimism: float,
    z: Tensor,
    warm_start: Tensor,
    generator: torch.Generator,
    action: Tensor | None = None,
) -> tuple[Plan, Tensor, Tensor]:
    """Plan from latents, and compare the plan with the actor's own sequence.

    The planner sees costs *relative to the actor's own sequence*, raised by the ensemble's disagreement on that difference:
    errors that all members share cancel, and what they disagree about does not look like a gain.

    Args:
        model: Imagines and costs.
        planner: Searches.
        objective: Costs ``(E, B, N)`` of sequences, `WorldModel.member_costs` unless the user has set another cost.
        pessimism: Standard deviations of the ensemble that are added to the relative cost.
        z: Latents ``(B, D)``.
        warm_start: What is left of the last plan, ``(B, H, A)``; zero where there was none.
        generator: Of the planner's draws.
        action: The actor's action ``(B, A)``, where it has been computed already.

    Returns:
        The plan, its predicted gain over the actor's own sequence ``(B,)`` in the units of -reward, and the standard
        deviation ``(B,)`` of that gain over the ensemble.

    Raises:
        ValueError: The planner's answer cannot be executed.
    """
    began = time.perf_counter()
    own = model.actor_sequence(z, planner.horizon, action)
    rounding = 1e-6 * float(model.value_scale)

    def relative(actions: Tensor) -> Tensor:
        # The actor's own sequence goes along as one more candidate: one row more costs less than one call more.
        costs = objective(z, torch.cat([own.unsqueeze(1), actions], dim=1))
        return costs[..., 1:] - costs[..., :1]

    def cost_fn(actions: Tensor) -> Tensor:
        poll()
        return pessimistic(relative(actions), pessimism, rounding)

    proposals = torch.stack([own, _possible(model, warm_start, own)], dim=1)
    if planner.actor_samples:
        disturbed = model.disturbed_sequences(z, planner.horizon, planner.actor_samples, generator)
        proposals = torch.cat([proposals, disturbed], dim=1)
    plan = planner.plan(cost_fn, PlanInit(proposals, generator, began))
    check_plan(planner, plan, own, choices=not isinstance(model.actor, BoundedActor))
    gains = -relative(plan.actions.unsqueeze(1)).squeeze(-1)
    spread = gains.std(0) if gains.shape[0] > 1 else torch.zeros_like(gains[0])
    return plan, gains.mean(0), spread


def check_plan(planner: Planner, plan: Plan, own: Tensor, choices: bool) -> None:
    """See that the plan of a planner, which may be a user's, can be executed.

    Args:
        planner: Who made it.
        plan: What it found.
        own: The actor's sequence ``(B, H, A)``, as an example.
        choices: Whether actions are choices, one-hot vectors side by side, or numbers in [-1, 1].

    Raises:
        ValueError: For another shape, for what is not finite, and for actions out of range.
    """
    name = type(planner).__name__
    for what in ("actions", "mean", "std"):
        values = getattr(plan, what)
        if values.shape != own.shape:
            raise ValueError(f"{name} gave {what} of shape {tuple(values.shape)}, expected {tuple(own.shape)}")
        if not values.isfinite().all():
            raise ValueError(f"{name} gave {what} that are not finite")
    if choices and not (
        ((plan.actions == 0) | (plan.actions == 1)).all() and torch.equal(plan.actions.sum(-1), own.sum(-1))
    ):
        raise ValueError(f"{name} gave actions that are no choices: expected one-hot vectors, one for each choice")
    if plan.actions.abs().max() > 1.0 + _ROUNDING:
        raise ValueError(f"{name} gave actions up to {float(plan.actions.abs().max()):g}, expected numbers in [-1, 1]")


def _possible(model: WorldModel, warm_start: Tensor, own: Tensor) -> Tensor:
    """Zeros are an action of a Box, but no choice at all: there, the actor's own."""
    if isinstance(model.actor, BoundedActor):
        return warm_start
    return torch.where(warm_start.any(-1, keepdim=True), warm_start, own)
