"""What a latent says about something else, told by a network that the world model never learns from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jepa_agent.tensor_ops import ridge

_WIDTH, _HELD_OUT = 256, 5
_POORLY_READ = 0.25

Features = Sequence[int] | Callable[[Any], Any] | None
"""Indices into the flat observation, a function from observations ``(M, *obs_shape)`` to ``(M, F)``, or all of them."""


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


def fit_readout(features: Features, obs: Any, z: Tensor) -> Readout:
    """A readout of features of the observations met; it warns where latents tell little of them.

    Args:
        features: Which.
        obs: Observations ``(M, *obs_shape)`` as the environment gives them, or a dict of them; None if there are none.
        z: Their latents ``(M, D)``.

    Raises:
        ValueError: There are no observations, or they have no such features.
    """
    if obs is None:
        raise ValueError("features are read from latents by what the replay buffer tells, which is empty: load one first")
    readout = Readout(z, torch.as_tensor(features_of(features, obs, len(z)), dtype=z.dtype, device=z.device))
    poor = (readout.error > _POORLY_READ).nonzero().flatten().tolist()
    if poor:
        missed = ", ".join(f"{float(readout.error[i]):.0%} of feature {i}" for i in poor)
        warnings.warn(
            f"latents, encoded and imagined, tell little about some features: missed is {missed}, of their variance",
            stacklevel=7,
        )
    return readout


def features_of(features: Features, obs: Any, count: int) -> np.ndarray:
    """Features ``(M, F)`` of M = ``count`` observations.

    Args:
        features: Which.
        obs: Observations ``(M, *obs_shape)`` as the environment gives them, or a dict of them.
        count: Number M of observations.

    Raises:
        ValueError: There are no such features, or they are not one row of finite numbers for each observation.
    """
    if callable(features):
        try:
            found = np.asarray(features(obs), dtype=np.float32)
        except Exception as error:
            raise ValueError(f"the features raised {error!r} on {count} observations at once") from error
        if found.ndim not in (1, 2) or len(found) != count or not np.isfinite(found).all():
            raise ValueError(
                f"the features of {count} observations must be ({count}, F) finite numbers, got shape {found.shape}"
            )
        return found.reshape(count, -1)
    if isinstance(obs, Mapping):
        raise ValueError(f"observations have the parts {', '.join(obs)}: give features as a function of these")
    flat = np.asarray(obs, dtype=np.float32).reshape(count, -1)
    if features is None:
        return flat
    beyond = [index for index in features if not 0 <= index < flat.shape[1]]
    if beyond:
        raise ValueError(f"features {beyond} are no indices into an observation of {flat.shape[1]} numbers")
    return flat[:, list(features)]
