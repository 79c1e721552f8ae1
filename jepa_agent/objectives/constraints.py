"""Ranges that a trained agent is to keep to, whatever else it plans for."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_agent.model.world_model import WorldModel
from jepa_agent.objectives.costs import Cost, Experience, StepCosts
from jepa_agent.objectives.readout import Features, Readout, features_of, fit_readout


@dataclass(frozen=True)
class Bound:
    """A range with the readout that tells from latents how far they are out of it."""

    readout: Readout
    low: float
    high: float
    unit: Tensor

    def excess(self, latents: Tensor) -> Tensor:
        """How far each step of ``(..., H+1, D)`` leads out of the range, in deviations of the features: ``(..., H)``."""
        return _excess(self.readout(latents[..., 1:, :]), self.low, self.high, self.unit)


@dataclass(frozen=True)
class Keep(Cost):
    """A range that features of the observation have to stay in; what `keep` makes.

    Among ``constraints`` of `JEPA.set_cost` it is hard: sequences that are imagined to leave it are rejected, and where all
    are, the one that is out the least is taken. In a sum it has a price: ``cost + 10.0 * keep(...)`` pays for the distance
    from the range at each step, in deviations of the feature over what was met.
    """

    features: Features
    low: float
    high: float

    def __post_init__(self) -> None:
        if not all(isinstance(limit, Real) for limit in (self.low, self.high)):
            raise ValueError(
                f"keep needs numbers as low and high, got {self.low!r} and {self.high!r}: one keep for each range"
            )
        if not self.low < self.high:
            raise ValueError(f"keep needs low below high, got {self.low!r} and {self.high!r}")

    def bind(self, experience: Experience) -> Bound:
        """This range as a function of latents; ``ValueError`` without a replay buffer or such features."""
        readout = fit_readout(self.features, experience.obs, experience.z)
        met = features_of(self.features, experience.obs, len(experience.z))
        if ((met < self.low) | (met > self.high)).any(-1).all():
            warnings.warn(
                f"no observation met lies within {self.low:g} and {self.high:g}: features met are {met.min():.3g} to "
                f"{met.max():.3g}, and plans cannot lead where nothing was seen",
                stacklevel=7,
            )
        return Bound(readout, self.low, self.high, torch.as_tensor(met.std(0), device=experience.z.device).clamp(min=1e-6))

    def of_steps(self, model: WorldModel, experience: Experience) -> StepCosts:
        bound = self.bind(experience)
        return lambda latents, actions: bound.excess(latents)

    def violated(self, obs: Any) -> np.ndarray:
        """Where observations met are out of the range.

        Args:
            obs: ``(M, *obs_shape)`` as the environment gives them, or a dict of them.

        Returns:
            Bool ``(M,)``.
        """
        count = len(next(iter(obs.values()))) if isinstance(obs, dict) else len(obs)
        found = features_of(self.features, obs, count)
        return np.asarray(((found < self.low) | (found > self.high)).any(-1))

    def violation_rate(self, obs: Any) -> float:
        """Share of observations of real steps, ``(M, *obs_shape)``, that are out of the range: counted, not predicted."""
        return float(self.violated(obs).mean())


def keep(feature: int | Sequence[int] | Callable[[Any], Any], low: float = -math.inf, high: float = math.inf) -> Keep:
    """A range that a feature has to stay in, for `JEPA.set_cost`: hard in ``constraints``, priced in a sum of costs.

    Args:
        feature: Index into the flat observation, several of them, or a function of observations ``(M, *obs_shape)``, as the
            environment gives them, to ``(M, F)``.
        low: Its lowest value, in its own unit.
        high: Its highest.

    Raises:
        ValueError: ``low`` is not below ``high``, or these are no numbers or the feature no index.
    """
    if callable(feature):
        return Keep(feature, low, high)
    indices = feature if isinstance(feature, Sequence | np.ndarray) else [feature]
    try:
        return Keep([index(one) for one in indices], low, high)
    except TypeError as error:
        raise ValueError(f"keep needs an index into the observation, several, or a function, got {feature!r}") from error


def _excess(features: Tensor, low: float, high: float, unit: Tensor) -> Tensor:
    """Distance of features ``(..., F)`` from a range, summed over them in units ``(F,)``: ``(...)``."""
    return ((torch.relu(low - features) + torch.relu(features - high)) / unit).sum(-1)
