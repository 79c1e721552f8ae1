"""Planners that draw sequences of numbers and keep the good ones. Actions lie in [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_agent.planning.base import Planner, even_weights, keep_best, soft_weights, take, within
from jepa_agent.tensor_ops import rank_last
from jepa_agent.types import CostFn, Plan, PlanInit


@dataclass(frozen=True)
class GaussianSearch(Planner):
    """Refits a Gaussian over sequences to its elites, starting around the actor's own (Rubinstein, 1999).

    Every proposal competes with the samples. A subclass says how elites weigh, how the noise looks and what is carried from
    one iteration to the next.
    """

    horizon: int = 3
    num_samples: int = 40
    num_elites: int = 16
    num_iterations: int = 2
    init_std: float = 0.5
    min_std: float = 0.05
    actor_samples: int = 0
    replan_every: int = 1
    budget_ms: float = 0.0

    def weights(self, elite_cost: Tensor) -> Tensor:
        """How much each elite ``(B, K)`` counts; sums to 1."""
        return even_weights(elite_cost)

    def noise(self, init: PlanInit, iteration: int) -> Tensor:
        """Standard normal numbers ``(N, H, A)``; one draw serves all rows, so that a row's plan does not depend on its
        neighbours."""
        return init.draw(self.num_samples, *init.sequences.shape[2:])

    def carried(self, init: PlanInit, elites: Tensor | None) -> Tensor:
        """Candidates ``(B, K, H, A)`` that compete beside the drawn ones; ``elites`` are those of the iteration before."""
        return init.sequences

    def plan(self, cost_fn: CostFn, init: PlanInit) -> Plan:
        mean = init.sequences[:, 0]
        std = torch.full_like(mean, self.init_std)
        init_cost = best = best_cost = elites = None
        for iteration in within(self.budget_ms, self.num_iterations, init.began):
            noise = self.noise(init, iteration).to(mean)
            drawn = (mean.unsqueeze(1) + std.unsqueeze(1) * noise).clamp(-1.0, 1.0)
            # The mean averages out what single samples owe to luck, so it competes too.
            candidates = torch.cat([self.carried(init, elites), mean.unsqueeze(1), drawn], dim=1)
            cost = rank_last(cost_fn(candidates))
            init_cost = cost[:, 0] if init_cost is None else init_cost
            # Refit mean and spread to the elites; the spread neither vanishes nor grows beyond the first draw's.
            elite_cost, elite = cost.topk(min(self.num_elites, cost.shape[1]), dim=1, largest=False)
            elites = take(candidates, elite)
            weight = self.weights(elite_cost)[..., None, None]
            mean = (weight * elites).sum(1)
            std = (weight * (elites - mean.unsqueeze(1)).square()).sum(1).sqrt().clamp(self.min_std, self.init_std)
            # The best sequence of all iterations is returned, not that of the last.
            if best is None or best_cost is None:
                best, best_cost = elites[:, :1], elite_cost[:, :1]
            else:
                better = elite_cost[:, :1] < best_cost
                best = torch.where(better[..., None, None], elites[:, :1], best)
                best_cost = torch.where(better, elite_cost[:, :1], best_cost)
        assert init_cost is not None
        assert best is not None
        assert best_cost is not None
        return keep_best(init, init_cost, best, best_cost, mean, std)


@dataclass(frozen=True)
class MPPI(GaussianSearch):
    """Model predictive path integral control: elites weigh by their cost, softly.

    Source: Williams et al., 1707.02342, in the form of TD-MPC (2203.04955).
    """

    temperature: float = 0.5

    def weights(self, elite_cost: Tensor) -> Tensor:
        return soft_weights(elite_cost, self.temperature)


@dataclass(frozen=True)
class CEM(GaussianSearch):
    """The cross-entropy method: the elites count alike. Source: Rubinstein, 1999; de Boer et al., 2005."""

    num_iterations: int = 3


@dataclass(frozen=True)
class ICEM(CEM):
    """CEM whose noise is coloured over time and which lets its elites compete again. Source: Pinneri et al., 2008.06389.

    ``noise_beta`` is the exponent of the noise's spectrum: 0 is white; 2 and more holds an action for long.
    """

    noise_beta: float = 1.0
    kept_elites: float = 0.3
    decay: float = 1.25

    def noise(self, init: PlanInit, iteration: int) -> Tensor:
        n = max(round(self.num_samples * self.decay**-iteration), 2 * self.num_elites)
        return coloured(init, n, self.noise_beta)

    def carried(self, init: PlanInit, elites: Tensor | None) -> Tensor:
        if elites is None:
            return init.sequences
        return torch.cat([init.sequences, elites[:, : max(int(self.kept_elites * self.num_elites), 1)]], dim=1)


@dataclass(frozen=True)
class RandomShooting(Planner):
    """The best of ``num_samples`` sequences drawn uniformly, ``num_iterations`` times over: the yardstick that any search
    has to beat."""

    horizon: int = 3
    num_samples: int = 40
    num_iterations: int = 1
    actor_samples: int = 0
    replan_every: int = 1
    budget_ms: float = 0.0

    def drawn(self, init: PlanInit) -> Tensor:
        """Sequences ``(N, H, A)``, the same for all rows."""
        return torch.special.ndtr(init.draw(self.num_samples, *init.sequences.shape[2:])).to(init.sequences) * 2.0 - 1.0

    def plan(self, cost_fn: CostFn, init: PlanInit) -> Plan:
        best, init_cost = init.sequences, None
        for _ in within(self.budget_ms, self.num_iterations, init.began):
            drawn = self.drawn(init)
            candidates = torch.cat([best, drawn.expand(len(best), *drawn.shape)], dim=1)
            cost = rank_last(cost_fn(candidates))
            init_cost = cost[:, 0] if init_cost is None else init_cost
            best_cost, index = cost.min(1, keepdim=True)
            best = take(candidates, index)
        assert init_cost is not None
        return keep_best(init, init_cost, best, best_cost, best[:, 0], torch.zeros_like(best[:, 0]))


def coloured(init: PlanInit, n: int, beta: float) -> Tensor:
    """Gaussian noise ``(n, H, A)`` of unit variance whose power falls with frequency as ``f^-beta`` (Timmer & Koenig,
    1995)."""
    horizon, action_dim = init.sequences.shape[2:]
    if horizon == 1 or beta == 0.0:
        return init.draw(n, horizon, action_dim)
    # Drawn over twice the horizon and cut, or the last step would follow the first.
    length = 2 * horizon
    frequency = torch.fft.rfftfreq(length, device=init.generator.device)
    frequency[0] = 1.0 / length
    amplitude = frequency.pow(-beta / 2.0)[:, None]
    spectrum = torch.complex(init.draw(n, len(frequency), action_dim), init.draw(n, len(frequency), action_dim)) * amplitude
    ends = torch.tensor([0, len(frequency) - 1], device=spectrum.device)
    spectrum[:, ends] = torch.complex(spectrum[:, ends].real * 2.0**0.5, torch.zeros_like(spectrum[:, ends].real))
    power = 2.0 * amplitude.square()
    variance = (2.0 * power[1:-1].sum() + power[0] + power[-1]) / length**2
    return torch.fft.irfft(spectrum, n=length, dim=1)[:, :horizon] / variance.sqrt()
