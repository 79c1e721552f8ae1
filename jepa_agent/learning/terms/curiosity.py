"""What is not known yet, as a cost that asks to be looked at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import Tensor, nn

from jepa_agent.config import ModelConfig
from jepa_agent.learning.representation import Imagined, IntrinsicCost
from jepa_agent.model.blocks import EnsembleMLP
from jepa_agent.model.world_model import WorldModel
from jepa_agent.spaces import action_code

_STILL = 1e-6  # mean square of displacements that counts as none


@dataclass(frozen=True)
class Disagreement(IntrinsicCost):
    """Several predictors of the next latent, and the wish to see what they disagree about (Pathak et al., 1906.04161;
    Sekar et al., 2005.05960).

    Where they have been taught they agree, also about noise, whose mean all of them learn. Disagreement is measured in the
    length of an average step, so that it fades as the world becomes known, and lowers the costs by which value and actor
    learn; costs that are predicted, and what plans pay on the way, stay the environment's.

    Args:
        weight: Factor of the predictors' loss; the latent is not shaped by it.
        price: What a disagreement of one step's length is worth, in units of the running cost scale.
        members: Number of predictors, at least 2.

    Raises:
        ValueError: Fewer than two members, or a price below 0.
    """

    price: float = 1.0
    members: int = 3
    name = "disagreement"

    def __post_init__(self) -> None:
        if self.members < 2 or self.price < 0:
            raise ValueError(f"Disagreement needs 2 members or more and a price of at least 0, got {self}")

    def build(self, sizes: ModelConfig, observation_space: spaces.Space, action_space: spaces.Space) -> nn.Module:
        inputs = sizes.latent_dim + action_code(action_space).dim
        return EnsembleMLP(self.members, inputs, sizes.head_arch, sizes.latent_dim)

    def loss(self, seen: Imagined) -> Tensor:
        z, z_next = seen.z_target[:, 0], seen.z_target[:, 1]
        error = self.displacements(seen.model, z, seen.action[:, 1]) - (z_next - z)
        return (error.square().mean((0, -1)) * seen.mask[:, 1]).unsqueeze(1)

    def displacements(self, model: WorldModel, z: Tensor, action: Tensor) -> Tensor:
        """How far each member expects a step to lead: from latents ``(B, D)`` and actions ``(B, A)`` to ``(E, B, D)``."""
        return self.network(model)(torch.cat([z, action], dim=-1))

    def intrinsic_cost(self, model: WorldModel, z: Tensor, action: Tensor) -> Tensor:
        expected = self.displacements(model, z.flatten(0, 1), action.flatten(0, 1))
        length = (z[:, 1:] - z[:, :-1]).square().mean().clamp(min=_STILL).sqrt()
        spread = expected.var(0).mean(-1).sqrt().unflatten(0, z.shape[:2])
        return -self.price * spread / length
