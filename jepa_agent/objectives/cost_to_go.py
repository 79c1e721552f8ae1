"""The cost-to-go of a cost of the user's, learned in imagination: no step of an environment is taken."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_agent.interruption import poll
from jepa_agent.learning.steps import improve_actor
from jepa_agent.model.cost import CostToGo
from jepa_agent.model.world_model import WorldModel
from jepa_agent.objectives.costs import StepCosts
from jepa_agent.policy import JEPAPolicy
from jepa_agent.tensor_ops import pessimistic, polyak_update

_WALKS, _RANDOM, _RANDOM_STD = 64, 0.3, 1.0


@dataclass(frozen=True)
class FittedCostToGo:
    """Learns what follows a plan's end under a cost that was set, and an actor for it.

    A copy of the world model keeps perception and prediction. Its immediate cost, costs-to-go and actor are learned on walks
    of the new actor that begin at latents of the replay buffer and are imagined, each step at the new cost. An episode's end
    is told to it by costs less ``end_cost`` and none after an end, which is the same but for a constant. The agent itself
    stays as it is.

    Source: targets are lambda-returns along imagined walks, as in Dreamer (1912.01603); the critic is an ensemble of Q and
    the actor goes down imagined costs, as in learning.

    Args:
        num_updates: Updates of 64 walks each, each of 15 to 25 ms on one core.
        walk: Steps of a walk.
        trace: The lambda of the returns, in [0, 1].
        learning_rate: AdamW's step.
        tau: Step of the targets towards what is learned.

    Raises:
        ValueError: ``num_updates`` or ``walk`` is no whole number of at least 1, or another is out of range.
    """

    num_updates: int = 1_000
    walk: int = 8
    trace: float = 0.9
    learning_rate: float = 1e-3
    tau: float = 0.1

    def __post_init__(self) -> None:
        for name in ("num_updates", "walk"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {getattr(self, name)!r}")
        if not 0.0 <= self.trace <= 1.0:
            raise ValueError(f"trace must lie between 0 and 1, got {self.trace}")
        if not self.learning_rate > 0.0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not 0.0 < self.tau <= 1.0:
            raise ValueError(f"tau must lie above 0 and be at most 1, got {self.tau}")

    def fit(self, policy: JEPAPolicy, z: Tensor, steps: StepCosts, end_cost: float) -> WorldModel:
        """A world model that differs from the policy's by cost, costs-to-go and actor. Equal input gives equal output, and
        no other random number is drawn.

        Args:
            policy: Whose world model is copied.
            z: Latents ``(M, D)`` at which walks begin.
            steps: The cost of each step.
            end_cost: Cost of each step after an episode's end.
        """
        devices = [policy.device] if policy.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.enable_grad():
            torch.manual_seed(0)
            learner = _Learner(policy, z, steps, end_cost, self)
            for _ in range(self.num_updates):
                poll()
                learner.update(z[torch.randint(len(z), (_WALKS,), device=z.device)])
        return learner.model.requires_grad_(False).eval()


class _Learner:
    """Makes one update after the other."""

    def __init__(self, policy: JEPAPolicy, z: Tensor, steps: StepCosts, end_cost: float, how: FittedCostToGo):
        self.how, self.settings, self.steps, self.end_cost = how, policy.settings, steps, end_cost
        self.real, self.model = policy.world_model, _with_fresh_values(policy.world_model, policy.make_critic())
        self.target = deepcopy(self.model).requires_grad_(False)
        self.generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            _, _, cost, _ = self.imagined(z)
            for model in (self.model, self.target):
                model.cost_module.observe_cost(cost.flatten())
                model.cost_module.begin_values()
        heads, followed = (model.cost_module for model in (self.model, self.target))
        self.actor: list[Tensor] = list(self.model.actor.parameters())
        self.heads: list[Tensor] = [*heads.step_net.parameters(), *heads.cost_to_go.parameters()]
        self.followed: list[Tensor] = [
            *self.target.actor.parameters(),
            *followed.step_net.parameters(),
            *followed.cost_to_go.parameters(),
        ]
        self.optimizer = torch.optim.AdamW([*self.actor, *self.heads], lr=how.learning_rate)
        self.value_spread = torch.ones((), device=z.device)

    @torch.no_grad()
    def imagined(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Walks of the new actor from latents ``(B, D)``, some with a disturbed first action: latents ``(B, K+1, D)``,
        actions ``(B, K, A)``, costs ``(B, K)`` and probabilities of an end ``(B, K)``."""
        actor, latents, actions = self.model.actor, [z], list[Tensor]()
        for step in range(self.how.walk):
            action = actor.draw(actor.net(latents[-1])).action
            if step == 0:
                spreads = (torch.rand(len(z), 1) < _RANDOM).float().to(z.device) * _RANDOM_STD
                action = actor.explore(action, spreads, self.generator)
            actions.append(action)
            latents.append(self.model.predictor(latents[-1], action))
        walk, taken = torch.stack(latents, dim=1), torch.stack(actions, dim=1)
        return walk, taken, self.steps(walk, taken) - self.end_cost, self.real.cost(walk[:, :-1], taken).terminated

    def update(self, z: Tensor) -> None:
        """Learn from walks that begin at latents ``(B, D)``."""
        model, heads = self.model, self.model.cost_module
        walk, actions, cost, terminated = self.imagined(z)
        here, taken = walk[:, :-1].flatten(0, 1), actions.flatten(0, 1)
        self.optimizer.zero_grad()
        told, logit = heads.step(here, taken)
        loss = F.smooth_l1_loss(told, cost.flatten() / heads.cost_scale)
        loss = loss + F.binary_cross_entropy_with_logits(logit, terminated.flatten())
        answer = (self.returns(walk, cost, terminated).flatten() - heads.value_offset) / model.value_scale
        loss = loss + heads.cost_to_go.loss(here, taken, answer).mean()
        loss.backward(inputs=self.heads)
        some = walk[:, :: max(self.how.walk // 2, 1)].flatten(0, 1)
        weight = torch.ones_like(some[:, 0])
        output, improvement = improve_actor(model, self.target, some, weight, self.value_spread, self.settings.actor_horizon)
        regularisation = self.settings.regularisation_coef * model.actor.regularisation(output)
        (improvement.loss + regularisation).mean().backward(inputs=self.actor)
        self.optimizer.step()
        polyak_update([*self.actor, *self.heads], self.followed, self.how.tau)

    @torch.no_grad()
    def returns(self, walk: Tensor, cost: Tensor, terminated: Tensor) -> Tensor:
        """Costs-to-go ``(B, K)``: y_k = c_k + gamma (1 - P(end)_k) [(1 - trace) V_{k+1} + trace y_{k+1}], y_K = V_K."""
        target = self.target
        after = walk[:, 1:].flatten(0, 1)
        drawn = target.actor.draw(target.actor.net(after))
        members = target.cost_module.cost_to_go.forward_subsampled(after, drawn.expected, members_per_row=2)
        value = pessimistic(members, self.settings.pessimism) + self.model.actor.temperature * drawn.log_prob
        value = (target.cost_module.value_offset + value * target.value_scale).unflatten(0, cost.shape)
        discount, found, ahead = target.gamma * (1.0 - terminated), [], value[:, -1]
        for k in reversed(range(cost.shape[1])):
            ahead = torch.lerp(value[:, k], ahead, self.how.trace)
            ahead = cost[:, k] + discount[:, k] * ahead
            found.append(ahead)
        return torch.stack(found[::-1], dim=1)


def _with_fresh_values(model: WorldModel, critic: CostToGo) -> WorldModel:
    """A copy of a world model whose costs-to-go have learned nothing and whose scale of costs has seen nothing."""
    copied = deepcopy(model).requires_grad_(False)
    heads = copied.cost_module
    heads.cost_to_go = critic.to(model.device)
    for statistic in (heads.cost_mean, heads.cost_square, heads.cost_count):
        statistic.zero_()
    copied.energy_weight = 0.0
    for part in (heads.step_net, heads.cost_to_go, copied.actor):
        part.requires_grad_(True)
    return copied
