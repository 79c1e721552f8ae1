"""Observation to latent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_agent.model.blocks import RunningNorm, mlp


class VectorObservation(nn.Module):
    """Raw observations of a space, ``(..., *obs_shape)``, as float vectors ``(..., dim)``; discrete ones become one-hot."""

    def __init__(self, observation_space: spaces.Space):
        super().__init__()
        self.obs_shape = observation_space.shape or ()
        self.dim = spaces.flatdim(observation_space)
        self.choices: list[int] = []
        self.starts: list[int] = []
        if isinstance(observation_space, spaces.Discrete):
            self.choices, self.starts = [int(observation_space.n)], [int(observation_space.start)]
        elif isinstance(observation_space, spaces.MultiDiscrete):
            self.choices, self.starts = observation_space.nvec.ravel().tolist(), observation_space.start.ravel().tolist()

    def forward(self, obs: Tensor) -> Tensor:
        lead = obs.shape[: obs.dim() - len(self.obs_shape)]
        if not self.choices:
            return obs.float().reshape(*lead, self.dim)
        index = obs.long().reshape(*lead, len(self.choices))
        choices = zip(index.unbind(-1), self.starts, self.choices, strict=True)
        return torch.cat([F.one_hot(i - start, n) for i, start, n in choices], dim=-1).float()


class Encoder(nn.Module):
    """Vector observations ``(..., dim)`` to latents ``(..., D)`` of unit root-mean-square.

    Every latent, encoded or imagined, lies on the same sphere: a planner cannot leave the set the heads were trained on.
    """

    def __init__(self, input_dim: int, latent_dim: int, net_arch: Sequence[int], activation_fn: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.norm = RunningNorm(input_dim)
        self.net = mlp(input_dim, net_arch, latent_dim, activation_fn)

    def forward(self, x: Tensor) -> Tensor:
        return on_sphere(self.net(self.norm(x)))

    def observe(self, x: Tensor) -> None:
        """Take vectors ``(B, dim)`` into the running scales."""
        self.norm.update(x)


ENCODERS: dict[str, type[Encoder]] = {"mlp": Encoder}
"""Encoders of vectors by the name that ``policy_kwargs=dict(encoder=...)`` asks for."""


def register_encoder(name: str, encoder: type[Encoder]) -> None:
    """Let a subclass of `Encoder` be asked for by name; ``ValueError`` if that is taken by another."""
    if ENCODERS.get(name, encoder) is not encoder:
        raise ValueError(f"encoder {name!r} is taken: choose a name other than {', '.join(ENCODERS)}")
    ENCODERS[name] = encoder


def on_sphere(z: Tensor) -> Tensor:
    """Project onto the manifold of latents: zero mean and unit variance over the last axis."""
    return F.layer_norm(z, z.shape[-1:])


def random_latents(count: int, latent_dim: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Latents drawn uniformly from the sphere that all latents lie on.

    Args:
        count: How many.
        latent_dim: Size D of the latent.
        generator: Of the draws; None is torch's own.
        device: Where to draw.

    Returns:
        Latents ``(count, D)``.
    """
    return on_sphere(torch.randn(count, latent_dim, generator=generator, device=device))
