"""Planners that draw sequences and keep the good ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jepa_agent.planning.base import Planner, keep_best, soft_weights, take
from jepa_agent.tensor_ops import rank_last
from jepa_agent.types import CostFn, Plan, PlanInit


@dataclass(frozen=True)
class MPPI(Planner):
    """Model predictive path integral control: refit a Gaussian over sequences to its softly weighted elites.

    Starts around the actor's sequence; every proposal competes with the samples. Source: Williams et al., 1707.02342, in
    the form of TD-MPC (2203.04955). Actions lie in [-1, 1].
    """

    horizon: int = 3
    num_samples: int = 40
    num_elites: int = 16
    num_iterations: int = 2
    temperature: float = 0.5
    init_std: float = 0.5
    min_std: float = 0.05

    def plan(self, cost_fn: CostFn, init: PlanInit) -> Plan:
        horizon, action_dim = init.sequences.shape[2:]
        mean = init.sequences[:, 0]
        std = torch.full_like(mean, self.init_std)
        init_cost = best = best_cost = None
        for _ in range(self.num_iterations):
            # One draw serves all rows, so that a row's plan does not depend on its neighbours.
            noise = init.draw(self.num_samples, horizon, action_dim).to(mean)
            drawn = (mean.unsqueeze(1) + std.unsqueeze(1) * noise).clamp(-1.0, 1.0)
            # The mean averages out what single samples owe to luck, so it competes too.
            candidates = torch.cat([init.sequences, mean.unsqueeze(1), drawn], dim=1)
            cost = rank_last(cost_fn(candidates))
            init_cost = cost[:, 0] if init_cost is None else init_cost
            elite_cost, elite = cost.topk(min(self.num_elites, cost.shape[1]), dim=1, largest=False)
            elites = take(candidates, elite)
            weight = soft_weights(elite_cost, self.temperature)[..., None, None]
            mean = (weight * elites).sum(1)
            std = (weight * (elites - mean.unsqueeze(1)).square()).sum(1).sqrt().clamp(self.min_std, self.init_std)
            best, best_cost = elites[:, :1], elite_cost[:, :1]
        assert init_cost is not None
        assert best is not None
        assert best_cost is not None
        return keep_best(init, init_cost, best, best_cost, mean, std)
