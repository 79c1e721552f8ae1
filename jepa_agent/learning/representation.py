"""What the world model is fitted to: terms of a sum, each an object with a name, a weight and a loss.

A term is added by passing it: ``JEPA(..., representation=[Prediction(), Cost(), Termination(), MyTerm(0.1)])``. Its loss is
masked, averaged and logged as ``train/<name>_loss``; what it weighs is beside it. Here are the terms in use by default;
`jepa_agent.learning.terms` has more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_agent.config import ModelConfig
from jepa_agent.model.encoders import on_sphere, random_latents
from jepa_agent.model.world_model import WorldModel
from jepa_agent.tensor_ops import check_same_shape, masked_mean
from jepa_agent.types import SequenceBatch

_PERTURBATION = 0.5  # standard deviation of what is added to a latent, whose root mean square is 1


@dataclass(frozen=True)
class Imagined:
    """A stretch of T steps imagined along the actions taken, beside what was observed."""

    model: WorldModel
    batch: SequenceBatch  # windows of at least T steps
    z_hat: Tensor  # (B, T+1, D) the first is encoded, the others are imagined from it
    z_target: Tensor  # (B, T, D) target network's latents of the observations after each step, without gradient
    cost: Tensor  # (B, T) predicted immediate cost, in units of the running cost scale
    termination_logit: Tensor  # (B, T)

    @property
    def action(self) -> Tensor:
        """The actions taken, ``(B, T, A)``."""
        return self.batch.action[:, : self.cost.shape[1]]

    @property
    def mask(self) -> Tensor:
        """1 for each step that was taken, ``(B, T)``."""
        return self.batch.mask[:, : self.cost.shape[1]]

    @cached_property
    def encoded(self) -> Tensor:
        """Latents ``(B, T+1, D)`` of all observations by the online encoder, with gradient; encoded when first asked for."""
        return torch.cat([self.z_hat[:, :1], self.model.observe(self.batch, 1, self.cost.shape[1])], dim=1)


@dataclass(frozen=True)
class RepresentationTerm(ABC):
    """One term of the representation's loss.

    A term that needs networks beside the world model's makes them in `build`. They are then part of the world model: trained
    by its optimiser, saved, loaded and resumed with the agent. The object itself holds settings only.

    Args:
        weight: Its factor in the sum; at 0 it is left out.
    """

    weight: float = 1.0
    name: ClassVar[str]
    reads_reward: ClassVar[bool] = False  # whether it is left out where nothing is to be learned from rewards

    @abstractmethod
    def loss(self, seen: Imagined) -> Tensor:
        """Loss ``(B, T)`` of each step, or ``(B, t)`` of the first t; steps after an episode's end are masked afterwards."""

    def build(self, sizes: ModelConfig, observation_space: spaces.Space, action_space: spaces.Space) -> nn.Module | None:
        """The term's own networks; None if it has none.

        Args:
            sizes: Of the world model's networks: ``latent_dim``, ``net_arch``, ``head_arch``.
            observation_space: Of the environment.
            action_space: Of the environment; the networks see its actions as `jepa_agent.spaces.action_code` says.

        Raises:
            ValueError: The term has no meaning for these spaces.
        """
        return None

    def network(self, model: WorldModel) -> nn.Module:
        """What `build` made, as the world model of an agent with this term holds it."""
        return model.term_networks[self.name]


class IntrinsicCost(RepresentationTerm):
    """A term that also adds to the costs by which value and actor learn."""

    @abstractmethod
    def intrinsic_cost(self, model: WorldModel, z: Tensor, action: Tensor) -> Tensor:
        """What is added to the cost of steps taken.

        Args:
            model: World model of an agent with this term.
            z: Latents of windows, before each step, ``(B, T, D)``.
            action: In the networks' coordinates, ``(B, T, A)``.

        Returns:
            Costs ``(B, T)`` in units of the running cost scale.
        """


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
    """The energy C(z): latents the agent has visited lie a margin lower than latents off the data (the hinge of LeCun et
    al., A Tutorial on Energy-Based Learning, 2006).

    A third of the latents off the data are random points of the sphere, told apart after ten updates. A third are visited
    latents with noise added. A third are imagined from visited ones along the actions of other windows; they lie so near the
    data that a gradient is left. Latents of other windows would be no example: they were visited, too; `TransitionContrast`
    has use for them.

    Args:
        weight: Its factor in the sum.
        margin: How much lower, in units of the energy.
        shape_encoder: Whether the gradient of visited latents reaches the encoder; what is off the data carries none, for
            the predictor must not learn to imagine high energies.
    """

    margin: float = 1.0
    shape_encoder: bool = False
    name = "energy"

    def loss(self, seen: Imagined) -> Tensor:
        visited, energy = seen.z_hat[:, 0], seen.model.cost_module.energy
        off_data = energy(latents_off_data(seen))  # (3, B)
        low = energy(visited if self.shape_encoder else visited.detach())
        return energy_loss(low.expand_as(off_data), off_data, self.margin).mean(0).unsqueeze(1)


@torch.no_grad()
def latents_off_data(seen: Imagined) -> Tensor:
    """Latents ``(3, B, D)`` that no observation led to: random ones, perturbed ones, and those at the end of what is
    imagined along the actions of another window."""
    visited = seen.z_hat[:, 0]
    anywhere = random_latents(len(visited), visited.shape[1], None, visited.device)
    perturbed = on_sphere(visited + _PERTURBATION * torch.randn_like(visited))
    elsewhere = seen.model.imagine(visited, seen.action.roll(1, dims=0))[:, -1]
    return torch.stack([anywhere, perturbed, elsewhere])


def default_terms(
    prediction: float, cost: float, termination: float, infonce: float, energy: float
) -> list[RepresentationTerm]:
    """The terms in use where none are given, by their weights; there is none for a weight of 0 of the last two."""
    optional = [term for term in (InfoNCE(infonce), Contrast(energy)) if term.weight]
    return [Prediction(prediction), Cost(cost), Termination(termination), *optional]


def check_terms(terms: Sequence[RepresentationTerm]) -> None:
    """``ValueError`` for what is no term, for two terms of one name and for weights below zero."""
    given = [terms] if isinstance(terms, str) or not terms else terms
    strange = [term for term in given if not isinstance(term, RepresentationTerm)]
    if strange:
        raise ValueError(f"representation must be a list of RepresentationTerm, got {strange[0]!r}")
    names = [term.name for term in terms]
    if len(set(names)) < len(names):
        raise ValueError(f"representation has two terms of one name: {', '.join(names)}")
    if any(not 0 <= term.weight < float("inf") for term in terms):
        raise ValueError(f"representation's weights must be at least 0, got {[term.weight for term in terms]}")


def build_networks(
    terms: Sequence[RepresentationTerm], sizes: ModelConfig, observation_space: spaces.Space, action_space: spaces.Space
) -> dict[str, nn.Module]:
    """The networks of all terms that have some, by the term's name; see `RepresentationTerm.build`."""
    made = {term.name: term.build(sizes, observation_space, action_space) for term in terms if term.weight}
    return {name: network for name, network in made.items() if network is not None}


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
    own = torch.arange(len(z_hat), device=z_hat.device).repeat(z_hat.shape[1])
    # Classes last and contiguous: a softmax over another axis takes several times as long on a GPU.
    return F.cross_entropy((cosine / temperature).flatten(0, 1), own, reduction="none").view(cosine.shape[:2]).T


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
