"""How many steps lead from one latent to another, learned from stored episodes: a cost of plans that knows the way round."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_agent.model.blocks import mlp
from jepa_agent.tensor_ops import polyak_update

GAMMA, EXPECTILE = 0.98, 0.1
_NEAR, _PAIRS_PER_UPDATE = 10, 512
_FAR = 30.0


class StepsToGo(nn.Module):
    """How many steps, discounted, lead from one latent to another: ``(1 - gamma^steps) / (1 - gamma)``.

    It is not symmetric and, unlike a distance in latent space, it leads round the wall.

    Args:
        latent_dim: Size D of latents.
    """

    def __init__(self, latent_dim: int):
        super().__init__()
        self.net = mlp(2 * latent_dim, (128, 128), 1)
        # Everything begins far off: what was done says that it is nearer, which is learned faster than that it is farther.
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, _FAR)

    def forward(self, z: Tensor, goal: Tensor) -> Tensor:
        """From latents ``(..., D)`` to a goal of a shape that fits them: ``(...)``."""
        return F.softplus(self.net(torch.cat([z, goal.expand_as(z)], dim=-1)).squeeze(-1))


def fit_steps_to_go(z: Tensor, after: Tensor, ended: np.ndarray, updates: int, seed: int) -> StepsToGo:
    """Learn steps to go from stored episodes, without rewards and without regard to who acted.

    Any later or earlier latent of an episode serves as its goal. It is no farther than the steps that were taken to it, and
    than one step and the way from there. The expectile below the mean stands for the best action that was taken nearby
    (IQL, 2110.06169; for goals without actions HIQL, 2307.11949).

    Args:
        z: Latents ``(M, D)`` before M consecutive steps.
        after: Latents ``(M, D)`` after them.
        ended: Bool ``(M,)``: after which of them an episode ended.
        updates: Steps of Adam.
        seed: Of the network and the draws.
    """
    torch.manual_seed(seed)
    rng, count = np.random.default_rng(seed), len(z)
    episode = np.cumsum(ended) - ended
    first, last = np.searchsorted(episode, episode, "left"), np.searchsorted(episode, episode, "right") - 1
    net = StepsToGo(z.shape[-1])
    target, optimizer = deepcopy(net), torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(updates):
        step = rng.integers(count, size=_PAIRS_PER_UPDATE)
        # Half of the goals lie within a few steps: about the arrival they decide.
        near = np.clip(step + rng.integers(-_NEAR, _NEAR + 1, len(step)), first[step], last[step])
        goal = np.where(rng.random(len(step)) < 0.5, near, rng.integers(first[step], last[step] + 1))
        with torch.no_grad():
            # The goal is the latent after step `goal`, so that the step after that one starts there and needs none.
            taken = torch.from_numpy(np.where(goal >= step - 1, goal - step + 1, np.inf)).float()
            answer = torch.minimum(1.0 + GAMMA * target(after[step], after[goal]), (1.0 - GAMMA**taken) / (1.0 - GAMMA))
        error = answer - net(z[step], after[goal])
        loss = (torch.where(error > 0, EXPECTILE, 1.0 - EXPECTILE) * error.square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        polyak_update(list(net.parameters()), list(target.parameters()), 0.02)
    return net.requires_grad_(False)
