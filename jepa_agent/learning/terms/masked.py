"""Terms that hide something and ask for it: its embedding, or, for comparison only, the observation itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import Tensor, nn

from jepa_agent.config import ModelConfig
from jepa_agent.learning.representation import Imagined, RepresentationTerm, prediction_loss
from jepa_agent.model.blocks import mlp
from jepa_agent.model.encoders import Encoder, on_sphere
from jepa_agent.model.features import is_image
from jepa_agent.model.world_model import WorldModel
from jepa_agent.types import Observations


@dataclass(frozen=True)
class MaskedLatents(RepresentationTerm):
    """Random coordinates of an observation are hidden, and from what is left the target network's latent of the whole
    observation is predicted, told which were hidden (I-JEPA, Assran et al., 2301.08243).

    For observations that are vectors; a hidden coordinate stands at its running mean.

    Args:
        weight: Its factor in the sum.
        hidden: Chance of each coordinate to be hidden, in (0, 1).
    """

    hidden: float = 0.5
    name = "masked_latents"

    def __post_init__(self) -> None:
        if not 0.0 < self.hidden < 1.0:
            raise ValueError(f"MaskedLatents' hidden must lie between 0 and 1, ends excluded, got {self.hidden!r}")

    def build(self, sizes: ModelConfig, observation_space: spaces.Space, action_space: spaces.Space) -> nn.Module:
        check_is_vector(self, observation_space, "MaskedSteps hides whole steps of any observation")
        width = spaces.flatdim(observation_space)
        return mlp(sizes.latent_dim + width, sizes.head_arch, sizes.latent_dim)

    def loss(self, seen: Imagined) -> Tensor:
        model = seen.model
        encoder, whole = vectors(model, seen.batch.obs[:, 1])  # after the first step, whose target is there
        hidden = torch.rand_like(whole) < self.hidden
        z = encoder(torch.where(hidden, encoder.norm.mean, whole))
        found = on_sphere(self.network(model)(torch.cat([z, hidden.float()], dim=-1)))
        return prediction_loss(found.unsqueeze(1), seen.z_target[:, :1])


@dataclass(frozen=True)
class MaskedSteps(RepresentationTerm):
    """A whole step of time is hidden, and from the encoded latents before and after it the target network's latent of it is
    predicted (V-JEPA, Bardes et al., 2404.08471). For observations of any kind."""

    name = "masked_steps"

    def build(self, sizes: ModelConfig, observation_space: spaces.Space, action_space: spaces.Space) -> nn.Module:
        return mlp(2 * sizes.latent_dim, sizes.head_arch, sizes.latent_dim)

    def loss(self, seen: Imagined) -> Tensor:
        around = torch.cat([seen.encoded[:, :-2], seen.encoded[:, 2:]], dim=-1)  # (B, T-1, 2D)
        found = on_sphere(self.network(seen.model)(around))
        # The step before what is hidden is masked afterwards, the one after it here.
        return prediction_loss(found, seen.z_target[:, :-1]) * seen.mask[:, 1:]


@dataclass(frozen=True)
class Reconstruction(RepresentationTerm):
    """The observation, standardised as the encoder sees it, is read from encoded and imagined latents (as in Dreamer, Hafner
    et al., 1912.01603). For comparison only: nothing else decodes, and acting never does.

    For observations that are vectors. The latent must keep all that is seen, also what is noise.
    """

    name = "reconstruction"

    def build(self, sizes: ModelConfig, observation_space: spaces.Space, action_space: spaces.Space) -> nn.Module:
        check_is_vector(self, observation_space, "leave it out")
        return mlp(sizes.latent_dim, sizes.net_arch, spaces.flatdim(observation_space))

    def loss(self, seen: Imagined) -> Tensor:
        encoder, observed = vectors(seen.model, seen.batch.obs[:, : seen.cost.shape[1]])
        decoded = self.network(seen.model)(seen.z_hat[:, :-1])
        return prediction_loss(decoded, encoder.norm(observed))


def check_is_vector(term: RepresentationTerm, space: spaces.Space, way_out: str) -> None:
    """``ValueError`` for observations of several parts and for images."""
    if isinstance(space, spaces.Dict) or is_image(space):
        raise ValueError(f"{type(term).__name__} needs observations that are one vector, got {space}: {way_out}")


def vectors(model: WorldModel, obs: Observations) -> tuple[Encoder, Tensor]:
    """The encoder, and observations as the vectors ``(..., dim)`` that it takes. ``ValueError`` where it takes none, for it
    begins with a features extractor."""
    if not isinstance(model.encoder, Encoder):
        raise ValueError(f"this term needs an encoder of vectors, got {type(model.encoder).__name__}: leave it out")
    return model.encoder, model.observation(obs)
