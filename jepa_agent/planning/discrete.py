"""Planning over discrete actions."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jepa_agent.planning.base import Planner, keep_best, soft_weights
from jepa_agent.tensor_ops import one_hot, rank_last
from jepa_agent.types import CostFn, Plan, PlanInit


@dataclass(frozen=True)
class ExhaustivePlanner(Planner):
    """Scores every sequence of one-hot actions; exact on the model it is given. ``num_actions ** horizon`` sequences."""

    num_actions: int
    horizon: int = 3
    temperature: float = 0.5

    def plan(self, cost_fn: CostFn, init: PlanInit) -> Plan:
        batch, device = init.sequences.shape[0], init.sequences.device
        digits = torch.arange(self.num_actions**self.horizon, device=device).unsqueeze(-1)
        place = self.num_actions ** torch.arange(self.horizon, device=device)
        every = one_hot(digits // place % self.num_actions, self.num_actions)  # (N, H, A)
        own = init.sequences[:, :1].to(every.dtype)
        candidates = torch.cat([own, every.unsqueeze(0).expand(batch, *every.shape)], dim=1)
        cost = rank_last(cost_fn(candidates))
        probability = torch.einsum("bn,nha->bha", soft_weights(cost[:, 1:], self.temperature), every)
        spread = (probability * (1.0 - probability)).sqrt()
        return keep_best(init, cost[:, 0], candidates[:, 1:], cost[:, 1:], probability, spread)


def affordable_horizon(num_actions: int, horizon: int, max_sequences: int) -> int:
    """The longest horizon up to ``horizon`` whose sequences number at most ``max_sequences``; at least 1."""
    while horizon > 1 and num_actions**horizon > max_sequences:
        horizon -= 1
    return horizon
