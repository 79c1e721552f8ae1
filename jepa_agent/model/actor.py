"""Mode-1: an action from a latent in one forward pass, and how that is improved."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_agent.model.blocks import mlp
from jepa_agent.tensor_ops import from_blocks, one_hot, to_blocks

_OTHERS, _OTHERS_STD = 8, 0.5
_FEW = 32  # options, all of which may be looked at
_COMPARED = 16  # options that are compared in one update
_LOG_STD = (-5.0, 2.0)  # of a Gaussian before the tanh
_FIRST_TEMPERATURE = 1e-3  # in units of the cost-to-go head
_TEMPERATURE_STEP = 1e-3  # largest change of the temperature's logarithm in one update


class Draw(NamedTuple):
    """Actions drawn from the actor's distribution."""

    action: Tensor  # (..., A) differentiable in the actor where actions are numbers
    expected: Tensor  # (..., A) of which a critic tells the expected cost-to-go: the action, or probabilities of one choice
    log_prob: Tensor  # (...) its log-density, per A-dimensional action; 0 for choices


class ImaginedCosts(NamedTuple):
    """What actions cost in imagination, in units of the cost-to-go head."""

    now: Tensor  # (...) by the critic alone
    mean: Tensor  # (...) mean over depths of imagined steps


class Improvement(NamedTuple):
    """A step towards cheaper actions."""

    loss: Tensor  # (B,) differentiable in the actor
    cost_to_go: Tensor  # (B,) that the actor may expect by the critic alone, in units of the cost-to-go head
    entropy: Tensor  # (B,) of the actor's distribution, in nats


ImaginedCostFn = Callable[[Draw], ImaginedCosts]
"""Costs ``(B,)`` of actions ``(B, A)``, or ``(B, K)`` of actions ``(B, K, A)``, that a batch of latents may begin with."""


class Actor(nn.Module):
    """Latents ``(..., D)`` to a distribution over actions ``(..., A)``: a perceptron ``net``, whose ``output`` a subclass
    reads. Learning asks several things of one output, so the methods take it rather than the latent."""

    def __init__(
        self,
        latent_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module] = nn.ReLU,
        outputs: int | None = None,
    ):
        super().__init__()
        self.action_dim = action_dim
        self.net = mlp(latent_dim, net_arch, outputs or action_dim, activation_fn)

    def forward(self, z: Tensor) -> Tensor:
        """The action ``(..., A)`` it takes without exploring."""
        return self.mode(self.net(z))

    @abstractmethod
    def mode(self, output: Tensor) -> Tensor:
        """The action ``(..., A)`` at the distribution's centre, or the likeliest choices."""

    @abstractmethod
    def draw(self, output: Tensor, generator: torch.Generator | None = None) -> Draw:
        """Actions from the distribution.

        Args:
            output: Of ``net``.
            generator: Of the draws; None is torch's own.
        """

    @abstractmethod
    def improve(self, output: Tensor, cost_of: ImaginedCostFn, spread: Tensor) -> Improvement:
        """How to change towards actions that cost less.

        Args:
            output: Of ``net``, for latents ``(B, D)``.
            cost_of: Costs of actions to begin with, differentiable in numbers.
            spread: Of costs-to-go over states, ``()``: what the loss is expressed in.
        """

    def num_sequences(self, horizon: int) -> float:
        """How many sequences of options there are for a step and ``horizon`` more; infinitely many where actions are numbers
        or several choices, of which a critic does not answer for every option."""
        return math.inf

    @property
    def compares_at_random(self) -> bool:
        """Whether an update improves some of many choices, drawn anew each time."""
        return False

    @property
    def temperature(self) -> Tensor:
        """Price ``()`` of a nat of log-probability, in units of the cost-to-go head; 0 where entropy has no price."""
        return torch.zeros((), device=next(self.parameters()).device)

    def learn_temperature(self, entropy: Tensor) -> None:
        """Move the temperature, if there is one, towards the entropy ``()`` that is aimed at."""

    @abstractmethod
    def explored(self, action: Tensor, own: Tensor, drawn: Tensor) -> Tensor:
        """An action ``(B, A)``, which may be a plan's, with the deviation of the actor's draw from its ``own`` action."""

    @abstractmethod
    def explore(self, action: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
        """Actions disturbed by noise that is not the actor's own.

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
            output: Of ``net``, for latents ``(B, D)``.
            plan_mean: What to imitate, ``(B, A)``.

        Returns:
            Distances ``(B,)``.
        """

    @abstractmethod
    def regularisation(self, output: Tensor) -> Tensor:
        """What keeps the actor from saturating, per row ``(B,)``."""


class BoundedActor(Actor):
    """Box actions in [-1, 1]: a Gaussian through a tanh, whose entropy is held at a target by a learned temperature.

    Its loss is the cost along imagined steps, whose gradient runs through the world model back to the action, and the
    price of its log-probability. Source: SAC (Haarnoja et al., 1812.05905), with the imagined steps of SVG (1510.09142)
    and DHMBPO (2512.15439).
    """

    log_temperature: Tensor

    def __init__(self, latent_dim: int, action_dim: int, net_arch: Sequence[int], activation_fn: type[nn.Module] = nn.ReLU):
        super().__init__(latent_dim, action_dim, net_arch, activation_fn, outputs=2 * action_dim)
        self.register_buffer("log_temperature", torch.tensor(math.log(_FIRST_TEMPERATURE)))

    def mode(self, output: Tensor) -> Tensor:
        return torch.tanh(output[..., : self.action_dim])

    def draw(self, output: Tensor, generator: torch.Generator | None = None) -> Draw:
        mean, log_std = output.chunk(2, dim=-1)
        low, high = _LOG_STD
        log_std = low + 0.5 * (high - low) * (torch.tanh(log_std) + 1.0)
        device = generator.device if generator is not None else mean.device
        noise = torch.randn(mean.shape, generator=generator, device=device).to(mean)
        raw = mean + log_std.exp() * noise
        action = torch.tanh(raw)
        # log N(raw) - log |d tanh / d raw|, the latter in a form that does not overflow
        log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        log_prob = log_prob - 2.0 * (math.log(2.0) - raw - F.softplus(-2.0 * raw))
        return Draw(action, action, log_prob.sum(-1))

    def improve(self, output: Tensor, cost_of: ImaginedCostFn, spread: Tensor) -> Improvement:
        drawn = self.draw(output)
        now, mean = cost_of(drawn)
        loss = (mean + self.temperature * drawn.log_prob) / spread
        return Improvement(loss, now, -drawn.log_prob)

    @property
    def temperature(self) -> Tensor:
        return self.log_temperature.exp()

    @torch.no_grad()
    def learn_temperature(self, entropy: Tensor) -> None:
        # Towards -A nats, as in SAC; a step of bounded length, as Adam's on one number would be.
        excess = entropy + self.action_dim
        self.log_temperature -= _TEMPERATURE_STEP * excess.clamp(-1.0, 1.0)

    def explored(self, action: Tensor, own: Tensor, drawn: Tensor) -> Tensor:
        return (action + (drawn - own)).clamp(-1.0, 1.0)

    def explore(self, action: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
        shape = (*std.shape[:-1], self.action_dim)
        noise = torch.randn(shape, generator=generator, device=generator.device).to(action.device)
        return (action + std * noise).clamp(-1.0, 1.0)

    def imitation(self, output: Tensor, plan_mean: Tensor) -> Tensor:
        # After the tanh: a plan may lie on the bounds, where the inverse is infinite.
        return (self.mode(output) - plan_mean).square().mean(-1)

    def regularisation(self, output: Tensor) -> Tensor:
        return output[..., : self.action_dim].square().mean(-1)


class CategoricalActor(Actor):
    """One choice or several side by side, as one-hot vectors: a categorical distribution for each.

    It learns by a vote. For every row one member of the ensemble says which option costs least along imagined steps, the
    other choices being the likeliest, and the actor is taught to make that choice. Its probabilities become the shares of
    the votes: it is undecided where the members differ, so that drawing from it explores what is not known yet, as Thompson
    sampling does (Osband et al., 1602.04621), and needs no temperature.
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

    def mode(self, output: Tensor) -> Tensor:
        return self._likeliest(self._logits(output))

    def draw(self, output: Tensor, generator: torch.Generator | None = None) -> Draw:
        logits = self._logits(output)
        action = from_blocks(self._drawn(logits, generator), self.num_choices)
        # Of one choice the critic answers for every option, and is linear in probabilities: the expectation is exact.
        expected = output.softmax(-1) if len(self.num_choices) == 1 else action
        return Draw(action, expected, torch.zeros_like(output[..., 0]))

    def num_sequences(self, horizon: int) -> float:
        return self.widest ** (horizon + 1) if len(self.num_choices) == 1 else math.inf

    @property
    def compares_at_random(self) -> bool:
        return len(self.num_choices) > 1 and self.action_dim > _COMPARED

    def improve(self, output: Tensor, cost_of: ImaginedCostFn, spread: Tensor) -> Improvement:
        logits = self._logits(output)  # (B, K, widest)
        log_prob = logits.log_softmax(-1)
        with torch.no_grad():
            compared = self._compared(logits)
            likeliest = one_hot(logits.argmax(-1), self.widest)
            options = [self._with_option(likeliest, choice, option) for choice, option in compared]
            action = from_blocks(torch.cat(options, dim=1), self.num_choices)
            now, mean = cost_of(Draw(action, action, torch.zeros_like(action[..., 0])))
            sizes = [option.shape[1] for _, option in compared]
        votes, costs = [], []
        for (choice, option), each_now, each_mean in zip(compared, now.split(sizes, 1), mean.split(sizes, 1), strict=True):
            chance = log_prob[:, choice].gather(-1, option)  # (B, C) of the options compared
            votes.append(-chance.gather(-1, each_mean.argmin(-1, keepdim=True)).squeeze(-1))
            costs.append((chance.detach().softmax(-1) * each_now).sum(-1))
        entropy = -(log_prob.exp() * log_prob).sum((-2, -1)).detach()
        return Improvement(torch.stack(votes).mean(0), torch.stack(costs).mean(0), entropy)

    def explored(self, action: Tensor, own: Tensor, drawn: Tensor) -> Tensor:
        # A choice that was drawn otherwise than the actor's own is explored; the others stay as they are.
        action, own, drawn = (to_blocks(x, self.num_choices, fill=0.0) for x in (action, own, drawn))
        return from_blocks(torch.where((drawn != own).any(-1, keepdim=True), drawn, action), self.num_choices)

    def explore(self, action: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
        # A spread of s means: with probability s, any option instead of this one, for each choice by itself.
        shape, device = (*std.shape[:-1], len(self.num_choices)), generator.device
        swap = torch.rand(shape, generator=generator, device=device).to(std.device) < std
        sizes = torch.tensor(self.num_choices, device=device)
        other = (torch.rand(shape, generator=generator, device=device) * sizes).long().to(action.device)
        chosen = to_blocks(action, self.num_choices, fill=0.0)
        swapped = torch.where(swap.unsqueeze(-1), one_hot(other, self.widest), chosen)
        return from_blocks(swapped, self.num_choices)

    def others(self, action: Tensor) -> Tensor:
        if len(self.num_choices) > 1 or self.action_dim > _FEW:
            return super().others(action)
        return torch.eye(self.action_dim, device=action.device).expand(len(action), -1, -1)

    def distillation_target(self, action: Tensor, mean: Tensor) -> Tensor:
        # Likely options of each choice need not be a likely combination.
        return mean if len(self.num_choices) == 1 else action

    def imitation(self, output: Tensor, plan_mean: Tensor) -> Tensor:
        plan = to_blocks(plan_mean, self.num_choices, fill=0.0)
        return -(plan * self._logits(output).log_softmax(-1)).sum(-1).mean(-1)

    def regularisation(self, output: Tensor) -> Tensor:
        log_prob = self._logits(output).log_softmax(-1)
        return (log_prob.exp() * log_prob).sum(-1).mean(-1)

    def _compared(self, logits: Tensor) -> list[tuple[int, Tensor]]:
        """Choices to improve in this update and options ``(B, C)`` of each to compare: all of them if they are few, else
        some choices at random, and of a wide one some options by their probabilities and some at random."""
        count = len(self.num_choices)
        order = torch.randperm(count).tolist() if self.compares_at_random else range(count)
        compared: list[tuple[int, Tensor]] = []
        left = _COMPARED
        for choice in order:
            size = self.num_choices[choice]
            if compared and size > left:
                continue
            if size <= _COMPARED:
                option = torch.arange(size, device=logits.device).expand(len(logits), -1)
            else:
                likely = (logits + self._gumbel(logits))[:, choice, :size].topk(_COMPARED // 2, dim=-1).indices
                chance = torch.rand(len(logits), size, device=logits.device)
                option = chance.scatter(-1, likely, 2.0).topk(_COMPARED, dim=-1).indices
            compared.append((choice, option))
            left -= option.shape[1]
        return compared

    def _with_option(self, choices: Tensor, choice: int, option: Tensor) -> Tensor:
        """Choices ``(B, K, widest)`` with one of them replaced by each option ``(B, C)``: ``(B, C, K, widest)``."""
        each = choices.unsqueeze(1).repeat(1, option.shape[1], 1, 1)
        each[:, :, choice] = one_hot(option, self.widest)
        return each

    def _drawn(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One-hot draws ``(..., widest)`` by the Gumbel-max trick."""
        return one_hot((logits + self._gumbel(logits, generator)).argmax(-1), self.widest)

    @staticmethod
    def _gumbel(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Gumbel noise: the largest of logits and noise is a draw, the k largest are k draws without repetition."""
        device = generator.device if generator is not None else logits.device
        uniform = torch.rand(logits.shape, generator=generator, device=device).to(logits)
        return -(-uniform.clamp(min=1e-20).log()).clamp(min=1e-20).log()

    def _likeliest(self, blocks: Tensor) -> Tensor:
        return from_blocks(one_hot(blocks.argmax(-1), self.widest), self.num_choices)

    def _logits(self, output: Tensor) -> Tensor:
        """One row per choice, ``(..., K, widest)``; what is no option has no chance. Finite, or 0 * log 0 would be NaN."""
        return to_blocks(output, self.num_choices, fill=-1e9)
