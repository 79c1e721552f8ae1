"""The contrastive energy: where the agent has been costs less than anywhere else."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def energy_loss(good: Tensor, random: Tensor, margin: float = 1.0) -> Tensor:
    """Hinge ``max(0, E(good) - E(random) + margin)`` per pair, ``(...)``; zero once good latents lie ``margin`` lower."""
    assert good.shape == random.shape, f"{tuple(good.shape)} against {tuple(random.shape)}"
    return F.relu(good - random + margin)
