"""Terms by which latents spread over the sphere that they lie on; they look at one batch and need no pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_agent.learning.representation import Imagined, RepresentationTerm

_MOST = 4096  # projections


@dataclass(frozen=True)
class Variance(RepresentationTerm):
    """Each coordinate of the encoded latents varies over the batch: a hinge on its standard deviation (VICReg, Bardes et
    al., 2105.04906).

    Every latent has a mean square of 1 over its coordinates. So the variances over the batch are at most 1 on average, and
    all are 1 only where the mean latent is zero: a ``least`` of 1 is never exceeded by all coordinates, and pulls always.

    Args:
        weight: Its factor in the sum.
        least: Standard deviation from which on a coordinate is left alone, in (0, 1].
    """

    least: float = 1.0
    name = "variance"

    def __post_init__(self) -> None:
        if not 0.0 < self.least <= 1.0:
            raise ValueError(f"Variance's least must lie above 0 and be at most 1, got {self.least!r}")

    def loss(self, seen: Imagined) -> Tensor:
        return _of_the_batch(variance_loss(seen.z_hat[:, 0], self.least), seen)


@dataclass(frozen=True)
class Covariance(RepresentationTerm):
    """No coordinate of the encoded latents tells another's (VICReg, Bardes et al., 2105.04906).

    Coordinates of a latent add up to zero, so they cannot be uncorrelated altogether: at unit variances the least that this
    loss can be is 1 / (D - 1). It is zero for collapsed latents, too, and so goes together with `Variance`.
    """

    name = "covariance"

    def loss(self, seen: Imagined) -> Tensor:
        return _of_the_batch(covariance_loss(seen.z_hat[:, 0]), seen)


@dataclass(frozen=True)
class SIGReg(RepresentationTerm):
    """Encoded latents are distributed as an isotropic Gaussian: along random directions their empirical characteristic
    function meets that of N(0, 1) (sketched isotropic Gaussian regularisation; LeJEPA, Balestriero & LeCun, 2511.08544).

    LeJEPA's latents may lie anywhere; ours lie on a sphere, in the subspace of coordinates that add up to zero, and no
    distribution there is Gaussian. Directions are drawn within that subspace. Along them the *uniform* distribution on the
    sphere comes as near to N(0, 1) as the latent has many dimensions: that is what this term asks for. Their length cannot
    be wrong, so only directions are left to learn, and in a few dimensions the loss has a rest that nothing can remove.

    Args:
        weight: Its factor in the sum. The loss is Epps and Pulley's statistic, of order 1 for latents that are distributed
            so, whatever the batch size, and up to about the batch size for collapsed ones: weights of 0.01 to 0.1 are usual.
        num_projections: Directions, drawn anew at each update.
    """

    num_projections: int = 64
    name = "sigreg"

    def __post_init__(self) -> None:
        if not 1 <= self.num_projections <= _MOST:
            raise ValueError(f"SIGReg's num_projections must lie between 1 and {_MOST}, got {self.num_projections!r}")

    def loss(self, seen: Imagined) -> Tensor:
        z = seen.z_hat[:, 0]
        directions = torch.randn(z.shape[1], self.num_projections, device=z.device)
        directions = directions - directions.mean(0)
        directions = directions / directions.norm(dim=0).clamp(min=1e-12)
        return _of_the_batch(epps_pulley(z @ directions).mean(), seen)


def _of_the_batch(loss: Tensor, seen: Imagined) -> Tensor:
    """One number for the whole batch as the loss ``(B, 1)`` of its first steps."""
    return loss.expand(len(seen.z_hat), 1)


def variance_loss(z: Tensor, least: float) -> Tensor:
    """``mean_j max(0, least - sqrt(Var z_j + 1e-4))`` over the coordinates of latents ``(B, D)``."""
    return (least - (z.var(0) + 1e-4).sqrt()).relu().mean()


def covariance_loss(z: Tensor) -> Tensor:
    """``sum_{i != j} Cov_ij^2 / D`` over the coordinates of latents ``(B, D)``."""
    centred = z - z.mean(0)
    covariance = centred.T @ centred / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


def epps_pulley(x: Tensor) -> Tensor:
    """Epps and Pulley's statistic (1983) of how far samples are from N(0, 1).

    ``B * integral |phi_B(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt`` over [-5, 5], by the trapezoid rule, with ``phi_B`` the
    empirical characteristic function.

    Args:
        x: B samples of each of K distributions, ``(B, K)``.

    Returns:
        Statistics ``(K,)``.
    """
    t = torch.linspace(0.0, 5.0, 9, device=x.device)  # what is integrated is even
    normal = torch.exp(-0.5 * t.square())
    angle = x.unsqueeze(-1) * t  # (B, K, 9)
    distance = (angle.cos().mean(0) - normal).square() + angle.sin().mean(0).square()
    return 2.0 * len(x) * torch.trapezoid(distance * normal, t, dim=-1)
