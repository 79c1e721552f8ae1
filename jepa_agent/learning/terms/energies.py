"""Energies of pairs of latents: whether one follows from the other, and whether it can be reached from it in time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_agent.config import ModelConfig
from jepa_agent.learning.representation import Imagined, RepresentationTerm, energy_loss
from jepa_agent.model.blocks import mlp
from jepa_agent.model.world_model import WorldModel
from jepa_agent.spaces import action_code

_BUDGET_UNIT = 10.0  # steps


@dataclass(frozen=True)
class TransitionContrast(RepresentationTerm):
    """The energy C(z, a, z'): transitions that were observed lie a margin lower than others (the hinge of LeCun et al., A
    Tutorial on Energy-Based Learning, 2006).

    The others begin at the same latent with the same action, and lead to what they did not: to the latent of another window,
    most often of another episode; to what is imagined of another window's action; and to the latent one step too late.

    Args:
        weight: Its factor in the sum.
        margin: How much lower, in units of the energy.
        shape_encoder: Whether the gradient reaches the encoder, by way of the latent that transitions begin at.
    """

    margin: float = 1.0
    shape_encoder: bool = True
    name = "transition_energy"

    def build(self, sizes: ModelConfig, observation_space: spaces.Space, action_space: spaces.Space) -> nn.Module:
        return mlp(2 * sizes.latent_dim + action_code(action_space).dim, sizes.head_arch, 1)

    def energy(self, model: WorldModel, z: Tensor, action: Tensor, z_next: Tensor) -> Tensor:
        """Energy of transitions: low for those that were observed, high elsewhere.

        Args:
            model: World model of an agent with this term.
            z: Latents ``(..., D)`` before the step.
            action: In the networks' coordinates, ``(..., A)``.
            z_next: Latents ``(..., D)`` after it.

        Returns:
            Energies ``(...)`` without unit.
        """
        return self.network(model)(torch.cat([z, action, z_next], dim=-1)).squeeze(-1)

    def loss(self, seen: Imagined) -> Tensor:
        z, action, z_next = seen.z_hat[:, 0], seen.action[:, 0], seen.z_target[:, 0]
        z = z if self.shape_encoder else z.detach()
        other_action = action.roll(1, dims=0)
        with torch.no_grad():
            elsewhere = seen.model.predict(z, other_action)
        wrong = torch.stack([z_next.roll(1, dims=0), elsewhere, seen.z_target[:, 1]])  # (3, B, D)
        # Another window's action may be the same one, and the episode may have ended before the step that comes too late.
        differs = (other_action != action).any(-1).to(z.dtype)
        counts = torch.stack([torch.ones_like(differs), differs, seen.mask[:, 1]])
        high = self.energy(seen.model, z.expand_as(wrong), action.expand(3, -1, -1), wrong)
        low = self.energy(seen.model, z, action, z_next)
        each = energy_loss(low.expand_as(high), high, self.margin)
        return ((each * counts).sum(0) / counts.sum(0)).unsqueeze(1)


@dataclass(frozen=True)
class Reachability(RepresentationTerm):
    """Whether z' can be reached from z within k steps, learned by cross-entropy from when it was (RC-aux, Li et al.,
    2605.07278).

    Of each window one later step and one budget k are drawn. Within the budget the pair is an example; beyond it a temporal
    hard negative, on the same path but too far along it. A latent of another window is the easy negative. A state met late
    may in truth be near: the agent's own detours are taken for distance. ``-log p`` serves as a cost of plans.
    """

    name = "reachability"

    def build(self, sizes: ModelConfig, observation_space: spaces.Space, action_space: spaces.Space) -> nn.Module:
        return mlp(2 * sizes.latent_dim + 1, sizes.head_arch, 1)

    def logit(self, model: WorldModel, z: Tensor, z_later: Tensor, budget: Tensor | float) -> Tensor:
        """Logit of the probability that one latent is reached from another in time. It is not symmetric.

        Args:
            model: World model of an agent with this term.
            z: Latents ``(..., D)`` to start from.
            z_later: Latents ``(..., D)`` to reach, or one for all ``(D,)``.
            budget: Steps there are, ``(...)`` or one number for all.

        Returns:
            Logits ``(...)``.
        """
        steps = torch.as_tensor(budget, dtype=z.dtype, device=z.device).expand(z.shape[:-1]).unsqueeze(-1)
        return self.network(model)(torch.cat([z, z_later.expand_as(z), steps / _BUDGET_UNIT], dim=-1)).squeeze(-1)

    def loss(self, seen: Imagined) -> Tensor:
        z, (size, length) = seen.z_hat[:, 0], seen.batch.mask.shape
        distance = torch.randint(1, length + 1, (size,), device=z.device)
        budget = torch.randint(1, length, (size,), device=z.device)
        later = seen.model.observe(seen.batch, distance, 1)[:, 0]
        known = seen.batch.mask.gather(1, distance.unsqueeze(1) - 1).squeeze(1)  # whether the episode lasted until then
        on_path, off_path = (self.logit(seen.model, z, goal, budget) for goal in (later, later.roll(1, dims=0)))
        return (0.5 * (known * reachability_loss(on_path, distance, budget) + F.softplus(off_path))).unsqueeze(1)


def reachability_loss(logit: Tensor, distance: Tensor, budget: Tensor) -> Tensor:
    """Cross-entropy ``(...)`` of whether ``distance`` steps are within the budget."""
    return F.binary_cross_entropy_with_logits(logit, (distance <= budget).to(logit.dtype), reduction="none")
