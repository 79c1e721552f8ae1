"""Shared shapes and protocols. B: batch or envs, T: time, N: candidates, H: horizon, A: action, D: latent, E: ensemble."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

ArrayLike = np.ndarray | Tensor | float | list[Any]

Observations = Tensor | dict[str, Tensor]
"""Observations ``(..., *obs_shape)``, or those of a Dict space by name."""

CostFn = Callable[[Tensor], Tensor]
"""What a planner sees: action sequences ``(B, N, H, A)`` in, costs ``(B, N)`` out; lower is better."""


class Windows(Protocol):
    """Observations ``(B, T+1, *obs_shape)`` that are read where they are indexed, as a tensor is."""

    def __getitem__(self, index: Any) -> Observations: ...


class PastSteps(NamedTuple):
    """The P steps before a window, the last being the one just before it."""

    obs: Observations  # (B, P, *obs_shape), by name for a Dict space
    action: Tensor  # (B, P, A)
    mask: Tensor  # (B, P) 0 where a step belongs to an earlier episode or is no longer stored


class Past(NamedTuple):
    """What working memory holds for the memory network: its notes of the last K steps, the newest first."""

    notes: Tensor  # (..., K, D + A + 1) latent of the observation alone, action, cost as the cost module sees it
    mask: Tensor  # (..., K) 0 before the episode's first step


class SequenceBatch(NamedTuple):
    """Windows of experience; ``mask`` is 0 for every step after an episode's end or past the newest transition."""

    # (B, T+1, *obs_shape); obs[:, t+1] is the true successor of obs[:, t], also at an episode's end
    obs: Windows
    action: Tensor  # (B, T, A) in [-1, 1] (Box) or one-hot (Discrete)
    cost: Tensor  # (B, T) = -reward
    terminated: Tensor  # (B, T) 1 where the task ended the episode; a time limit does not count
    mask: Tensor  # (B, T)
    plan_mean: Tensor  # (B, A) what Mode-2 found at the first step
    planned: Tensor  # (B,) bool: whether a search of that step was what acted
    past: PastSteps | None = None  # what came before, if asked for


class StepCost(NamedTuple):
    """What one imagined step costs."""

    cost: Tensor  # (...) expected immediate cost, in the units of -reward
    terminated: Tensor  # (...) probability in [0, 1] that the episode ends with this step


class PlanInit(NamedTuple):
    """Where a planner starts."""

    sequences: Tensor  # (B, M, H, A) proposals; the first is the actor's own sequence
    generator: torch.Generator  # the only source of randomness a planner may use
    began: float | None = None  # by `time.perf_counter`, when the decision did that a budget of time is for

    def draw(self, *shape: int) -> Tensor:
        """Standard normal numbers, on the generator's device: equal draws whatever the model runs on."""
        return torch.randn(shape, generator=self.generator, device=self.generator.device)


class Plan(NamedTuple):
    """What a planner found; the first action is the one to execute."""

    actions: Tensor  # (B, H, A) the chosen sequence
    mean: Tensor  # (B, H, A) centre of the search distribution; probabilities for Discrete actions
    std: Tensor  # (B, H, A) its spread
    cost: Tensor  # (B,) cost of ``actions``


class Decision(NamedTuple):
    """What was decided at one step and why; readable by callbacks, never read by the policy itself."""

    action: Tensor  # (B, A) executed action in the policy's own coordinates
    planned: Tensor  # (B,) bool: Mode-2 acted, by a plan of this step or of one before
    searched: Tensor  # (B,) bool: a plan was made, executed or not
    gain: Tensor  # (B,) predicted gain of the plan over the actor's own sequence, units of cost; 0 where not searched
    disagreement: Tensor  # (B,) spread of that gain over the ensemble
    surprise: Tensor  # (B,) distance between predicted and observed latent; 0 at episode starts
    plan_mean: Tensor  # (B, A) what the actor may imitate of the plan; 0 where this step's search was not what acted
    plan_spread: Tensor  # (B,) standard deviation of the search's first action; 0 where not searched
    milliseconds: Tensor  # (B,) time the search took, shared evenly among the rows searched together
    situation: Any  # `mode_switch.Situation`: what the mode switch could ask

    @property
    def worth(self) -> Tensor:
        """What the search promised ``(B,)``: the gain predicted for its plan, executed or not; 0 where there was none."""
        return torch.where(self.searched & self.gain.isfinite(), self.gain.clamp(min=0.0), 0.0)
