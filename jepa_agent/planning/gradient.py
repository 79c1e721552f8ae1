"""Inference-time optimisation: gradient descent on the actions."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jepa_agent.planning.base import Planner, keep_best, take
from jepa_agent.tensor_ops import rank_last
from jepa_agent.types import CostFn, Plan, PlanInit


@dataclass(frozen=True)
class GradientPlanner(Planner):
    """Adam on action sequences, projected to [-1, 1], from several starts, the proposals among them; keeps the best
    sequence met on the way. No parameter's gradient is touched, and it works where gradients are switched off."""

    horizon: int = 3
    num_starts: int = 4
    num_iterations: int = 6
    step_size: float = 0.1
    init_std: float = 0.5

    def plan(self, cost_fn: CostFn, init: PlanInit) -> Plan:
        proposals = init.sequences
        fresh = max(self.num_starts - proposals.shape[1], 0)
        noise = init.draw(fresh, *proposals.shape[2:]).to(proposals)
        starts = torch.cat([proposals, (proposals[:, :1] + self.init_std * noise).clamp(-1.0, 1.0)], dim=1)
        with torch.inference_mode(False), torch.enable_grad():
            actions = starts.detach().clone().requires_grad_(True)
            optimizer = torch.optim.Adam([actions], lr=self.step_size)
            best, best_cost, init_cost = starts, torch.full(starts.shape[:2], torch.inf, device=starts.device), None
            for iteration in range(self.num_iterations + 1):
                raw = cost_fn(actions)
                cost = rank_last(raw.detach())
                init_cost = cost[:, 0] if init_cost is None else init_cost
                better = cost < best_cost
                best = torch.where(better[..., None, None], actions.detach(), best)
                best_cost = torch.where(better, cost, best_cost)
                if iteration == self.num_iterations:
                    break
                (gradient,) = torch.autograd.grad(raw.sum(), actions)
                # Adam divides by the gradient's own size, so the reward scale drops out; a NaN start stays where it is.
                actions.grad = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
                optimizer.step()
                with torch.no_grad():
                    actions.clamp_(-1.0, 1.0)
        assert init_cost is not None
        mean = take(best, best_cost.argmin(-1, keepdim=True)).squeeze(1)
        return keep_best(init, init_cost, best, best_cost, mean, (mean - proposals[:, 0]).abs())
