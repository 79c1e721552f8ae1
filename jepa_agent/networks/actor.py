"""Mode-1: an action from a latent in one forward pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jepa_agent.networks.blocks import mlp
from jepa_agent.tensor_ops import one_hot


class Actor(nn.Module):
    """Latents ``(..., D)`` to actions ``(..., A)``: a perceptron ``net`` whose ``output`` ``(..., A)`` a subclass reads as
    a distribution. Learning asks several things of one output, so the methods take it rather than the latent."""

    def __init__(self, latent_dim: int, action_dim: int, net_arch: Sequence[int], activation_fn: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.action_dim = action_dim
        self.net = mlp(latent_dim, net_arch, action_dim, activation_fn)

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """The action ``(..., A)`` it would take without exploring."""

    @abstractmethod
    def explore(self, action: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
        """``action`` ``(B, A)`` disturbed for exploration, with a spread ``std`` ``(B, 1)``."""

    @abstractmethod
    def relaxed(self, output: Tensor, noise: float) -> Tensor:
        """An action ``(..., A)``, differentiable in the actor, whose cost-to-go is what the actor may expect."""

    @abstractmethod
    def imitation(self, output: Tensor, plan_mean: Tensor) -> Tensor:
        """How far the actor is from the actions ``(B, A)`` a planner found, per row ``(B,)``."""

    @abstractmethod
    def regularisation(self, output: Tensor) -> Tensor:
        """What keeps the actor from saturating, per row ``(B,)``."""


class BoundedActor(Actor):
    """Box actions in [-1, 1]: a deterministic tanh actor, smoothed by clipped Gaussian noise (TD3)."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.net(z))

    def explore(self, action: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(action.shape, generator=generator, device=generator.device).to(action.device)
        return (action + std * noise).clamp(-1.0, 1.0)

    def relaxed(self, output: Tensor, noise: float) -> Tensor:
        action = torch.tanh(output)
        if noise > 0.0:
            jitter = (torch.randn_like(action) * noise).clamp(-2.0 * noise, 2.0 * noise)
            action = (action + jitter).clamp(-1.0, 1.0)
        return action

    def imitation(self, output: Tensor, plan_mean: Tensor) -> Tensor:
        return (torch.tanh(output) - plan_mean).square().mean(-1)

    def regularisation(self, output: Tensor) -> Tensor:
        return output.square().mean(-1)


class CategoricalActor(Actor):
    """Discrete actions as one-hot vectors: a categorical actor whose expectations are exact sums over the actions."""

    def forward(self, z: Tensor) -> Tensor:
        return one_hot(self.net(z).argmax(-1), self.action_dim)

    def explore(self, action: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
        # A spread of s means: with probability s, any action instead of this one.
        swap = torch.rand(std.shape, generator=generator, device=generator.device).to(std.device) < std
        other = torch.randint(self.action_dim, action.shape[:-1], generator=generator, device=generator.device)
        return torch.where(swap, one_hot(other.to(action.device), self.action_dim), action)

    def relaxed(self, output: Tensor, noise: float) -> Tensor:
        return output.softmax(-1)  # a cost-to-go is linear in the probabilities of choices, so nothing needs smoothing

    def imitation(self, output: Tensor, plan_mean: Tensor) -> Tensor:
        return -(plan_mean * output.log_softmax(-1)).sum(-1)

    def regularisation(self, output: Tensor) -> Tensor:
        log_prob = output.log_softmax(-1)
        return (log_prob.exp() * log_prob).sum(-1)
