"""Measures of what the world model knows and of what was decided; pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_agent.learning.representation import prediction_loss
from jepa_agent.model.world_model import WorldModel
from jepa_agent.tensor_ops import effective_rank, masked_mean
from jepa_agent.types import Decision, SequenceBatch


@torch.no_grad()
def latent_health(model: WorldModel, batch: SequenceBatch) -> dict[str, float]:
    """Is the latent space alive? ``std`` over observations (1 is the most there can be, 0 is collapse), effective
    ``rank`` in [1, D], and the prediction error after one step and at the end of the window, as a share of the
    latents' variance (1 is no better than predicting the mean latent)."""
    latents = model.observe(batch, 0, batch.mask.shape[1] + 1)
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


def decision_measures(decision: Decision, tracks_state: bool) -> dict[str, float]:
    """Who acted, and why, by log key; surprise only where the switch ``tracks_state``, gains only where one searched.

    ``planner_fraction`` is the share of the steps with a search, ``executed_fraction`` with its plan executed too;
    ``gain_predicted`` what executed plans were thought to gain over the actor's own sequence.
    """
    searched, planned = decision.searched, decision.planned
    measures = {"mode/planner_fraction": float(searched.float().mean())}
    measures["mode/executed_fraction"] = float(planned.float().mean())
    if tracks_state:
        measures["latent/surprise"] = float(decision.surprise.mean())
    if searched.any():
        measures["plan/disagreement"] = float(decision.disagreement[searched].mean())
        measures["plan/spread"] = float(decision.plan_spread[searched].mean())
        measures["time/plan_ms"] = float(decision.milliseconds[searched].mean())
    if (executed := planned & searched).any():
        measures["mode/gain_predicted"] = float(decision.gain[executed].mean())
    return measures


def realised_gain(before: Decision, cost: Tensor, after: Decision, gamma: float) -> Tensor:
    """What a step gained over what the critic expected of the actor, noise included, where ``gain_predicted`` is of a whole
    plan. Means nothing across an episode's end.

    Args:
        before: The decision at the step.
        cost: Observed cost ``(B,)`` of the step.
        after: The decision at the next step.
        gamma: Discount.

    Returns:
        ``Q(z_t, pi) - c_t - gamma Q(z_{t+1}, pi)``, ``(B,)``.
    """
    return before.situation.cost_to_go - cost - gamma * after.situation.cost_to_go
