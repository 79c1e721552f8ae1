"""What a replay buffer tells of the task: observations from all over it and what their latents are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from jepa_agent.environments.observations import check_given
from jepa_agent.learning.replay_buffer import SequenceReplayBuffer
from jepa_agent.model.encoders import random_latents
from jepa_agent.objectives.costs import Experience
from jepa_agent.policy import JEPAPolicy

_WINDOWS, _BLOCK = 4_000, 500


@torch.no_grad()
def gather_experience(
    policy: JEPAPolicy, buffer: SequenceReplayBuffer, normalizer: VecNormalize | None, reach: int
) -> Experience:
    """Observations from all over the replay buffer and their latents; without any, latents drawn from the whole sphere.

    Each window gives two: one encoded as it was met, and one of the next ``reach`` steps, imagined along the actions taken.
    Errors of imagination add up in one direction, so that an imagined latent means something else than the same latent
    encoded; the observation that followed says what.

    Args:
        policy: Encodes and imagines.
        buffer: What was experienced.
        normalizer: Normalises observations, if any does.
        reach: Steps to imagine at most.
    """
    space: spaces.Space = policy.observation_space

    def encode(obs: Any) -> Tensor:
        check_given(obs, space, "an observation")
        seen, _ = policy.obs_to_tensor(obs if normalizer is None else normalizer.normalize_obs(obs))
        return policy.world_model.encode(seen)

    if buffer.size() <= 1:
        return Experience(None, any_latents(policy, _WINDOWS), encode)
    ages, envs = buffer.spread(_WINDOWS)
    drawn = torch.rand(len(ages), generator=torch.Generator().manual_seed(0)).to(policy.device)
    blocks = [slice(first, first + _BLOCK) for first in range(0, len(ages), _BLOCK)]
    pairs = [_met_and_imagined(policy, buffer, normalizer, ages[b], envs[b], reach, drawn[b]) for b in blocks]
    met, z = [obs for obs, _ in pairs], torch.cat([latents for _, latents in pairs])
    if isinstance(met[0], dict):
        return Experience({key: np.concatenate([part[key] for part in met]) for key in met[0]}, z, encode)
    return Experience(np.concatenate(met), z, encode)


def any_latents(policy: JEPAPolicy, n: int) -> Tensor:
    """Latents ``(n, D)`` drawn from all there are, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return random_latents(n, policy.sizes.latent_dim, generator, torch.device("cpu")).to(policy.device)


def _met_and_imagined(
    policy: JEPAPolicy,
    buffer: SequenceReplayBuffer,
    normalizer: VecNormalize | None,
    ages: np.ndarray,
    envs: np.ndarray,
    reach: int,
    drawn: Tensor,
) -> tuple[Any, Tensor]:
    """Two observations as the environment gave them, and their latents, of each of B windows: the first one's, encoded,
    and a later one's, imagined from the first; which one is ``drawn`` ``(B,)`` from [0, 1)."""
    model = policy.world_model
    seen = buffer.window(ages, envs, reach, env=normalizer, past=model.past_size)
    z = model.imagine(model.observe(seen, 0, 1)[:, 0], seen.action)
    later = 1 + (drawn * seen.mask.sum(1)).long()  # before the episode's end
    row = torch.arange(len(z), device=z.device).repeat_interleave(2)
    step = torch.stack([torch.zeros_like(later), later], dim=1).flatten()
    met = buffer.window(ages, envs, reach).obs[row, step]
    obs = {key: part.cpu().numpy() for key, part in met.items()} if isinstance(met, dict) else met.cpu().numpy()
    return obs, z[row, step]
