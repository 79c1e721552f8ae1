"""Costs of a user's own, for `JEPA.set_cost`: what is to be avoided from now on, without learning anew."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from jepa_agent.model.world_model import WorldModel
from jepa_agent.objectives.readout import Readout
from jepa_agent.tensor_ops import discount_weights

StepCosts = Callable[[Tensor, Tensor], Tensor]
"""Latents ``(..., H+1, D)`` along actions ``(..., H, A)`` in, the cost ``(..., H)`` of each step out."""

_POORLY_READ = 0.25
_PROBE_STEPS = 3


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
        return WeightedSum(((float(weight), self),))

    def __mul__(self, weight: float) -> WeightedSum:
        return weight * self


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
    features: Sequence[int] | Callable[[Any], Any] | None = None

    def of_steps(self, model: WorldModel, experience: Experience) -> StepCosts:
        if experience.obs is None:
            raise ValueError(
                "features are read from latents by what the replay buffer tells, which is empty: load one first"
            )
        readout = Readout(experience.z, self._features_of(experience.obs, len(experience.z)).to(experience.z))
        poor = (readout.error > _POORLY_READ).nonzero().flatten().tolist()
        if poor:
            missed = ", ".join(f"{float(readout.error[i]):.0%} of feature {i}" for i in poor)
            warnings.warn(
                f"latents, encoded and imagined, tell little about some features: missed is {missed}, of their variance",
                stacklevel=5,
            )
        return lambda latents, actions: _ask(self.function, readout(latents[..., 1:, :]), "features")

    def _features_of(self, obs: Any, count: int) -> Tensor:
        """``(M, F)`` features of M = ``count`` observations."""
        if callable(self.features):
            try:
                features = torch.as_tensor(np.asarray(self.features(obs)), dtype=torch.float32)
            except Exception as error:
                raise ValueError(f"the features raised {error!r} on {count} observations at once") from error
            if features.dim() not in (1, 2) or len(features) != count or not features.isfinite().all():
                raise ValueError(
                    f"the features of {count} observations must be ({count}, F) finite numbers, "
                    f"got shape {tuple(features.shape)}"
                )
            return features.reshape(count, -1)
        if isinstance(obs, Mapping):
            raise ValueError(f"observations have the parts {', '.join(obs)}: give features as a function of these")
        flat = torch.as_tensor(obs, dtype=torch.float32).reshape(count, -1)
        if self.features is None:
            return flat
        beyond = [index for index in self.features if not 0 <= index < flat.shape[1]]
        if beyond:
            raise ValueError(f"features {beyond} are no indices into an observation of {flat.shape[1]} numbers")
        return flat[:, list(self.features)]


@dataclass(frozen=True)
class LearnedCost(Cost):
    """The immediate cost that was learned, in the units of -reward."""

    def of_steps(self, model: WorldModel, experience: Experience) -> StepCosts:
        return lambda latents, actions: model.cost(latents[..., :-1, :], actions).cost


@dataclass(frozen=True)
class WeightedSum(Cost):
    """Costs, each with its weight; what ``+`` and ``*`` make."""

    terms: tuple[tuple[float, Cost], ...]

    def of_steps(self, model: WorldModel, experience: Experience) -> StepCosts:
        bound = [(weight, cost.of_steps(model, experience)) for weight, cost in self.terms]

        def steps(latents: Tensor, actions: Tensor) -> Tensor:
            return torch.stack([weight * cost(latents, actions) for weight, cost in bound]).sum(0)

        return steps

    def __add__(self, other: Cost) -> WeightedSum:
        return WeightedSum(self.terms + (1.0 * other).terms)

    def __rmul__(self, weight: float) -> WeightedSum:
        return WeightedSum(tuple((float(weight) * own, cost) for own, cost in self.terms))


@dataclass(frozen=True)
class Objective:
    """What sequences cost under a cost of the user's, summed and discounted, as an ensemble of one: ``(B, D)``,
    ``(B, N, H, A)`` to ``(1, B, N)``.

    Nothing is known of what follows. Each step that an episode has ended before costs ``end_cost``.
    """

    model: WorldModel
    steps: StepCosts
    end_cost: float

    def __call__(self, z: Tensor, actions: Tensor) -> Tensor:
        # sum_t gamma^t [P(alive_t) c_t + (1 - P(alive_t)) end_cost]
        latents = self.model.imagine(z.unsqueeze(1).expand(*actions.shape[:2], z.shape[-1]), actions)
        terminated = self.model.cost(latents[..., :-1, :], actions).terminated
        alive = discount_weights(terminated, 1.0)[..., :-1]  # before each step: the one that ends an episode costs its own
        cost = torch.lerp(torch.full_like(alive, self.end_cost), self.steps(latents, actions), alive)
        discount = self.model.gamma ** torch.arange(actions.shape[-2], device=actions.device)
        return (discount * cost).sum(-1).unsqueeze(0)


@torch.no_grad()
def make_objective(cost: Cost, model: WorldModel, experience: Experience, end_cost: float | None = None) -> Objective:
    """Bind a cost to a world model and try it on familiar latents, those that the actor would see next among them.

    Args:
        cost: What to minimise.
        model: The world model that imagines.
        experience: What the replay buffer holds.
        end_cost: Cost of each step that an episode has ended before; None is the worst cost met on the familiar latents, but
            at least 0, so that ending never pays.

    Raises:
        ValueError: The cost raises, answers in another shape than one number per latent, or is not finite.
    """
    if end_cost is not None and not math.isfinite(end_cost):
        raise ValueError(f"end_cost must be a finite number, got {end_cost!r}")
    steps = cost.of_steps(model, experience)
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
    return Objective(model, steps, worst if end_cost is None else float(end_cost))


def as_cost(cost: Any) -> Cost:
    """A `Cost` as it is, a function as `LatentCost`; ``ValueError`` for anything else."""
    if isinstance(cost, Cost):
        return cost
    if callable(cost):
        return LatentCost(cost)
    raise ValueError(f"a cost must be a function of latents (..., D) or a Cost of jepa_agent.objectives.costs, got {cost!r}")


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
