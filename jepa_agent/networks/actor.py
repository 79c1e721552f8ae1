"""Mode-1: an action from a latent in one forward pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from jepa_agent.networks.blocks import mlp
from jepa_agent.tensor_ops import one_hot


class Actor(nn.Module):
    """Latents ``(..., D)`` to actions ``(..., A)``: a perceptron whose outputs a subclass reads as a distribution."""

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
    def expectation(self, z: Tensor, value_fn: Callable[[Tensor, Tensor], Tensor], noise: float) -> Tensor:
        """Expected ``value_fn(z, action) -> (E, B)`` under the actor, differentiable in the actor: ``(E, B)``."""

    @abstractmethod
    def plan_value(self, z: Tensor, plan_mean: Tensor, value_fn: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Expected ``value_fn(z, action) -> (E, B)`` under what a planner found, ``(B, A)``: ``(E, B)``."""

    @abstractmethod
    def imitation(self, z: Tensor, plan_mean: Tensor) -> Tensor:
        """How far the actor is from the actions a planner found, per row ``(B,)``, differentiable in the actor."""

    @abstractmethod
    def regularisation(self, z: Tensor) -> Tensor:
        """What keeps the actor from saturating, per row ``(B,)``."""


class BoundedActor(Actor):
    """Box actions in [-1, 1]: a deterministic tanh actor, smoothed by clipped Gaussian noise (TD3)."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.net(z))

    def explore(self, action: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(action.shape, generator=generator, device=generator.device).to(action.device)
        return (action + std * noise).clamp(-1.0, 1.0)

    def expectation(self, z: Tensor, value_fn: Callable[[Tensor, Tensor], Tensor], noise: float) -> Tensor:
        action = self(z)
        if noise > 0.0:
            jitter = (torch.randn_like(action) * noise).clamp(-2.0 * noise, 2.0 * noise)
            action = (action + jitter).clamp(-1.0, 1.0)
        return value_fn(z, action)

    def plan_value(self, z: Tensor, plan_mean: Tensor, value_fn: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return value_fn(z, plan_mean)

    def imitation(self, z: Tensor, plan_mean: Tensor) -> Tensor:
        return (self(z) - plan_mean).square().mean(-1)

    def regularisation(self, z: Tensor) -> Tensor:
        return self.net(z).square().mean(-1)


class CategoricalActor(Actor):
    """Discrete actions as one-hot vectors: a categorical actor whose expectations are exact sums over the actions."""

    def forward(self, z: Tensor) -> Tensor:
        return one_hot(self.net(z).argmax(-1), self.action_dim)

    def explore(self, action: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
        # A spread of s means: with probability s, any action instead of this one.
        swap = torch.rand(std.shape, generator=generator, device=generator.device).to(std.device) < std
        other = torch.randint(self.action_dim, action.shape[:-1], generator=generator, device=generator.device)
        return torch.where(swap, one_hot(other.to(action.device), self.action_dim), action)

    def expectation(self, z: Tensor, value_fn: Callable[[Tensor, Tensor], Tensor], noise: float) -> Tensor:
        return self.plan_value(z, self.net(z).softmax(-1), value_fn)

    def plan_value(self, z: Tensor, plan_mean: Tensor, value_fn: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        # A value function knows one-hot actions only, so probabilities weigh its answers and are never shown to it.
        batch, n = z.shape[0], self.action_dim
        every = torch.eye(n, device=z.device).repeat(batch, 1)
        values = value_fn(z.repeat_interleave(n, dim=0), every).unflatten(-1, (batch, n))
        return (plan_mean * values).sum(-1)

    def imitation(self, z: Tensor, plan_mean: Tensor) -> Tensor:
        return -(plan_mean * self.net(z).log_softmax(-1)).sum(-1)

    def regularisation(self, z: Tensor) -> Tensor:
        log_prob = self.net(z).log_softmax(-1)
        return (log_prob.exp() * log_prob).sum(-1)
