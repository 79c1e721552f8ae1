"""How many steps lead from one latent to another, learned in imagination: a cost of plans that knows the way round."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_agent.model.blocks import mlp
from jepa_agent.model.world_model import WorldModel
from jepa_agent.tensor_ops import polyak_update

GAMMA = 0.98
_NEAR, _PAIRS_PER_UPDATE, _OPTIONS, _WALK = 10, 256, 8, 12
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


def fit_steps_to_go(model: WorldModel, z: Tensor, after: Tensor, ended: np.ndarray, updates: int, seed: int) -> StepsToGo:
    """Learn steps to go by value iteration in a world model, from where stored episodes came, without rewards.

    Any latent of an episode serves as the goal of any other, and of what is imagined from it along random actions: there lie
    the ways that were never taken. A goal is one step farther than it is after the best of some actions drawn anew, and no
    farther than the steps that were taken to it. It is reached within half the mean square of a step.

    Args:
        model: Imagines; left as it is.
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
    reached = 0.5 * (after - z).square().mean()
    net = StepsToGo(z.shape[-1])
    target, optimizer = deepcopy(net), torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(updates):
        step = rng.integers(count, size=_PAIRS_PER_UPDATE)
        # Half of the goals lie within a few steps: about the arrival they decide.
        near = np.clip(step + rng.integers(-_NEAR, _NEAR + 1, len(step)), first[step], last[step])
        goal = np.where(rng.random(len(step)) < 0.5, near, rng.integers(first[step], last[step] + 1))
        with torch.no_grad():
            # Half of the starts have walked on in imagination.
            walked = torch.rand(len(step)) < 0.5
            start = torch.where(walked[:, None], _walk(model, z[step], int(rng.integers(_WALK))), z[step])
            options = 2.0 * torch.rand(len(step), _OPTIONS, model.action_dim) - 1.0
            options = torch.where(torch.rand(len(step), _OPTIONS, 1) < 0.7, _at_the_bounds(options), options)
            reachable = model.predict(start.unsqueeze(1).expand(-1, _OPTIONS, -1), options)
            goals = after[goal].unsqueeze(1)
            there = (reachable - goals).square().mean(-1) < reached
            # One network chooses, the other judges: the least of noisy answers is too low (van Hasselt et al., 1509.06461).
            best = torch.where(there, 0.0, net(reachable, goals)).argmin(1, keepdim=True)
            answer = 1.0 + GAMMA * torch.where(there, 0.0, target(reachable, goals)).gather(1, best).squeeze(1)
            # The goal is the latent after step `goal`, so that the step after that one starts there and needs none.
            taken = torch.from_numpy(np.where(goal >= step - 1, goal - step + 1, np.inf)).float()
            known = torch.where(walked, torch.inf, taken)
            answer = torch.minimum(answer, (1.0 - GAMMA**known) / (1.0 - GAMMA))
        loss = F.mse_loss(net(start, after[goal]), answer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        polyak_update(list(net.parameters()), list(target.parameters()), 0.02)
    return net.requires_grad_(False)


def _walk(model: WorldModel, z: Tensor, steps: int) -> Tensor:
    """Where random actions that change slowly lead from latents ``(B, D)``."""
    action = 2.0 * torch.rand(len(z), model.action_dim) - 1.0
    for _ in range(steps):
        z = model.predict(z, action)
        action = (action + 0.3 * torch.randn_like(action)).clamp(-1.0, 1.0)
    return z


def _at_the_bounds(action: Tensor) -> Tensor:
    """Actions ``(..., A)`` as long as the bounds let them be, in the same direction."""
    return action / action.abs().amax(-1, keepdim=True).clamp(min=1e-3)
