"""What the world model is fitted to: terms of a sum, each an object with a name, a weight and a loss.

A term is added by passing it: ``JEPA(..., representation=[Prediction(), Cost(), Termination(), MyTerm(0.1)])``. Its loss is
masked, averaged and logged as ``train/<name>_loss``; what it weighs is beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_agent.model.encoders import random_latents
from jepa_agent.model.world_model import WorldModel
from jepa_agent.tensor_ops import check_same_shape, masked_mean
from jepa_agent.types import SequenceBatch


class Imagined(NamedTuple):
    """A stretch of T steps imagined along the actions taken, beside what was observed."""

    model: WorldModel
    batch: SequenceBatch  # windows of at least T steps
    z_hat: Tensor  # (B, T+1, D) the first is encoded, the others are imagined from it
    z_target: Tensor  # (B, T, D) target network's latents of the observations after each step, without gradient
    cost: Tensor  # (B, T) predicted immediate cost, in units of the running cost scale
    termination_logit: Tensor  # (B, T)


@dataclass(frozen=True)
class RepresentationTerm(ABC):
    """One term of the representation's loss. It carries no parameters of its own.

    Args:
        weight: Its factor in the sum; at 0 it is left out.
    """

    weight: float = 1.0
    name: ClassVar[str]
    reads_reward: ClassVar[bool] = False  # whether it is left out where nothing is to be learned from rewards

    @abstractmethod
    def loss(self, seen: Imagined) -> Tensor:
        """Loss ``(B, T)`` of each step, or ``(B, t)`` of the first t; steps after an episode's end are masked afterwards."""


@dataclass(frozen=True)
class Prediction(RepresentationTerm):
    """Imagined latents meet the target network's. The target's slow, stop-gradient copy and the sphere that latents lie on
    keep them from collapsing to a point (Grill et al., 2006.07733)."""

    name = "prediction"

    def loss(self, seen: Imagined) -> Tensor:
        return prediction_loss(seen.z_hat[:, 1:], seen.z_target)


@dataclass(frozen=True)
class Cost(RepresentationTerm):
    """Predicted immediate costs meet the observed."""

    name = "cost"
    reads_reward = True

    def loss(self, seen: Imagined) -> Tensor:
        observed = seen.batch.cost[:, : seen.cost.shape[1]] / seen.model.cost_module.cost_scale
        return cost_loss(seen.cost, observed)


@dataclass(frozen=True)
class Termination(RepresentationTerm):
    """The probability that a step ends the episode meets whether it did."""

    name = "termination"

    def loss(self, seen: Imagined) -> Tensor:
        return termination_loss(seen.termination_logit, seen.batch.terminated[:, : seen.cost.shape[1]])


@dataclass(frozen=True)
class InfoNCE(RepresentationTerm):
    """Each imagined latent is told apart from the targets of the other windows of the batch (van den Oord et al.,
    1807.03748).

    Prediction alone is met more easily the nearer all latents are to one another. Where they contract, this loss grows.
    """

    name = "infonce"

    def loss(self, seen: Imagined) -> Tensor:
        return infonce_loss(seen.z_hat[:, 1:], seen.z_target)


@dataclass(frozen=True)
class Contrast(RepresentationTerm):
    """Latents the agent has visited lie a margin lower in energy than latents drawn at random."""

    name = "energy"

    def loss(self, seen: Imagined) -> Tensor:
        visited = seen.z_hat[:, 0].detach()
        anywhere = random_latents(len(visited), visited.shape[1], None, visited.device)
        energy = seen.model.cost_module.energy
        return energy_loss(energy(visited), energy(anywhere)).unsqueeze(1)


def default_terms(
    prediction: float, cost: float, termination: float, infonce: float, energy: float
) -> list[RepresentationTerm]:
    """The terms in use where none are given, by their weights; there is none for a weight of 0 of the last two."""
    optional = [term for term in (InfoNCE(infonce), Contrast(energy)) if term.weight]
    return [Prediction(prediction), Cost(cost), Termination(termination), *optional]


def check_terms(terms: Sequence[RepresentationTerm]) -> None:
    """``ValueError`` for what is no term, for two terms of one name and for weights below zero."""
    strange = next((term for term in terms if not isinstance(term, RepresentationTerm)), None)
    if strange is not None or not terms:
        raise ValueError(f"representation must be a list of RepresentationTerm, got {strange or terms!r}")
    names = [term.name for term in terms]
    if len(set(names)) < len(names):
        raise ValueError(f"representation has two terms of one name: {', '.join(names)}")
    if any(not 0 <= term.weight < float("inf") for term in terms):
        raise ValueError(f"representation's weights must be at least 0, got {[term.weight for term in terms]}")


def imagine_along(model: WorldModel, target: WorldModel, batch: SequenceBatch, horizon: int) -> Imagined:
    """Encode the first observation of each window and imagine along the actions taken.

    Args:
        model: Encodes and imagines, with gradient.
        target: Encodes the observations that followed, without gradient.
        batch: Windows of at least ``horizon`` steps.
        horizon: Number T of steps.
    """
    action = batch.action[:, :horizon]
    # Targets are of the slow copy and carry no gradient: the encoder cannot meet them by moving them.
    with torch.no_grad():
        z_target = target.observe(batch, 1, horizon)
    z_hat = model.imagine(model.observe(batch, 0, 1)[:, 0], action)
    cost, logit = model.cost_module.step(z_hat[:, :-1], action)
    return Imagined(model, batch, z_hat, z_target, cost, logit)


def representation_losses(terms: Sequence[RepresentationTerm], seen: Imagined) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of all terms, and each term's own loss.

    Args:
        terms: What the world model is fitted to.
        seen: Imagined steps beside the observed ones.

    Returns:
        The sum ``()``, and losses ``()`` by name, unweighted; all averaged over steps that were taken.

    Raises:
        ValueError: A term's loss has another shape than ``(B, t)``.
    """
    rows, horizon = seen.cost.shape
    losses = {}
    for term in terms:
        if not term.weight:
            continue
        each = term.loss(seen)
        if each.dim() != 2 or each.shape[0] != rows or not 1 <= each.shape[1] <= horizon:
            raise ValueError(f"{type(term).__name__}.loss gave {tuple(each.shape)}, expected ({rows}, up to {horizon})")
        losses[term.name] = masked_mean(each, seen.batch.mask[:, : each.shape[1]])
    weights = {term.name: term.weight for term in terms}
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum(), losses


# ---------------------------------------------------------------------- what the terms are made of


def prediction_loss(z_hat: Tensor, z_target: Tensor) -> Tensor:
    """Mean squared distance of predicted from target latents, both ``(B, T, D)``; the target carries no gradient."""
    check_same_shape(z_hat, z_target)
    return F.mse_loss(z_hat, z_target.detach(), reduction="none").mean(-1)


def infonce_loss(z_hat: Tensor, z_target: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of finding, by the cosine, each predicted latent's own target among those of the whole batch at the same
    step.

    Args:
        z_hat: Predicted latents ``(B, T, D)`` of unit root-mean-square.
        z_target: Target latents, the same shape; no gradient flows into them.
        temperature: Of the softmax over cosines.

    Returns:
        Losses ``(B, T)`` in nats; log B where no two targets differ.
    """
    check_same_shape(z_hat, z_target)
    cosine = z_hat.transpose(0, 1) @ z_target.detach().permute(1, 2, 0) / z_hat.shape[-1]  # (T, B, B)
    own = torch.arange(len(z_hat), device=z_hat.device).expand(z_hat.shape[1], -1)
    return F.cross_entropy((cosine / temperature).transpose(1, 2), own, reduction="none").T


def cost_loss(predicted: Tensor, cost: Tensor) -> Tensor:
    """Huber distance of predicted from observed immediate costs, ``(B, T)``, in units of the running cost scale."""
    check_same_shape(predicted, cost)
    return F.smooth_l1_loss(predicted, cost, reduction="none")


def termination_loss(logit: Tensor, terminated: Tensor) -> Tensor:
    """Cross-entropy of the termination logit, ``(B, T)``: a calibrated probability, unlike a squared error's."""
    check_same_shape(logit, terminated)
    return F.binary_cross_entropy_with_logits(logit, terminated, reduction="none")


def energy_loss(good: Tensor, random: Tensor, margin: float = 1.0) -> Tensor:
    """Hinge ``max(0, E(good) - E(random) + margin)`` per pair, ``(...)``; zero once good latents lie ``margin`` lower."""
    check_same_shape(good, random)
    return F.relu(good - random + margin)
