"""Parts of the world model that fit an environment's spaces; `JEPAPolicy` puts them together."""

from __future__ import annotations

import warnings
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from jepa_agent.config import ModelConfig, did_you_mean
from jepa_agent.model.actor import Actor, BoundedActor, CategoricalActor
from jepa_agent.model.cost import CostToGo, JointCostToGo, PerActionCostToGo
from jepa_agent.model.encoders import ENCODERS, Encoder, VectorObservation
from jepa_agent.model.features import ExtractorFeatures, FeatureEncoder, PartFeatures, is_image
from jepa_agent.model.predictor import Predictor
from jepa_agent.spaces import action_code, num_choices

_SMALLEST_IMAGE = 16  # of the shorter side


def make_encoder(
    space: spaces.Space,
    sizes: ModelConfig,
    activation_fn: type[nn.Module],
    features: PartFeatures | ExtractorFeatures | None,
) -> tuple[nn.Module, Encoder | FeatureEncoder]:
    """What raw observations go through first, and the encoder that follows.

    Args:
        space: Of the observations.
        sizes: Of the networks, and the name of the encoder.
        activation_fn: Between the layers.
        features: Extractor for images and Dict spaces; without one, observations are vectors.

    Raises:
        ValueError: An encoder that is not known, or one of vectors where observations are none.
    """
    if features is None:
        observation = VectorObservation(space)
        make = ENCODERS.get(sizes.encoder)
        if make is None:
            raise ValueError(f"unknown encoder {sizes.encoder!r}{did_you_mean(sizes.encoder, ENCODERS)}")
        return observation, make(observation.dim, sizes.latent_dim, sizes.net_arch, activation_fn)
    if sizes.encoder != ModelConfig.encoder:
        raise ValueError(
            f"encoder {sizes.encoder!r} takes vectors, but {space} holds images or parts: give features_extractor_class"
        )
    return nn.Identity(), FeatureEncoder(features, sizes.latent_dim, sizes.net_arch, activation_fn)


def make_predictor(
    space: spaces.Space, sizes: ModelConfig, activation_fn: type[nn.Module], cls: type[Predictor] | None = None
) -> Predictor:
    """A predictor for actions of a space."""
    return (cls or Predictor)(sizes.latent_dim, action_code(space).dim, sizes.net_arch, activation_fn)


def make_critic(
    space: spaces.Space, sizes: ModelConfig, activation_fn: type[nn.Module], cls: type[CostToGo] | None = None
) -> CostToGo:
    """Costs-to-go for actions of a space. One choice has an answer for each option; of several, one's worth depends on the
    others."""
    fitting = PerActionCostToGo if len(num_choices(space)) == 1 else JointCostToGo
    return (cls or fitting)(sizes.latent_dim, action_code(space).dim, sizes.net_arch, sizes.ensemble_size, activation_fn)


def make_actor(space: spaces.Space, sizes: ModelConfig, activation_fn: type[nn.Module]) -> Actor:
    """An actor for actions of a space."""
    choices, latent_dim, head = num_choices(space), sizes.latent_dim, sizes.head_arch
    if not choices:
        return BoundedActor(latent_dim, action_code(space).dim, head, activation_fn)
    return CategoricalActor(latent_dim, choices, head, activation_fn)


def build_features(
    space: spaces.Space,
    extractor_class: type[BaseFeaturesExtractor] | None,
    extractor_kwargs: dict[str, Any] | None,
    normalize_images: bool,
) -> PartFeatures | ExtractorFeatures | None:
    """What an extractor of SB3's kind sees; without one, images and Dict spaces have features of ours, vectors need none.
    ``ValueError`` for a class that is no extractor."""
    if extractor_class is None:
        for part in space.spaces.values() if isinstance(space, spaces.Dict) else [space]:
            _tell_of_flat_images(part, normalize_images)
        needed = isinstance(space, spaces.Dict) or is_image(space, normalize_images)
        return PartFeatures(space, normalize_images) if needed else None
    if not (isinstance(extractor_class, type) and issubclass(extractor_class, BaseFeaturesExtractor)):
        raise ValueError(
            f"features_extractor_class must be a subclass of stable_baselines3's BaseFeaturesExtractor, "
            f"got {extractor_class!r}"
        )
    return ExtractorFeatures(space, extractor_class, extractor_kwargs or {}, normalize_images)


def _tell_of_flat_images(space: spaces.Space, normalize_images: bool) -> None:
    """Warn of what looks like an image and is not taken for one: without convolutions it becomes millions of weights."""
    sides = sorted(space.shape or ())[-2:]
    if (
        len(sides) < 2
        or sides[0] < _SMALLEST_IMAGE
        or not isinstance(space, spaces.Box)
        or is_image(space, normalize_images)
    ):
        return
    if len(space.shape) == 3:
        way_out = "give bytes from 0 to 255, or policy_kwargs=dict(normalize_images=False) for floats as they are"
    elif len(space.shape) == 2:
        way_out = "add a channel: gymnasium.wrappers.GrayscaleObservation(env, keep_dim=True), or TransformObservation"
    else:
        way_out = "stack frames along the channels: stable_baselines3's VecFrameStack, or TransformObservation"
    warnings.warn(
        f"observations {space.shape} of {space.dtype} look like images, but are flattened, for an image has three axes and "
        f"bytes from 0 to 255: {way_out}",
        stacklevel=3,
    )
