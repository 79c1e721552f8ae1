"""Measures of what the world model knows; pure functions of a model and a batch."""

from __future__ import annotations

import torch

from jepa_agent.losses.prediction import prediction_loss
from jepa_agent.tensor_ops import effective_rank, masked_mean
from jepa_agent.types import SequenceBatch
from jepa_agent.world_model import WorldModel


@torch.no_grad()
def latent_health(model: WorldModel, batch: SequenceBatch) -> dict[str, float]:
    """Is the latent space alive? ``std`` over observations (1 is the most there can be, 0 is collapse), effective
    ``rank`` in [1, D], and the prediction error after one step and at the end of the window, as a share of the
    latents' variance (1 is no better than predicting the mean latent)."""
    latents = model.encode(batch.obs)
    first = latents[:, 0]
    z_hat = model.imagine(first, batch.action)
    error = prediction_loss(z_hat[:, 1:], latents[:, 1:])
    variance = first.var(0).mean().clamp(min=1e-12)
    return {
        "std": float(first.std(0).mean()),
        "rank": float(effective_rank(first)),
        "error_first": float(masked_mean(error[:, :1], batch.mask[:, :1]) / variance),
        "error_last": float(masked_mean(error[:, -1:], batch.mask[:, -1:]) / variance),
    }
