"""What a latent says about something else, told by a network that the world model never learns from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_agent.tensor_ops import ridge

_WIDTH, _HELD_OUT = 256, 5


class Readout(nn.Module):
    """Latents ``(..., D)`` to features ``(..., F)``: a random layer, then a linear one fitted by ridge regression.

    ``error`` ``(F,)`` is the share of each feature's variance that is missed on a fifth of the pairs, kept from the fit.
    Linear algebra finds the best fit at once and always the same. Source: random features, Rahimi & Recht, 2007.
    """

    error: Tensor
    hidden: Tensor
    shift: Tensor
    weight: Tensor

    def __init__(self, z: Tensor, features: Tensor):
        """Fitted to pairs ``(M, D)``, ``(M, F)``."""
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        dim = z.shape[-1]
        self.register_buffer("hidden", torch.randn(dim, _WIDTH, generator=generator).to(z) * (2.0 / dim) ** 0.5)
        self.register_buffer("shift", torch.randn(_WIDTH, generator=generator).to(z))
        held_out = torch.arange(len(z), device=z.device) % _HELD_OUT == 0
        self.register_buffer("weight", self._fit(z[~held_out], features[~held_out]))
        missed = (self(z[held_out]) - features[held_out]).double().square().mean(0)
        variance = features.double().var(0, unbiased=False).clamp(min=1e-6)
        self.register_buffer("error", (missed / variance).to(z.dtype))
        self.weight = self._fit(z, features)

    def forward(self, z: Tensor) -> Tensor:
        return self._basis(z) @ self.weight

    def _basis(self, z: Tensor) -> Tensor:
        return torch.cat([z, torch.relu(z @ self.hidden + self.shift), torch.ones_like(z[..., :1])], dim=-1)

    def _fit(self, z: Tensor, features: Tensor) -> Tensor:
        """Weights ``(D + width + 1, F)``; constant features are as well fitted as any."""
        return ridge(self._basis(z), features).to(z.dtype)
