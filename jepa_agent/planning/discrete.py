"""Planning over choices: actions are one-hot vectors, or several of them side by side (MultiDiscrete)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_agent.planning.base import Planner, even_weights, keep_best, soft_weights, take, within
from jepa_agent.planning.sampling import RandomShooting
from jepa_agent.tensor_ops import one_hot, rank_last
from jepa_agent.types import CostFn, Plan, PlanInit

_ROUND = 64  # sequences scored between two looks at the clock


@dataclass(frozen=True)
class ExhaustivePlanner(Planner):
    """Scores every sequence of actions; exact on the model it is given. ``num_choices`` of several choices
    side by side count as all their combinations. A budget of time ends the count early; what comes last are sequences
    that differ in their last actions."""

    num_choices: tuple[int, ...]
    horizon: int = 3
    temperature: float = 0.5
    replan_every: int = 1
    budget_ms: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_choices", tuple(self.num_choices))  # a list where it comes from a file

    def plan(self, cost_fn: CostFn, init: PlanInit) -> Plan:
        batch, device = init.sequences.shape[0], init.sequences.device
        actions = all_actions(self.num_choices).to(device)
        # Sequence n reads as a number of H digits in base len(actions), the least significant first.
        digits = torch.arange(len(actions) ** self.horizon, device=device).unsqueeze(-1)
        place = len(actions) ** torch.arange(self.horizon, device=device)
        every = actions[digits // place % len(actions)]  # (N, H, A)
        own = init.sequences[:, :1].to(every.dtype)
        rounds = every.split(_ROUND if self.budget_ms else len(every))
        costs: list[Tensor] = []
        for done in within(self.budget_ms, len(rounds), init.began):
            candidates = rounds[done].unsqueeze(0).expand(batch, *rounds[done].shape)
            costs.append(rank_last(cost_fn(candidates if costs else torch.cat([own, candidates], dim=1))))
        init_cost, cost = torch.cat(costs, dim=1).tensor_split([1], dim=1)
        scored = every[: cost.shape[1]]
        probability = torch.einsum("bn,nha->bha", soft_weights(cost, self.temperature), scored)
        spread = (probability * (1.0 - probability)).sqrt()
        return keep_best(init, init_cost[:, 0], scored.expand(batch, *scored.shape), cost, probability, spread)


@dataclass(frozen=True)
class CategoricalCEM(Planner):
    """The cross-entropy method over choices: a probability for each at each step, refitted to the elites; several choices
    a step are drawn independently of one another.

    It starts between the actor's own sequence and anything at all: ``init_std`` is the chance of anything.
    """

    num_choices: tuple[int, ...]
    horizon: int = 3
    num_samples: int = 40
    num_elites: int = 16
    num_iterations: int = 3
    init_std: float = 0.5
    min_std: float = 0.05
    actor_samples: int = 0
    replan_every: int = 1
    budget_ms: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_choices", tuple(self.num_choices))
        if self.init_std > 1.0:
            raise ValueError(f"init_std is the chance of any choice at all, at most 1, got {self.init_std:g}")

    def plan(self, cost_fn: CostFn, init: PlanInit) -> Plan:
        anything = even_chances(self.num_choices).to(init.sequences)
        probability = torch.lerp(init.sequences[:, 0], anything, self.init_std)
        init_cost = best = best_cost = None
        for _ in within(self.budget_ms, self.num_iterations, init.began):
            candidates = torch.cat(
                [init.sequences, draw_choices(probability, self.num_choices, self.num_samples, init)], dim=1
            )
            if best is not None:
                candidates = torch.cat([candidates, best], dim=1)
            cost = rank_last(cost_fn(candidates))
            init_cost = cost[:, 0] if init_cost is None else init_cost
            elite_cost, elite = cost.topk(min(self.num_elites, cost.shape[1]), dim=1, largest=False)
            elites = take(candidates, elite)
            best, best_cost = elites[:, :1], elite_cost[:, :1]
            # Mixed with even chances: a probability of 0 could never be drawn again.
            mean = (even_weights(elite_cost)[..., None, None] * elites).sum(1)
            probability = torch.lerp(mean, anything, self.min_std)
        assert init_cost is not None
        assert best is not None
        assert best_cost is not None
        return keep_best(init, init_cost, best, best_cost, probability, (probability * (1.0 - probability)).sqrt())


@dataclass(frozen=True)
class RandomChoices(RandomShooting):
    """`RandomShooting` where actions are choices."""

    num_choices: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_choices", tuple(self.num_choices))

    def drawn(self, init: PlanInit) -> Tensor:
        anything = even_chances(self.num_choices).to(init.sequences).expand(1, *init.sequences.shape[2:])
        return draw_choices(anything, self.num_choices, self.num_samples, init).squeeze(0)


def even_chances(num_choices: tuple[int, ...]) -> Tensor:
    """Probabilities ``(A,)`` by which all choices are equally likely."""
    return torch.cat([torch.full((n,), 1.0 / n) for n in num_choices])


def draw_choices(probability: Tensor, num_choices: tuple[int, ...], num_samples: int, init: PlanInit) -> Tensor:
    """Sequences of choices drawn from given probabilities, by the Gumbel-max trick.

    Args:
        probability: ``(B, H, A)``, the blocks of several choices side by side.
        num_choices: Options of each choice.
        num_samples: Number N of sequences.
        init: Gives the random numbers; one draw serves all rows.

    Returns:
        One-hot sequences ``(B, N, H, A)``.
    """
    blocks = []
    for block in probability.split(num_choices, dim=-1):
        # The Gumbel-max trick; its draws are made of normal ones, which come from the planner's own generator.
        uniform = torch.special.ndtr(init.draw(num_samples, *block.shape[1:])).clamp(1e-6, 1.0 - 1e-6)
        score = block.unsqueeze(1).log() - (-uniform.log()).log().to(block)
        blocks.append(one_hot(score.argmax(-1), block.shape[-1]))
    return torch.cat(blocks, dim=-1)


def all_actions(num_choices: tuple[int, ...]) -> Tensor:
    """Every combination of choices as vectors ``(N, A)``."""
    blocks = [torch.eye(n) for n in num_choices]
    index = torch.cartesian_prod(*(torch.arange(n) for n in num_choices)).reshape(-1, len(num_choices))
    return torch.cat([block[index[:, i]] for i, block in enumerate(blocks)], dim=-1)


def affordable_horizon(num_choices: tuple[int, ...], horizon: int, max_sequences: int) -> int:
    """The longest horizon up to ``horizon`` whose sequences number at most ``max_sequences``; at least 1."""
    while horizon > 1 and math.prod(num_choices) ** horizon > max_sequences:
        horizon -= 1
    return horizon
