"""Inference-time optimisation: gradient descent on the actions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from jepa_agent.planning.base import Planner, keep_best, take, within
from jepa_agent.tensor_ops import rank_last
from jepa_agent.types import CostFn, Plan, PlanInit

_MOST_GROWTH = 10.0


@dataclass(frozen=True)
class GradientPlanner(Planner):
    """Descent on action sequences, projected to [-1, 1], from several starts, the proposals among them; keeps the best
    sequence met on the way. No parameter's gradient is touched, and it works where gradients are switched off.

    ``descent``: with ``adam`` each action has a step of its own; ``plain`` follows the gradient's direction, ``step_size``
    far at most.
    """

    horizon: int = 3
    num_starts: int = 4
    num_iterations: int = 6
    step_size: float = 0.1
    init_std: float = 0.5
    descent: Literal["adam", "plain"] = "adam"
    actor_samples: int = 0
    replan_every: int = 1
    budget_ms: float = 0.0

    def plan(self, cost_fn: CostFn, init: PlanInit) -> Plan:
        began = time.perf_counter() if init.began is None else init.began
        starts, init_cost = self.starts(cost_fn, init)
        best, best_cost, first_cost = self.descend(cost_fn, starts, began)
        mean = take(best, best_cost.argmin(-1, keepdim=True)).squeeze(1)
        init_cost = first_cost[:, 0] if init_cost is None else init_cost
        return keep_best(init, init_cost, best, best_cost, mean, (mean - init.sequences[:, 0]).abs())

    def starts(self, cost_fn: CostFn, init: PlanInit) -> tuple[Tensor, Tensor | None]:
        """Sequences ``(B, K, H, A)`` to descend from, and the first proposal's cost ``(B,)`` where it is not among them."""
        proposals = init.sequences
        noise = init.draw(max(self.num_starts - proposals.shape[1], 0), *proposals.shape[2:]).to(proposals)
        return torch.cat([proposals, (proposals[:, :1] + self.init_std * noise).clamp(-1.0, 1.0)], dim=1), None

    def descend(self, cost_fn: CostFn, starts: Tensor, began: float) -> tuple[Tensor, Tensor, Tensor]:
        """The best sequence met from each start ``(B, K, H, A)``, its cost ``(B, K)``, and that of the start itself; the
        search ``began`` then, by `time.perf_counter`."""
        best, best_cost, first_cost = starts, torch.full(starts.shape[:2], torch.inf, device=starts.device), None
        with torch.inference_mode(False), torch.enable_grad():
            actions = starts.detach().clone().requires_grad_(True)
            adam = torch.optim.Adam([actions], lr=self.step_size)
            longest = None
            for iteration in within(self.budget_ms, self.num_iterations + 1, began):
                raw = cost_fn(actions)
                cost = rank_last(raw.detach())
                first_cost = cost if first_cost is None else first_cost
                better = cost < best_cost
                best = torch.where(better[..., None, None], actions.detach(), best)
                best_cost = torch.where(better, cost, best_cost)
                if iteration == self.num_iterations:
                    break
                (gradient,) = torch.autograd.grad(raw.sum(), actions)
                # A NaN start stays where it is. A cliff met on the way is no reason to leap: gradients are clipped at some
                # multiple of the first, whatever the scale of costs.
                gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
                length = gradient.flatten(-2).norm(dim=-1)[..., None, None].clamp(min=1e-30)
                longest = _MOST_GROWTH * length if longest is None else longest
                gradient = gradient * (longest / length).clamp(max=1.0)
                if self.descent == "adam":
                    actions.grad = gradient
                    adam.step()
                with torch.no_grad():
                    if self.descent == "plain":
                        actions -= self.step_size * gradient / length
                    actions.clamp_(-1.0, 1.0)
        assert first_cost is not None
        return best, best_cost, first_cost


@dataclass(frozen=True)
class HybridPlanner(GradientPlanner):
    """Draws sequences around the actor's, and descends from the best of them and of the proposals.

    Few candidates and gradients on the best: the idea of Dream-MPC (2605.04568).
    """

    num_samples: int = 40
    num_starts: int = 4
    num_iterations: int = 3

    def starts(self, cost_fn: CostFn, init: PlanInit) -> tuple[Tensor, Tensor | None]:
        proposals = init.sequences
        noise = init.draw(self.num_samples, *proposals.shape[2:]).to(proposals)
        candidates = torch.cat([proposals, (proposals[:, :1] + self.init_std * noise).clamp(-1.0, 1.0)], dim=1)
        with torch.no_grad():
            cost = rank_last(cost_fn(candidates))
        return take(candidates, cost.topk(min(self.num_starts, cost.shape[1]), dim=1, largest=False).indices), cost[:, 0]
