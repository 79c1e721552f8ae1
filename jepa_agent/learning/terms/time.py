"""Terms on latents that follow one another: what led from one to the next, and how straight their path is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_agent.config import ModelConfig
from jepa_agent.learning.representation import Imagined, RepresentationTerm
from jepa_agent.model.blocks import mlp
from jepa_agent.spaces import action_code, num_choices
from jepa_agent.tensor_ops import check_same_shape

_STANDS_STILL = 1e-4  # mean square of a displacement below which its direction counts little


@dataclass(frozen=True)
class InverseDynamics(RepresentationTerm):
    """The action taken is read from the encoded latents before and after it (Pathak et al., 1705.05363).

    So the latent keeps what the agent can influence, with or without rewards; noise that no action moves is of no use.
    """

    name = "inverse_dynamics"

    def build(self, sizes: ModelConfig, observation_space: spaces.Space, action_space: spaces.Space) -> nn.Module:
        return ActionReader(sizes.latent_dim, sizes.head_arch, action_space)

    def loss(self, seen: Imagined) -> Tensor:
        reader = self.network(seen.model)
        assert isinstance(reader, ActionReader)
        found = reader(seen.encoded[:, :-1], seen.encoded[:, 1:])
        return action_loss(found, seen.action, reader.num_choices)


class ActionReader(nn.Module):
    """From two latents ``(..., D)`` that follow one another to the action between them ``(..., A)``: numbers for Box
    actions, logits side by side for choices."""

    def __init__(self, latent_dim: int, net_arch: Sequence[int], action_space: spaces.Space):
        super().__init__()
        self.num_choices = num_choices(action_space)
        self.net = mlp(2 * latent_dim, net_arch, action_code(action_space).dim)

    def forward(self, z: Tensor, z_next: Tensor) -> Tensor:
        return self.net(torch.cat([z, z_next], dim=-1))


@dataclass(frozen=True)
class Smoothness(RepresentationTerm):
    """Paths of encoded latents are straight: each displacement points where the one before it did (temporal straightening,
    Wang et al., 2603.12231; Henaff et al., Nature Neuroscience 2019).

    Unlike a small distance between successive latents, straightness does not ask latents to contract. Where paths are
    straight, the distance between latents says more of how many steps lie between them.
    """

    name = "smoothness"

    def loss(self, seen: Imagined) -> Tensor:
        # Of the two steps that a bend needs, the first is masked afterwards, and the second here.
        return bend(seen.encoded) * seen.mask[:, 1:]


def bend(z: Tensor) -> Tensor:
    """``1 - cos(z_{t+1} - z_t, z_{t+2} - z_{t+1})`` of latents ``(B, T+1, D)``: ``(B, T-1)`` in [0, 2], 1 where nothing
    moves."""
    step = z[:, 1:] - z[:, :-1]
    size = (step.square().mean(-1) + _STANDS_STILL).sqrt()
    return 1.0 - (step[:, :-1] * step[:, 1:]).mean(-1) / (size[:, :-1] * size[:, 1:])


def action_loss(found: Tensor, action: Tensor, num_choices: Sequence[int]) -> Tensor:
    """How far read actions are from those taken.

    Args:
        found: Numbers, or logits side by side, ``(..., A)``.
        action: In the networks' coordinates, ``(..., A)``.
        num_choices: Options of each choice; none for Box actions.

    Returns:
        Squared error for Box actions, cross-entropy for choices, mean over numbers or choices: ``(...)``.
    """
    check_same_shape(found, action)
    if not num_choices:
        return F.mse_loss(found, action, reduction="none").mean(-1)
    blocks = zip(found.split(list(num_choices), dim=-1), action.split(list(num_choices), dim=-1), strict=True)
    return torch.stack([-(logits.log_softmax(-1) * taken).sum(-1) for logits, taken in blocks]).mean(0)
