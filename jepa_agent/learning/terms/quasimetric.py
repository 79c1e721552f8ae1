"""How far it is from one latent to another, where the way back may be longer: a quasimetric that costs of goals use."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_agent.config import ModelConfig
from jepa_agent.learning.representation import Imagined, RepresentationTerm
from jepa_agent.model.blocks import mlp
from jepa_agent.model.world_model import WorldModel
from jepa_agent.tensor_ops import check_same_shape

_COMPONENTS, _INTERVALS = 16, 8
_SOFTNESS = 10.0  # steps over which the pull on far pairs fades


@dataclass(frozen=True)
class Quasimetric(RepresentationTerm):
    """The number of steps from z to a goal, as an interval quasimetric embedding (IQE, Wang & Isola, 2211.15120) fitted as
    by quasimetric RL (Wang et al., 2304.01203): latents of different windows are pushed apart, while one step may lead no
    farther than 1.

    The distance is never negative, 0 from a latent to itself, and obeys the triangle inequality by its form, so that many
    steps are bounded by the sum of single ones. It is not symmetric. `distance` serves as a cost of plans:
    ``set_cost(lambda z: term.distance(world, z, goal))``.

    Args:
        weight: Its factor in the sum.
        far: Steps from which on a pair is pushed apart no more.
        constraint: How strongly a single step is held to a distance of at most 1; the multiplier of the constraint, fixed.
        shape_encoder: Whether the gradient reaches the encoder, by way of the latent that distances begin at.

    Raises:
        ValueError: ``far`` or ``constraint`` is not above 0.
    """

    far: float = 30.0
    constraint: float = 10.0
    shape_encoder: bool = False
    name = "quasimetric"

    def __post_init__(self) -> None:
        if min(self.far, self.constraint) <= 0.0:
            raise ValueError(f"Quasimetric's far and constraint must be above 0, got {self.far!r} and {self.constraint!r}")

    def build(self, sizes: ModelConfig, observation_space: spaces.Space, action_space: spaces.Space) -> nn.Module:
        return mlp(sizes.latent_dim, sizes.head_arch, _COMPONENTS * _INTERVALS)

    def distance(self, model: WorldModel, z: Tensor, goal: Tensor) -> Tensor:
        """Steps from latents to a goal.

        Args:
            model: World model of an agent with this term.
            z: Latents ``(..., D)`` to start from.
            goal: Latents ``(..., D)`` to reach, or one for all ``(D,)``.

        Returns:
            Distances ``(...)`` of at least 0.
        """
        here, there = (self.network(model)(one).unflatten(-1, (_COMPONENTS, _INTERVALS)) for one in (z, goal))
        return interval_distance(*torch.broadcast_tensors(here, there))

    def loss(self, seen: Imagined) -> Tensor:
        z = seen.z_hat[:, 0] if self.shape_encoder else seen.z_hat[:, 0].detach()
        z_next = seen.z_target[:, 0]
        step, apart = (self.distance(seen.model, z, goal) for goal in (z_next, z_next.roll(1, dims=0)))
        return quasimetric_loss(step, apart, self.far, self.constraint).unsqueeze(1)


def interval_distance(x: Tensor, y: Tensor) -> Tensor:
    """The interval quasimetric ``mean_i | union_j [x_ij, max(x_ij, y_ij)] |`` (IQE, 2211.15120; there also a sum, or a
    weighted maximum and mean).

    Args:
        x: K components of L intervals each, where to start from, ``(..., K, L)``.
        y: Where to go, the same shape.

    Returns:
        Distances ``(...)``: the length that a component's intervals cover together, mean over components.
    """
    check_same_shape(x, y)
    begin, order = x.sort(dim=-1)
    end = torch.maximum(x, y).gather(-1, order)
    # Sorted by where they begin, an interval adds what lies beyond all that have ended before it.
    covered = torch.cat([begin[..., :1], end.cummax(dim=-1).values[..., :-1]], dim=-1)
    return (end - torch.maximum(begin, covered)).relu().sum(-1).mean(-1)


def quasimetric_loss(step: Tensor, apart: Tensor, far: float, constraint: float) -> Tensor:
    """``constraint * max(0, step - 1)^2 + s softplus((far - apart) / s)`` with s = 10, all ``(...)``.

    Args:
        step: Distance of a step that was taken.
        apart: Distance to a latent of another window.
        far: Distance from which on the second fades.
        constraint: Factor of the first.
    """
    return constraint * (step - 1.0).relu().square() + _SOFTNESS * F.softplus((far - apart) / _SOFTNESS)
