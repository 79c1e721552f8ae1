"""What a sequence of actions costs under a cost of the user's: the function that planners see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jepa_agent.model.world_model import WorldModel
from jepa_agent.objectives.constraints import Bound, Keep
from jepa_agent.objectives.costs import Cost, Experience, LearnedCost, SmoothnessCost, StepCosts
from jepa_agent.tensor_ops import discount_weights

_PROBE_STEPS = 3
_BEYOND = 10.0  # times the range of what sequences may cost: the price of leaving what is to be kept


@dataclass(frozen=True)
class Objective:
    """What sequences cost, summed and discounted, by each member of an ensemble: ``(B, D)``, ``(B, N, H, A)`` to
    ``(E, B, N)``.

    ===========  ====================================================================================
    steps        sum_t gamma^t [P(alive_t) (c_t + smoothness |a_t - a_{t-1}|^2) + (1 - P(alive_t)) end_cost]
    ahead        gamma^H P(alive_H) Q(z_H, pi(z_H)), by what `FittedCostToGo` has learned of the steps' cost
    learned      `WorldModel.sequence_costs`, costs-to-go at its depths included
    constraints  barrier (1 + v) for sequences that leave a range by v in all, 0 for the others
    ===========  ====================================================================================

    Without a learned part E is one, and without ``ahead`` nothing is known of what follows a sequence.
    """

    model: WorldModel
    steps: StepCosts
    end_cost: float
    learned: float = 0.0
    smoothness: float = 0.0
    constraints: tuple[Bound, ...] = ()
    barrier: float = 0.0
    ahead: WorldModel | None = None

    @property
    def proposer(self) -> WorldModel:
        """Whose actor proposes sequences."""
        return self.model if self.ahead is None else self.ahead

    def __call__(self, z: Tensor, actions: Tensor, before: Tensor | None = None) -> Tensor:
        latents = self.model.imagine(z.unsqueeze(1).expand(*actions.shape[:2], z.shape[-1]), actions)
        terminated = self.model.cost(latents[..., :-1, :], actions).terminated
        living = discount_weights(terminated, 1.0)
        alive = living[..., :-1]  # before each step: the one that ends an episode costs its own
        steps = self.steps(latents, actions)
        if self.smoothness:
            before = torch.zeros_like(actions[:, 0, 0]) if before is None else before
            last = before.unsqueeze(1).expand(*actions.shape[:2], -1)
            steps = steps + self.smoothness * SmoothnessCost.changes(actions, last)
        cost = torch.lerp(torch.full_like(alive, self.end_cost), steps, alive)
        discount = self.model.gamma ** torch.arange(actions.shape[-2], device=actions.device)
        total = (discount * cost).sum(-1).unsqueeze(0)
        if self.ahead is not None:
            last = latents[..., -1, :]
            future = self.ahead.cost_to_go(last.flatten(0, 1)).mean(0).view(last.shape[:2])
            total = total + self.model.gamma ** actions.shape[-2] * living[..., -1] * future
        if self.learned:
            total = total + self.learned * self.model.sequence_costs(latents, actions)
        if self.constraints:
            total = total + self._excess_cost(latents, alive)
        return total

    def _excess_cost(self, latents: Tensor, alive: Tensor) -> Tensor:
        """``(B, N)``: any sequence that leaves a range costs more than all that do not, the less the shorter it is out."""
        excess = torch.stack([(alive * bound.excess(latents)).sum(-1) for bound in self.constraints]).sum(0)
        return self.barrier * ((excess > 0).to(excess) + excess)


@torch.no_grad()
def make_objective(
    cost: Cost,
    model: WorldModel,
    experience: Experience,
    end_cost: float | None = None,
    constraints: Sequence[Keep] = (),
    horizon: int = _PROBE_STEPS,
) -> Objective:
    """Bind a cost to a world model and try it on familiar latents, those that the actor would see next among them.

    Args:
        cost: The cost.
        model: The world model that imagines.
        experience: What the agent has met. Shapes are tried on pairs of latents.
        end_cost: What each step after an episode's end costs; None is the worst cost found on familiar latents, at least 0:
            ending must not pay. The learned cost has its own way to tell of ends.
        constraints: Ranges that sequences have to keep to.
        horizon: Actions of a sequence, by which a constraint is made worth more than any cost.

    Raises:
        ValueError: The cost cannot be asked of this world model, has another shape or is not finite.
    """
    if end_cost is not None and not math.isfinite(end_cost):
        raise ValueError(f"end_cost must be a finite number, got {end_cost!r}")
    _check_constraints(constraints)
    learned, rest = (1.0 * cost).without(LearnedCost)
    smoothness, rest = rest.without(SmoothnessCost)
    steps = rest.of_steps(model, experience)
    bound = tuple(constraint.bind(experience) for constraint in constraints)
    z = experience.z[: len(experience.z) // 2 * 2].unflatten(0, (2, -1))
    actions = model.actor_sequence(z.flatten(0, 1), _PROBE_STEPS)
    latents = model.imagine(z.flatten(0, 1), actions)
    costs = steps(latents.unflatten(0, z.shape[:2]), actions.unflatten(0, z.shape[:2]))
    broken = int((~costs.isfinite()).sum())
    if broken:
        raise ValueError(
            f"the cost is not finite on {broken} of {costs.numel()} familiar latents: plans need finite numbers"
        )
    worst = max(float(costs.max()), 0.0)
    end = worst if end_cost is None else float(end_cost)
    reach = horizon * (max(worst, abs(end)) - min(float(costs.min()), 0.0) + 4.0 * smoothness)
    if learned:
        reach += abs(learned) * float(model.cost_to_go(z.flatten(0, 1)).abs().max())
    return Objective(model, steps, end, learned, smoothness, bound, _BEYOND * max(reach, 1e-3) if bound else 0.0)


def _check_constraints(constraints: Any) -> None:
    """``ValueError`` unless these are ranges to keep to."""
    if isinstance(constraints, Keep):
        raise ValueError(f"constraints must be a list of what keep(feature, low, high) makes: write [{constraints!r}]")
    wrong = [constraint for constraint in constraints if not isinstance(constraint, Keep)]
    if wrong:
        raise ValueError(f"constraints must be made by keep(feature, low, high), got {wrong[0]!r}")
