"""How bad a latent is now, how bad it will get, and whether the episode ends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jepa_agent.networks.blocks import EnsembleMLP, mlp


class CostModule(nn.Module):
    """Immediate cost and termination of a step, an ensemble of costs-to-go, and (optionally) a contrastive energy.

    Heads answer in *units of their own*, of order one whatever the reward scale; ``cost_scale`` (the root mean square of
    the costs seen so far) and ``1 / (1 - gamma)`` carry them to the units of -reward.
    """

    cost_scale: Tensor
    cost_square: Tensor
    cost_count: Tensor

    def __init__(
        self,
        latent_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        ensemble_size: int,
        gamma: float,
        activation_fn: type[nn.Module] = nn.ReLU,
        energy: bool = False,
    ):
        super().__init__()
        self.step_net = mlp(latent_dim + action_dim, net_arch, 2, activation_fn)
        self.cost_to_go_net = EnsembleMLP(ensemble_size, latent_dim + action_dim, net_arch, 1, activation_fn)
        self.energy_net = mlp(latent_dim, net_arch, 1, activation_fn) if energy else None
        self.effective_horizon = 1.0 / max(1.0 - gamma, 1e-3)
        self.register_buffer("cost_scale", torch.ones(()))
        self.register_buffer("cost_square", torch.zeros(()))
        self.register_buffer("cost_count", torch.zeros(()))

    def observe_cost(self, cost: Tensor) -> None:
        """Take costs ``(B,)`` into the running scale; as long as all were zero, it is one."""
        self.cost_count += cost.numel()
        self.cost_square += (cost.square().mean() - self.cost_square) * (cost.numel() / self.cost_count)
        self.cost_scale.copy_(torch.where(self.cost_square > 0, self.cost_square.sqrt(), 1.0))

    def step(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised immediate cost and termination logit, both ``(...)``."""
        cost, logit = self.step_net(torch.cat([z, action], dim=-1)).unbind(-1)
        return cost, logit

    def cost_to_go(self, z: Tensor, action: Tensor) -> Tensor:
        """Normalised cost-to-go of taking ``action`` in ``z`` and following the actor after: ``(B, .)`` to ``(E, B)``."""
        return self.cost_to_go_net(torch.cat([z, action], dim=-1)).squeeze(-1)

    def energy(self, z: Tensor) -> Tensor:
        """Energy ``(...)`` of latents: low where the agent has been, high elsewhere. Needs ``energy=True``."""
        if self.energy_net is None:
            raise ValueError("this cost module was built without an energy head: pass energy=True to have one")
        return self.energy_net(z).squeeze(-1)
