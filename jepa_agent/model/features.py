"""Features of observations that are more than one vector: images, several parts by name, or what a user's extractor sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first, preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from jepa_agent.model.blocks import Chain, RunningNorm, mlp
from jepa_agent.model.encoders import VectorObservation, on_sphere
from jepa_agent.types import Observations

_CELLS = 16  # of the shorter side after the first convolution
_SHIFT = 4
_BLOCK = 128  # images at a time


class Features(nn.Module, ABC):
    """Raw observations of a space, ``(B, *obs_shape)`` or a dictionary of such, to features ``(B, features_dim)``."""

    features_dim: int

    def __init__(self, space: spaces.Space):
        super().__init__()
        self.space = space

    @abstractmethod
    def forward(self, obs: Observations) -> Tensor:
        """Features; while training, of randomly shifted images."""

    def observe(self, obs: Observations) -> None:
        """Take raw observations ``(B, ...)`` into running scales."""


class PartFeatures(Features):
    """Images go through convolutions of their own each; all else becomes one vector, standardised as it comes in."""

    def __init__(self, space: spaces.Space, normalize_images: bool = True):
        super().__init__(space)
        parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}
        self.image_keys = [key for key, part in parts.items() if is_image(part, normalize_images)]
        self.vector_keys = [key for key in parts if key not in self.image_keys]
        # Lists, for keys may hold what names of modules may not.
        images = [ImageFeatures(parts[key], normalize_images) for key in self.image_keys]
        vectors = [VectorObservation(parts[key]) for key in self.vector_keys]
        self.images, self.vectors = nn.ModuleList(images), nn.ModuleList(vectors)
        vector_dim = sum(vector.dim for vector in vectors)
        self.norm = RunningNorm(vector_dim)
        self.features_dim = vector_dim + sum(image.features_dim for image in images)

    def forward(self, obs: Observations) -> Tensor:
        named = obs if isinstance(obs, dict) else {"": obs}
        features = [image(named[key]) for key, image in zip(self.image_keys, self.images, strict=True)]
        if self.vector_keys:
            features.append(self.norm(self._vector(named)))
        return torch.cat(features, dim=-1)

    def observe(self, obs: Observations) -> None:
        if self.vector_keys:
            self.norm.update(self._vector(obs if isinstance(obs, dict) else {"": obs}))

    def _vector(self, named: dict[str, Tensor]) -> Tensor:
        parts = zip(self.vector_keys, self.vectors, strict=True)
        return torch.cat([vector(named[key]) for key, vector in parts], dim=-1)


class ImageFeatures(nn.Module):
    """A small convolutional network: one look at patches that leaves some 16 of them along the shorter side, then halvings
    down to 4. Images have their channels first or last; those of bytes are brought to [-0.5, 0.5].

    While training, every image is shifted by up to 4 pixels of 64 each way, its edges repeated (DrQ: 2004.13649).
    """

    def __init__(self, space: spaces.Space, normalize: bool = True, channels: tuple[int, int] = (16, 32)):
        super().__init__()
        assert isinstance(space, spaces.Box)
        self.normalize, self.channels_last = normalize, not is_image_space_channels_first(space)
        shape = torch.zeros(space.shape)
        depth, *sides = (shape.permute(2, 0, 1) if self.channels_last else shape).shape
        patch = max(min(sides) // _CELLS, 1)
        self.shift = min(_SHIFT, min(sides) // _CELLS)
        cut = [(-side % patch + 1) // 2 for side in sides]  # no pixel falls off the edge
        layers: list[nn.Module] = [nn.Conv2d(depth, channels[0], patch, patch, (cut[0], cut[1])), nn.ReLU(inplace=True)]
        width, side = channels[0], min(sides) // patch
        while side > 4:
            layers += [nn.Conv2d(width, channels[1], 3, 2, 1), nn.ReLU(inplace=True)]
            width, side = channels[1], (side + 1) // 2
        self.net = Chain(*layers)
        with torch.no_grad():
            self.features_dim = self.net(torch.zeros(1, depth, *sides)).numel()

    def forward(self, image: Tensor) -> Tensor:
        if self.channels_last:
            image = image.permute(0, 3, 1, 2)
        if self.training and self.shift:
            image = shifted(image, self.shift)
        # A block at a time stays in the cache, which halves the time of many.
        return torch.cat([self.net(self._prepared(block)).flatten(1) for block in image.split(_BLOCK)])

    def _prepared(self, image: Tensor) -> Tensor:
        return (image - 127.5).mul_(1.0 / 255.0) if self.normalize else image.float()


class ExtractorFeatures(Features):
    """What one of SB3's features extractors makes of observations as SB3 prepares them: bytes divided by 255, choices as
    one-hot vectors."""

    def __init__(
        self,
        space: spaces.Space,
        extractor_class: type[BaseFeaturesExtractor],
        extractor_kwargs: dict[str, Any],
        normalize_images: bool = True,
    ):
        super().__init__(space)
        self.normalize_images = normalize_images
        self.extractor = extractor_class(space, **extractor_kwargs)
        self.features_dim = self.extractor.features_dim

    def forward(self, obs: Observations) -> Tensor:
        return self.extractor(preprocess_obs(obs, self.space, normalize_images=self.normalize_images))


class FeatureEncoder(nn.Module):
    """Raw observations, with any leading axes, by way of their features to latents on the sphere ``(..., D)``."""

    def __init__(
        self, features: Features, latent_dim: int, net_arch: Sequence[int], activation_fn: type[nn.Module] = nn.ReLU
    ):
        super().__init__()
        self.features = features
        self.net = mlp(features.features_dim, net_arch, latent_dim, activation_fn)

    def forward(self, obs: Observations) -> Tensor:
        flat, lead = _flat(obs, self.features.space)
        return on_sphere(self.net(self.features(flat))).reshape(*lead, -1)

    def observe(self, obs: Observations) -> None:
        """Take raw observations ``(B, ...)`` into the features' running scales."""
        self.features.observe(obs)


def is_image(space: spaces.Space, normalize_images: bool = True) -> bool:
    """Whether a space holds images as SB3 sees it: bytes from 0 to 255 with three axes; where images are not to be
    normalised, any Box with three axes."""
    return is_image_space(space, normalized_image=not normalize_images)


def shifted(image: Tensor, most: int) -> Tensor:
    """Images ``(B, C, H, W)``, each moved by up to ``most`` pixels either way along both axes, their edges repeated."""
    batch, _, height, width = image.shape
    rows, columns = (torch.arange(-most, side + most, device=image.device).clamp(0, side - 1) for side in (height, width))
    views = image[:, :, rows][..., columns].unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 2m+1, 2m+1, H, W)
    moved = torch.randint(2 * most + 1, (2, batch), device=image.device)
    return views[torch.arange(batch, device=image.device), :, moved[0], moved[1]]


def _flat(obs: Observations, space: spaces.Space) -> tuple[Observations, tuple[int, ...]]:
    """Observations with one leading axis in place of all they had, and those. Images may have their channels last where the
    space has them first, as SB3's wrapper makes it. ``ValueError`` for any other shape."""
    if isinstance(obs, dict):
        assert isinstance(space, spaces.Dict)
        parts = {key: _flat(obs[key], part) for key, part in space.spaces.items()}
        return {key: flat for key, (flat, _) in parts.items()}, next(iter(parts.values()))[1]  # type: ignore[misc]
    shape = space.shape or ()
    if len(shape) == 3 and obs.shape[-3:] != shape and obs.shape[-3:] == (*shape[1:], shape[0]):
        obs = obs.movedim(-1, -3)
    lead = tuple(obs.shape[: obs.dim() - len(shape)])
    if (*lead, *shape) != tuple(obs.shape):
        raise ValueError(f"observations must have the shape (..., {', '.join(map(str, shape))}), got {tuple(obs.shape)}")
    return obs.reshape(-1, *shape), lead
