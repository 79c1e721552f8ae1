"""How bad a latent is now, how bad it will get, and whether the episode ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_agent.model.blocks import EnsembleMLP, mlp
from jepa_agent.tensor_ops import HUGE


class CostToGo(nn.Module, ABC):
    """The critic: an ensemble of costs-to-go, in units of its own, which `CostModule` carries to those of -reward.

    A subclass says how latents and actions are put together; one that answers with more than a number, as a categorical
    critic does, overrides `loss`, too. Whoever owns the world model chooses the class (`JEPAPolicy`'s ``critic_class``).

    Args:
        latent_dim: Size D of the latent.
        action_dim: Size A of the action.
        net_arch: Hidden widths of each member.
        ensemble_size: Number E of members.
        activation_fn: Between the layers.
    """

    norm_every_layer: ClassVar[bool] = False

    def __init__(
        self,
        latent_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        ensemble_size: int,
        activation_fn: type[nn.Module] = nn.ReLU,
    ):
        super().__init__()
        self.action_dim = action_dim
        input_dim, output_dim = self.sizes(latent_dim, action_dim)
        self.net = EnsembleMLP(ensemble_size, input_dim, net_arch, output_dim, activation_fn, self.norm_every_layer)

    @staticmethod
    @abstractmethod
    def sizes(latent_dim: int, action_dim: int) -> tuple[int, int]:
        """Inputs and outputs of each member's network.

        Args:
            latent_dim: Size D of the latent.
            action_dim: Size A of the action.
        """

    @abstractmethod
    def members(self, z: Tensor, action: Tensor) -> Tensor:
        """What each member expects of taking an action and following the actor afterwards.

        Args:
            z: Latents ``(B, D)``, or rows of its own for every member, ``(E, B, D)``.
            action: ``(B, A)``, or ``(E, B, A)``.

        Returns:
            Costs ``(E, B)`` in the critic's own units.
        """

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        """As `members`."""
        return self.members(z, action)

    def expected(self, z: Tensor, action: Tensor) -> Tensor:
        """What the ensemble expects in the mean ``(B,)``."""
        return self.members(z, action).mean(0)

    def loss(self, z: Tensor, action: Tensor, target: Tensor, members_per_row: int = 2) -> Tensor:
        """Huber loss of the costs-to-go of actions, averaged over the members that see a row.

        Args:
            z: Latents ``(B, D)``.
            action: Actions taken there, ``(B, A)``.
            target: Costs-to-go to learn, ``(B,)`` in the critic's own units; no gradient flows into them.
            members_per_row: By how many members each row is seen.

        Returns:
            Losses ``(B,)``.
        """
        found = self.forward_subsampled(z, action, members_per_row)
        return F.smooth_l1_loss(found, target.detach().expand_as(found), reduction="none").mean(0)

    def forward_subsampled(self, z: Tensor, action: Tensor, members_per_row: int) -> Tensor:
        """As `members`, but each row is evaluated by some of the members only.

        Averaged over rows that says what all of them would, for a fraction of the work; and members trained on different
        rows differ more, which is what their disagreement is used for.

        Args:
            z: Latents ``(B, D)``.
            action: Actions ``(B, A)``.
            members_per_row: By how many members each row is evaluated, at most E.

        Returns:
            Costs ``(members_per_row, B)`` in the critic's own units.
        """
        size, members = z.shape[0], self.net.ensemble_size
        count, share = min(members_per_row, members), -(-size // members)

        def in_blocks(x: Tensor) -> Tensor:
            """Rows in ``members`` blocks, laid end to end in a ring: member e gets blocks e, e+1, ..."""
            ring = F.pad(x, (0, 0, 0, members * share - size)) if members * share > size else x
            ring = torch.cat([ring, ring[: (count - 1) * share]]) if count > 1 else ring
            return ring.unfold(0, count * share, share).transpose(1, 2)

        found = self.members(in_blocks(z), in_blocks(action)).unflatten(1, (count, share))  # [e, i]: e on block e + i
        return torch.stack([found[:, i].roll(i, 0).flatten()[:size] for i in range(count)])

    def options(self, z: Tensor) -> Tensor:
        """What each member expects of every option of one choice.

        Args:
            z: Latents ``(B, D)``, or rows of its own for every member, ``(E, B, D)``.

        Returns:
            Costs ``(E, B, A)`` in the critic's own units.
        """
        one_hot = torch.eye(self.action_dim, device=z.device)
        return torch.stack([self.members(z, option.expand(*z.shape[:-1], -1)) for option in one_hot], dim=-1)

    def options_subsampled(self, z: Tensor) -> Tensor:
        """As `options`, but by one member for each row.

        Args:
            z: Latents ``(B, K, D)``: the K of a row are evaluated by the same member.

        Returns:
            Costs ``(B, K, A)`` in the critic's own units.
        """
        size, count, members = *z.shape[:2], self.net.ensemble_size
        share = -(-size // members)
        rows = F.pad(z, (0, 0, 0, 0, 0, members * share - size)).reshape(members, share * count, -1)
        return self.options(rows).reshape(members * share, count, -1)[:size]


class JointCostToGo(CostToGo):
    """For actions that are numbers: they go in beside the latent.

    An actor that follows the critic's slope finds where it is too steep. A LayerNorm after every layer bounds it, as in DroQ
    (2110.02034): HalfCheetah-v5 is not learned without.
    """

    norm_every_layer = True

    @staticmethod
    def sizes(latent_dim: int, action_dim: int) -> tuple[int, int]:
        return latent_dim + action_dim, 1

    def members(self, z: Tensor, action: Tensor) -> Tensor:
        return self.net(torch.cat([z, action], dim=-1)).squeeze(-1)


class PerActionCostToGo(CostToGo):
    """For actions that are choices: one answer for each, weighed by ``action``. A one-hot vector picks its own;
    probabilities give the exact expectation."""

    @staticmethod
    def sizes(latent_dim: int, action_dim: int) -> tuple[int, int]:
        return latent_dim, action_dim

    def members(self, z: Tensor, action: Tensor) -> Tensor:
        return (self.net(z) * action).sum(-1)

    def options(self, z: Tensor) -> Tensor:
        return self.net(z)


class CostModule(nn.Module):
    """Immediate cost and termination of a step, an ensemble of costs-to-go, and (optionally) a contrastive energy.

    Heads answer in *units of their own*, of order one whatever the reward scale; ``cost_scale`` (the root mean square of
    the costs seen so far) and ``1 / (1 - gamma)`` carry them to the units of -reward. Costs-to-go begin at ``value_offset``.
    """

    cost_scale: Tensor
    cost_mean: Tensor
    cost_square: Tensor
    cost_count: Tensor
    value_offset: Tensor

    def __init__(
        self,
        latent_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        cost_to_go: CostToGo,
        gamma: float,
        activation_fn: type[nn.Module] = nn.ReLU,
        energy: bool = False,
    ):
        super().__init__()
        self.step_net = mlp(latent_dim + action_dim, net_arch, 2, activation_fn)
        self.cost_to_go = cost_to_go
        self.energy_net = mlp(latent_dim, net_arch, 1, activation_fn) if energy else None
        self.effective_horizon = 1.0 / max(1.0 - gamma, 1e-3)
        self.register_buffer("cost_scale", torch.ones(()))
        self.register_buffer("cost_mean", torch.zeros(()))
        self.register_buffer("cost_square", torch.zeros(()))
        self.register_buffer("cost_count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("value_offset", torch.zeros(()))

    def observe_cost(self, cost: Tensor, unit: float = 1.0) -> None:
        """Take costs ``(B,)`` into the running scale; as long as all were zero, it is one.

        Args:
            cost: As the environment gives them.
            unit: What they are divided by when they are sampled, as `VecNormalize` does by a deviation of its own, which
                changes: the scale is that of what is sampled now.
        """
        cost = cost.clamp(-HUGE, HUGE)  # their squares must add up to numbers still
        self.cost_count += cost.numel()
        share = cost.numel() / self.cost_count
        self.cost_mean += (cost.mean() - self.cost_mean) * share
        self.cost_square += (cost.square().mean() - self.cost_square) * share
        self.cost_scale.copy_(torch.where(self.cost_square > 0, self.cost_square.sqrt() / unit, 1.0))

    def begin_values(self) -> None:
        """Let costs-to-go begin at the better of ending now, 0, and going on for ever at the mean cost so far.

        It is optimistic, so that what was not tried looks worth trying; and rewards of any positive offset need not be
        learned step by step. To be called before the first update.
        """
        mean = self.cost_mean * self.cost_scale / self.cost_square.sqrt().clamp(min=1e-30)  # in what is sampled
        self.value_offset.copy_(self.effective_horizon * mean.clamp(max=0.0))

    def step(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Immediate cost and termination of a step, as the networks answer.

        Args:
            z: Latents ``(..., D)``.
            action: Actions ``(..., A)``.

        Returns:
            Cost in units of ``cost_scale`` and termination logit, both ``(...)``.
        """
        cost, logit = self.step_net(torch.cat([z, action], dim=-1)).unbind(-1)
        return cost, logit

    def energy(self, z: Tensor) -> Tensor:
        """Energy of latents: low where the agent has been, high elsewhere.

        Args:
            z: Latents ``(..., D)``.

        Returns:
            Energies ``(...)`` without unit.

        Raises:
            ValueError: The cost module was built without an energy head.
        """
        if self.energy_net is None:
            raise ValueError("this cost module was built without an energy head: pass energy=True to have one")
        return self.energy_net(z).squeeze(-1)
