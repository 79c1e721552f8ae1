"""What every planner promises."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from jepa_agent.types import CostFn, Plan, PlanInit


class Planner(ABC):
    """Searches action sequences that cost little. It sees nothing but ``cost_fn``, keeps nothing between calls, treats
    every row of the batch as if it were alone, and never returns a sequence that costs more than the first proposal.

    Attributes:
        horizon: Actions H that are planned.
        actor_samples: Sequences of a disturbed actor among the proposals.
        replan_every: Actions of a plan that are executed before the next search.
    """

    horizon: int
    actor_samples: int = 0
    replan_every: int = 1

    @abstractmethod
    def plan(self, cost_fn: CostFn, init: PlanInit) -> Plan:
        """Improve on the proposals; NaN costs rank last.

        Args:
            cost_fn: Sequences ``(B, N, H, A)`` to costs ``(B, N)``; lower is better.
            init: Proposals ``(B, M, H, A)``, the first being the actor's own sequence, and the random numbers to use.
        """


def within(budget_ms: float, rounds: int, began: float | None = None) -> Iterator[int]:
    """Count rounds of a search for as long as a budget of time allows.

    Args:
        budget_ms: Milliseconds; 0 is no budget. The first round is always made, and none that would end after the budget if
            it takes as long as those before did.
        rounds: Most rounds.
        began: When the search did, by `time.perf_counter`, if that was before this call.
    """
    first = time.perf_counter()
    began = first if began is None else began
    for done in range(rounds):
        now = time.perf_counter()
        if budget_ms and done and 1000.0 * (now - began + (now - first) / done) > budget_ms:
            return
        yield done


def take(sequences: Tensor, index: Tensor) -> Tensor:
    """Candidates ``(B, N, H, A)`` at ``index`` ``(B, K)``: ``(B, K, H, A)``."""
    return sequences.gather(1, index[..., None, None].expand(*index.shape, *sequences.shape[2:]))


def even_weights(cost: Tensor) -> Tensor:
    """The same weight for every candidate ``(B, K)`` of finite cost, none for the others; sums to 1."""
    finite = torch.isfinite(cost).float()
    finite = torch.where(finite.any(-1, keepdim=True), finite, 1.0)
    return finite / finite.sum(-1, keepdim=True)


def soft_weights(cost: Tensor, temperature: float) -> Tensor:
    """``softmax(-cost / temperature)`` over candidates, with costs in units of their own spread.

    Args:
        cost: Costs ``(B, K)``; infinite ones weigh nothing.
        temperature: In units of the costs' spread, so that one temperature fits every reward scale.

    Returns:
        Weights ``(B, K)`` that sum to 1.
    """
    finite = torch.isfinite(cost)
    best = torch.where(finite, cost, torch.inf).amin(-1, keepdim=True).nan_to_num(posinf=0.0)
    excess = torch.where(finite, cost - best, 0.0)
    spread = (excess.square().sum(-1, keepdim=True) / finite.sum(-1, keepdim=True).clamp(min=1)).sqrt()
    logits = torch.where(finite, -excess / (temperature * spread.clamp(min=1e-12)), -torch.inf)
    return torch.where(finite.any(-1, keepdim=True), logits, 0.0).softmax(-1)


def keep_best(init: PlanInit, init_cost: Tensor, finalists: Tensor, cost: Tensor, mean: Tensor, std: Tensor) -> Plan:
    """The plan to return: the cheapest finalist, unless the first proposal costs no more.

    Args:
        init: Proposals, the first being the actor's own sequence.
        init_cost: Its cost ``(B,)``.
        finalists: Sequences ``(B, K, H, A)``.
        cost: Their costs ``(B, K)``.
        mean: Centre of the search's distribution, ``(B, H, A)``.
        std: Its spread, ``(B, H, A)``.
    """
    best_cost, best = cost.min(-1)
    better = best_cost < init_cost  # false for NaN: the proposal stays
    found = take(finalists, best.unsqueeze(-1)).squeeze(1)
    actions = torch.where(better[:, None, None], found, init.sequences[:, 0])
    return Plan(actions, mean, std, torch.where(better, best_cost, init_cost))
