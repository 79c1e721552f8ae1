"""The world model that fits an environment's spaces."""

from __future__ import annotations

import warnings
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from jepa_agent.config import ModelConfig
from jepa_agent.model.actor import Actor, BoundedActor, CategoricalActor, FactoredActor
from jepa_agent.model.cost import CostModule, JointCostToGo, PerActionCostToGo
from jepa_agent.model.encoders import Encoder, VectorObservation
from jepa_agent.model.features import ExtractorFeatures, FeatureEncoder, PartFeatures, is_image
from jepa_agent.model.memory import MemoryNetwork, make_memory
from jepa_agent.model.predictor import Predictor
from jepa_agent.model.world_model import WorldModel
from jepa_agent.spaces import action_code, num_choices

_SMALLEST_IMAGE = 16  # of the shorter side


def build_world_model(
    observation_space: spaces.Space,
    action_space: spaces.Space,
    sizes: ModelConfig,
    gamma: float,
    energy_weight: float = 0.0,
    activation_fn: type[nn.Module] = nn.ReLU,
    features: PartFeatures | ExtractorFeatures | None = None,
    memory: str | MemoryNetwork = "none",
) -> WorldModel:
    """A world model with fresh networks; without ``features``, observations are vectors."""
    body: dict[str, Any] = {"net_arch": sizes.net_arch, "activation_fn": activation_fn}
    head: dict[str, Any] = {"net_arch": sizes.head_arch, "activation_fn": activation_fn}
    latent_dim, action_dim = sizes.latent_dim, action_code(action_space).dim
    choices = num_choices(action_space)
    # One choice has an answer for each option; of several, one's worth depends on the others.
    cost_to_go_class = PerActionCostToGo if len(choices) == 1 else JointCostToGo
    observation: nn.Module
    encoder: Encoder | FeatureEncoder
    if features is None:
        observation = VectorObservation(observation_space)
        encoder = Encoder(observation.dim, latent_dim, **body)
    else:
        observation, encoder = nn.Identity(), FeatureEncoder(features, latent_dim, **body)
    return WorldModel(
        observation,
        encoder,
        Predictor(latent_dim, action_dim, **body),
        CostModule(
            latent_dim,
            action_dim,
            cost_to_go=cost_to_go_class(latent_dim, action_dim, ensemble_size=sizes.ensemble_size, **body),
            gamma=gamma,
            energy=energy_weight > 0,
            **head,
        ),
        _actor(latent_dim, choices or action_dim, **head),
        gamma=gamma,
        energy_weight=energy_weight,
        memory=make_memory(memory, latent_dim, action_dim, sizes.memory_size),
    )


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


def _actor(latent_dim: int, actions: int | tuple[int, ...], **head: Any) -> Actor:
    """An actor for so many numbers, or for choices of so many options."""
    if isinstance(actions, int):
        return BoundedActor(latent_dim, actions, **head)
    if len(actions) == 1:
        return CategoricalActor(latent_dim, actions[0], **head)
    return FactoredActor(latent_dim, actions, **head)
