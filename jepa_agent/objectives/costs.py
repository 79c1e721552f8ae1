"""Costs of a user's own, for `JEPA.set_cost`: what is to be avoided from now on, without learning anew."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from jepa_agent.model.actor import BoundedActor
from jepa_agent.model.world_model import WorldModel
from jepa_agent.objectives.readout import Features, fit_readout

StepCosts = Callable[[Tensor, Tensor], Tensor]
"""Latents ``(..., H+1, D)`` along actions ``(..., H, A)`` in, the cost ``(..., H)`` of each step out."""


class Experience(NamedTuple):
    """What a cost may look at when it is set."""

    obs: Any  # (M, *obs_shape) observations met, as the environment gave them, or a dict of them; None if there are none
    z: Tensor  # (M, D) their latents, encoded or imagined some steps before; without any, some from all over the manifold
    encode: Callable[[Any], Tensor]  # observations as the environment gives them, (M, *obs_shape), to latents (M, D)


class Cost(ABC):
    """What a step costs; lower is better. Costs add up and take weights: ``LearnedCost() + 0.5 * FeatureCost(...)``."""

    @abstractmethod
    def of_steps(self, model: WorldModel, experience: Experience) -> StepCosts:
        """This cost as a function of imagined latents and actions.

        Args:
            model: The world model that imagines.
            experience: Observations and latents that a cost may be fitted to or tried on.

        Returns:
            Latents ``(..., H+1, D)`` along actions ``(..., H, A)`` to costs ``(..., H)``.

        Raises:
            ValueError: The cost cannot be asked of this world model.
        """

    def __add__(self, other: Cost) -> WeightedSum:
        return 1.0 * self + other

    def __rmul__(self, weight: float) -> WeightedSum:
        return WeightedSum(((_as_weight(weight), self),))

    def __mul__(self, weight: float) -> WeightedSum:
        return self.__rmul__(weight)


@dataclass(frozen=True)
class LatentCost(Cost):
    """A function of the latent that a step leads to: ``(..., D)`` to ``(...)``."""

    function: Callable[[Tensor], Tensor]

    def of_steps(self, model: WorldModel, experience: Experience) -> StepCosts:
        return lambda latents, actions: _ask(self.function, latents[..., 1:, :], "latents")


@dataclass(frozen=True)
class GoalCost(Cost):
    """Mean squared distance, in latent space, from an observation as the environment gives it."""

    obs: Any

    def of_steps(self, model: WorldModel, experience: Experience) -> StepCosts:
        named = isinstance(self.obs, Mapping)
        try:
            one = {key: np.asarray(part)[None] for key, part in self.obs.items()} if named else np.asarray(self.obs)[None]
            goal = experience.encode(one)
        except (RuntimeError, ValueError, IndexError, KeyError, AssertionError, TypeError) as error:
            raise ValueError(f"the goal must be one observation of the environment, got {self.obs!r}: {error}") from error
        return lambda latents, actions: (latents[..., 1:, :] - goal.squeeze(0)).square().mean(-1)


@dataclass(frozen=True)
class FeatureCost(Cost):
    """A function ``(..., F)`` to ``(...)`` of features of the observation that a step leads to, read from its latent.

    ``features`` are indices into the flat observation, or a function from observations ``(M, *obs_shape)``, as the
    environment gives them, to ``(M, F)``; by default the whole observation. They are read by a `Readout` fitted to latents
    of the replay buffer's observations, encoded and imagined. The world model stays as it is, and has no part in it.
    """

    function: Callable[[Tensor], Tensor]
    features: Features = None

    def of_steps(self, model: WorldModel, experience: Experience) -> StepCosts:
        readout = fit_readout(self.features, experience.obs, experience.z)
        return lambda latents, actions: _ask(self.function, readout(latents[..., 1:, :]), "features")


@dataclass(frozen=True)
class ActionCost(Cost):
    """A function of the action taken, ``(..., A)`` to ``(...)``, in the networks' coordinates: numbers in [-1, 1], or
    one-hot vectors of choices. By default effort, the sum of squares, which is for numbers only."""

    function: Callable[[Tensor], Tensor] | None = None

    def of_steps(self, model: WorldModel, experience: Experience) -> StepCosts:
        if self.function is not None:
            function = self.function
            return lambda latents, actions: _ask(function, actions, "actions")
        if not isinstance(model.actor, BoundedActor):
            raise ValueError(
                "choices take no effort, all one-hot vectors are of one length: give ActionCost a function of these, as "
                "lambda action: action[..., 1], which is 1 for the second option"
            )
        return lambda latents, actions: actions.square().sum(-1)


@dataclass(frozen=True)
class SmoothnessCost(Cost):
    """Squared change from one action to the next, summed over its coordinates; 2 for each choice that is changed.

    The first action of a plan is held against the one that was executed before, none (zeros) at an episode's start.
    """

    def of_steps(self, model: WorldModel, experience: Experience) -> StepCosts:
        return lambda latents, actions: self.changes(actions, actions[..., 0, :])

    @staticmethod
    def changes(actions: Tensor, before: Tensor) -> Tensor:
        """Squared changes ``(..., H)`` along actions ``(..., H, A)`` that follow the action ``before`` ``(..., A)``."""
        return torch.diff(actions, dim=-2, prepend=before.unsqueeze(-2)).square().sum(-1)


@dataclass(frozen=True)
class LearnedCost(Cost):
    """The cost that was learned, in the units of -reward: along a plan the immediate one, at its end the learned
    cost-to-go, which stays when other costs are added."""

    def of_steps(self, model: WorldModel, experience: Experience) -> StepCosts:
        return lambda latents, actions: model.cost(latents[..., :-1, :], actions).cost


@dataclass(frozen=True)
class WeightedSum(Cost):
    """Costs, each with its weight; what ``+`` and ``*`` make."""

    terms: tuple[tuple[float, Cost], ...]

    def of_steps(self, model: WorldModel, experience: Experience) -> StepCosts:
        bound = [(weight, cost.of_steps(model, experience)) for weight, cost in self.terms]

        def steps(latents: Tensor, actions: Tensor) -> Tensor:
            nothing = torch.zeros_like(latents[..., 1:, 0])
            return sum((weight * cost(latents, actions) for weight, cost in bound), nothing)

        return steps

    def __add__(self, other: Cost) -> WeightedSum:
        return WeightedSum(self.terms + (1.0 * as_cost(other)).terms)

    def __rmul__(self, weight: float) -> WeightedSum:
        factor = _as_weight(weight)
        return WeightedSum(tuple((factor * own, cost) for own, cost in self.terms))

    def without(self, kind: type[Cost]) -> tuple[float, WeightedSum]:
        """The summed weights of the costs of a kind, and the sum of all others."""
        weight = sum(weight for weight, cost in self.terms if isinstance(cost, kind))
        return weight, WeightedSum(tuple(term for term in self.terms if not isinstance(term[1], kind)))


def as_cost(cost: Any) -> Cost:
    """A `Cost` as it is, a function as `LatentCost`; ``ValueError`` for anything else."""
    if isinstance(cost, Cost):
        return cost
    if callable(cost):
        return LatentCost(cost)
    raise ValueError(f"a cost must be a function of latents (..., D) or a Cost of jepa_agent.costs, got {cost!r}")


def _as_weight(weight: Any) -> float:
    """A float; ``ValueError`` unless it is one finite number."""
    try:
        number = float(weight)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a cost is multiplied by a number, got {weight!r}") from error
    if not math.isfinite(number):
        raise ValueError(f"the weight of a cost must be a finite number, got {weight!r}")
    return number


def _ask(function: Callable[[Tensor], Tensor], x: Tensor, kind: str) -> Tensor:
    """What the user's function makes of latents or features ``(..., F)``: one number each, or a ``ValueError``."""
    wanted = f"it must take {kind} (..., {x.shape[-1]}) and return a tensor (...)"
    try:
        cost = function(x)
    except Exception as error:
        raise ValueError(f"the cost raised {error!r} on {kind} of shape {tuple(x.shape)}: {wanted}") from error
    if not isinstance(cost, Tensor) or cost.shape != x.shape[:-1]:
        given = f"shape {tuple(cost.shape)}" if isinstance(cost, Tensor) else f"{type(cost).__name__}"
        raise ValueError(f"the cost returned {given} for {kind} of shape {tuple(x.shape)}: {wanted}")
    return cost.to(x.dtype)
