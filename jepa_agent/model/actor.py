"""Mode-1: an action from a latent in one forward pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from jepa_agent.model.blocks import mlp
from jepa_agent.tensor_ops import from_blocks, one_hot, to_blocks

_OTHERS, _OTHERS_STD = 8, 0.5
_FEW = 32  # options, all of which may be looked at


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
        """Actions disturbed for exploration.

        Args:
            action: ``(..., A)``.
            std: Spread of the noise ``(..., 1)``; for choices the chance that each is random. There are as many draws as
                spreads: those of ``(N, 1)`` serve all rows of ``(B, N, A)``.
            generator: Of the noise.

        Returns:
            Actions ``(..., A)``.
        """

    def others(self, action: Tensor) -> Tensor:
        """What might be done instead of ``action`` ``(B, A)``: some actions near it, or all there are, ``(B, K, A)``; always
        the same for the same action."""
        spreads = torch.full((_OTHERS, 1), _OTHERS_STD, device=action.device)
        return self.explore(action.unsqueeze(1).expand(-1, _OTHERS, -1), spreads, torch.Generator().manual_seed(0))

    @abstractmethod
    def relaxed(self, output: Tensor, noise: float) -> Tensor:
        """An action that is differentiable in the actor and whose cost-to-go is what the actor may expect.

        Args:
            output: Of ``net``, ``(..., A)``.
            noise: Spread of the noise that smooths Box actions (TD3, 1802.09477); 0 is none.

        Returns:
            Actions ``(..., A)``; probabilities for one choice.
        """

    def expected(self, output: Tensor, cost_to_go: Callable[[Tensor], Tensor]) -> Tensor:
        """The cost-to-go that the actor may expect, differentiable in the actor.

        Args:
            output: Of ``net``, ``(B, A)``.
            cost_to_go: Costs-to-go ``(B,)`` of actions ``(B, A)``.

        Returns:
            Costs ``(B,)``.
        """
        return cost_to_go(self.relaxed(output, 0.0))

    def distillation_target(self, action: Tensor, mean: Tensor) -> Tensor:
        """What the actor is to imitate of a plan.

        Args:
            action: The plan's first action, ``(B, A)``.
            mean: The centre of the search's distribution for it, ``(B, A)``.

        Returns:
            Targets ``(B, A)``.
        """
        return mean

    @abstractmethod
    def imitation(self, output: Tensor, plan_mean: Tensor) -> Tensor:
        """How far the actor is from the actions that a planner found: but for constants, the Kullback-Leibler divergence of
        Gaussians that share one spread, or of categorical distributions.

        Args:
            output: Of ``net``, ``(B, A)``.
            plan_mean: What to imitate, ``(B, A)``.

        Returns:
            Distances ``(B,)``.
        """

    @abstractmethod
    def regularisation(self, output: Tensor) -> Tensor:
        """What keeps the actor from saturating, per row ``(B,)``."""


class BoundedActor(Actor):
    """Box actions in [-1, 1]: a deterministic tanh actor, smoothed by clipped Gaussian noise (TD3)."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.net(z))

    def explore(self, action: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
        shape = (*std.shape[:-1], self.action_dim)
        noise = torch.randn(shape, generator=generator, device=generator.device).to(action.device)
        return (action + std * noise).clamp(-1.0, 1.0)

    def relaxed(self, output: Tensor, noise: float) -> Tensor:
        action = torch.tanh(output)
        if noise > 0.0:
            # Clipped at two standard deviations, so that the critic is asked about actions near the actor's only.
            jitter = (torch.randn_like(action) * noise).clamp(-2.0 * noise, 2.0 * noise)
            action = (action + jitter).clamp(-1.0, 1.0)
        return action

    def imitation(self, output: Tensor, plan_mean: Tensor) -> Tensor:
        # After the tanh: a plan may lie on the bounds, where the inverse is infinite.
        return (torch.tanh(output) - plan_mean).square().mean(-1)

    def regularisation(self, output: Tensor) -> Tensor:
        return output.square().mean(-1)


class CategoricalActor(Actor):
    """One choice, as a one-hot vector: a categorical actor whose expectations are exact sums over the actions."""

    def forward(self, z: Tensor) -> Tensor:
        return one_hot(self.net(z).argmax(-1), self.action_dim)

    def explore(self, action: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
        # A spread of s means: with probability s, any action instead of this one.
        swap = torch.rand(std.shape, generator=generator, device=generator.device).to(std.device) < std
        other = torch.randint(self.action_dim, std.shape[:-1], generator=generator, device=generator.device)
        return torch.where(swap, one_hot(other.to(action.device), self.action_dim), action)

    def others(self, action: Tensor) -> Tensor:
        if self.action_dim > _FEW:
            return super().others(action)
        return torch.eye(self.action_dim, device=action.device).expand(len(action), -1, -1)

    def relaxed(self, output: Tensor, noise: float) -> Tensor:
        return output.softmax(-1)  # a cost-to-go is linear in the probabilities of choices, so nothing needs smoothing

    def imitation(self, output: Tensor, plan_mean: Tensor) -> Tensor:
        return -(plan_mean * output.log_softmax(-1)).sum(-1)

    def regularisation(self, output: Tensor) -> Tensor:
        log_prob = output.log_softmax(-1)
        return (log_prob.exp() * log_prob).sum(-1)


class FactoredActor(Actor):
    """Several choices at once, one-hot vectors side by side: a categorical for each, independent given the latent.

    What one choice is worth depends on the others, so the cost-to-go takes all of them in, and an exact expectation would
    have to name every combination. It is drawn from instead, in one-hot vectors such as the cost-to-go was trained on. The
    slope is the score function's, each of two draws being the other's baseline (Kool et al., 2019, "Buy 4 REINFORCE
    samples, get a baseline for free!"): a straight-through slope (MR.Q) is that of the network between combinations,
    where the critic was never trained, and held the actor at wrong ones.
    """

    def __init__(
        self,
        latent_dim: int,
        num_choices: Sequence[int],
        net_arch: Sequence[int],
        activation_fn: type[nn.Module] = nn.ReLU,
    ):
        super().__init__(latent_dim, sum(num_choices), net_arch, activation_fn)
        self.num_choices = tuple(num_choices)
        self.widest = max(num_choices)

    def forward(self, z: Tensor) -> Tensor:
        return self._likeliest(self._logits(self.net(z)))

    def explore(self, action: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
        # As for one choice, each by itself.
        shape, device = (*std.shape[:-1], len(self.num_choices)), generator.device
        swap = torch.rand(shape, generator=generator, device=device).to(std.device) < std
        sizes = torch.tensor(self.num_choices, device=device)
        other = (torch.rand(shape, generator=generator, device=device) * sizes).long().to(action.device)
        chosen = to_blocks(action, self.num_choices, fill=0.0)
        swapped = torch.where(swap.unsqueeze(-1), one_hot(other, self.widest), chosen)
        return from_blocks(swapped, self.num_choices)

    def relaxed(self, output: Tensor, noise: float) -> Tensor:
        return from_blocks(self._drawn(self._logits(output)), self.num_choices)

    def expected(self, output: Tensor, cost_to_go: Callable[[Tensor], Tensor]) -> Tensor:
        logits = self._logits(output)
        # Two draws, each the other's baseline: the difference of costs times that of log-probabilities.
        cost, log_prob = [], []
        for _ in range(2):
            drawn = self._drawn(logits)
            with torch.no_grad():
                cost.append(cost_to_go(from_blocks(drawn, self.num_choices)))
            log_prob.append((drawn * logits.log_softmax(-1)).sum((-2, -1)))
        slope = 0.5 * (cost[0] - cost[1]) * (log_prob[0] - log_prob[1])
        return 0.5 * (cost[0] + cost[1]) + slope - slope.detach()

    def distillation_target(self, action: Tensor, mean: Tensor) -> Tensor:
        # Likely options of each choice need not be a likely combination.
        return action

    def imitation(self, output: Tensor, plan_mean: Tensor) -> Tensor:
        plan = to_blocks(plan_mean, self.num_choices, fill=0.0)
        return -(plan * self._logits(output).log_softmax(-1)).sum(-1).mean(-1)

    def regularisation(self, output: Tensor) -> Tensor:
        log_prob = self._logits(output).log_softmax(-1)
        return (log_prob.exp() * log_prob).sum(-1).mean(-1)

    def _drawn(self, logits: Tensor) -> Tensor:
        return one_hot(torch.distributions.Categorical(logits=logits, validate_args=False).sample(), self.widest)

    def _likeliest(self, blocks: Tensor) -> Tensor:
        return from_blocks(one_hot(blocks.argmax(-1), self.widest), self.num_choices)

    def _logits(self, output: Tensor) -> Tensor:
        """One row per choice, ``(..., K, widest)``; what is no option has no chance. Finite, or 0 * log 0 would be NaN."""
        return to_blocks(output, self.num_choices, fill=-1e9)
