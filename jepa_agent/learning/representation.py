"""Losses of the world model; every function returns ``(B, T)``, to be masked by the caller."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def prediction_loss(z_hat: Tensor, z_target: Tensor) -> Tensor:
    """Mean squared distance of predicted from target latents, both ``(B, T, D)``; the target carries no gradient."""
    assert z_hat.shape == z_target.shape, f"{tuple(z_hat.shape)} against {tuple(z_target.shape)}"
    return F.mse_loss(z_hat, z_target.detach(), reduction="none").mean(-1)


def cost_loss(predicted: Tensor, cost: Tensor) -> Tensor:
    """Huber distance of predicted from observed immediate costs, ``(B, T)``, in units of the running cost scale."""
    assert predicted.shape == cost.shape, f"{tuple(predicted.shape)} against {tuple(cost.shape)}"
    return F.smooth_l1_loss(predicted, cost, reduction="none")


def termination_loss(logit: Tensor, terminated: Tensor) -> Tensor:
    """Cross-entropy of the termination logit, ``(B, T)``: a calibrated probability, unlike a squared error's."""
    assert logit.shape == terminated.shape, f"{tuple(logit.shape)} against {tuple(terminated.shape)}"
    return F.binary_cross_entropy_with_logits(logit, terminated, reduction="none")


def energy_loss(good: Tensor, random: Tensor, margin: float = 1.0) -> Tensor:
    """Hinge ``max(0, E(good) - E(random) + margin)`` per pair, ``(...)``; zero once good latents lie ``margin`` lower."""
    assert good.shape == random.shape, f"{tuple(good.shape)} against {tuple(random.shape)}"
    return F.relu(good - random + margin)
