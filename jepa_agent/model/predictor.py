"""Where an action takes a latent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jepa_agent.model.blocks import mlp
from jepa_agent.model.encoders import on_sphere


class Predictor(nn.Module):
    """Action-conditioned step in latent space: ``(..., D)`` and ``(..., A)`` to ``(..., D)``; a residual, so that standing
    still is the easy thing to learn."""

    def __init__(self, latent_dim: int, action_dim: int, net_arch: Sequence[int], activation_fn: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.net = mlp(latent_dim + action_dim, net_arch, latent_dim, activation_fn)

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        return on_sphere(z + self.net(torch.cat([z, action], dim=-1)))
