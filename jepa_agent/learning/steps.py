"""Losses of value and actor on sampled latents: `JEPA.train` is made of these. Nothing here changes a network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from jepa_agent.learning.losses import distillation_loss, n_step_return
from jepa_agent.learning.representation import IntrinsicCost, RepresentationTerm
from jepa_agent.model.actor import Draw, ImaginedCosts, Improvement
from jepa_agent.model.world_model import WorldModel
from jepa_agent.tensor_ops import discount_weights, masked_mean, mean_over_depths, pessimistic, spread
from jepa_agent.types import SequenceBatch

_MOST_SEQUENCES = 64  # of options that are gone through for each latent


class Samples(NamedTuple):
    """One step of each window, at which value and actor are trained."""

    batch: SequenceBatch
    row: Tensor  # (B,) index of the window
    step: Tensor  # (B,) index of the step within it
    z: Tensor  # (B, D) latent there, without gradient
    weight: Tensor  # (B,) 0 where the episode had ended before


@torch.no_grad()
def with_intrinsic_costs(model: WorldModel, batch: SequenceBatch, terms: Sequence[RepresentationTerm]) -> SequenceBatch:
    """Windows of T steps whose costs are raised or lowered by what terms ask, for value and actor to learn from.

    Args:
        model: The target network, which changes slowly.
        batch: Windows as they were observed.
        terms: Of the representation; the same batch is returned if none is an `IntrinsicCost`.
    """
    own = [term for term in terms if isinstance(term, IntrinsicCost) and term.weight]
    if not own:
        return batch
    z = model.observe(batch, 0, batch.action.shape[1])
    added = torch.stack([term.intrinsic_cost(model, z, batch.action) for term in own]).sum(0)
    return batch._replace(cost=batch.cost + added * model.cost_module.cost_scale)


def sample_training_steps(batch: SequenceBatch, z_hat: Tensor) -> Samples:
    """One step of each window: half of them 0, where the agent was, the others where it imagined to be, so that a planner
    may ask about either.

    Args:
        batch: Windows of at least T steps.
        z_hat: Latents ``(B, T+1, D)``, the first encoded, the others imagined.
    """
    size, device = z_hat.shape[0], z_hat.device
    step = torch.randint(z_hat.shape[1] - 1, (size,), device=device)
    step *= torch.rand(size, device=device) < 0.5
    row = torch.arange(size, device=device)
    return Samples(batch, row, step, z_hat[row, step].detach(), batch.mask[row, step])


@torch.no_grad()
def value_target(model: WorldModel, target: WorldModel, samples: Samples, n_steps: int, pessimism: float) -> Tensor:
    """Costs-to-go to learn: ``n_steps`` observed costs, then the target networks' pessimistic answer at an action drawn from
    the target's actor, and the price of its log-probability (SAC, 1812.05905).

    Args:
        model: Encodes, for the target's encoder follows more slowly than its critic, and holds the temperature.
        target: Its critic and its actor.
        samples: Where the critic is trained.
        n_steps: Observed costs that are summed.
        pessimism: Standard deviations of the ensemble that are added.

    Returns:
        Targets ``(B,)`` in the units of -reward.
    """
    batch, critic = samples.batch, target.cost_module.cost_to_go
    # y = sum_k gamma^k c_k + gamma^n [Q_target(z_n, a) + temperature log pi(a)], 0 beyond a termination
    known = n_step_return(batch.cost, batch.terminated, batch.mask, target.gamma, samples.step, n_steps)
    z_next = model.observe(batch, known.last + 1, 1)[:, 0]
    drawn = target.actor.draw(target.actor.net(z_next))
    ahead = pessimistic(critic.forward_subsampled(z_next, drawn.expected, members_per_row=2), pessimism)
    beyond = ahead + model.actor.temperature * drawn.log_prob
    return known.cost + known.discount * (target.cost_module.value_offset + beyond * target.value_scale)


def critic_loss(model: WorldModel, samples: Samples, target: Tensor) -> Tensor:
    """Mean loss of the costs-to-go of the actions taken.

    Args:
        model: Its cost module owns the critic.
        samples: Where the critic is trained.
        target: Costs-to-go ``(B,)`` in the units of -reward.
    """
    taken, critic = samples.batch.action[samples.row, samples.step], model.cost_module.cost_to_go
    answer = (target - model.cost_module.value_offset) / model.value_scale
    return masked_mean(critic.loss(samples.z, taken, answer), samples.weight)


def imagined_costs(model: WorldModel, z: Tensor, first: Draw, horizon: int) -> ImaginedCosts:
    """What actions cost along imagined steps on which the actor's draws follow: the estimate by which plans are judged, and
    the price of the later draws' log-probability.

    One member of the ensemble answers for all of a row, so that rows differ by what the members disagree about.

    Args:
        model: Imagines and costs. Gradients run through it back to the actions; its own are for the caller to leave out.
        z: Latents ``(B, D)`` to start from.
        first: Actions ``(B, A)`` to begin with, or K for each latent, ``(B, K, A)``.
        horizon: Number H of imagined steps; 0 is the critic alone.

    Returns:
        Costs ``(B,)`` or ``(B, K)``, in units of the cost-to-go head.
    """
    actor, heads = model.actor, model.cost_module
    several = first.action.dim() > z.dim()
    latents, draws = [z.unsqueeze(1).expand(-1, first.action.shape[1], -1) if several else z], [first]
    while len(latents) <= horizon:
        latents.append(model.predictor(latents[-1], draws[-1].action))
        draws.append(actor.draw(actor.net(latents[-1])))
    z_hat = torch.stack(latents, dim=-2)  # (..., H+1, D)
    action, expected = (torch.stack([getattr(drawn, name) for drawn in draws], dim=-2) for name in ("action", "expected"))
    # The first draw's log-probability is left to the actor, which is charged for it apart.
    paid = torch.stack(
        [torch.zeros_like(first.log_prob), *(actor.temperature * drawn.log_prob for drawn in draws[1:])], dim=-1
    )
    ahead = heads.cost_to_go.forward_subsampled(z_hat.flatten(0, -2), expected.flatten(0, -2), members_per_row=1)[0]
    ahead = ahead.unflatten(0, z_hat.shape[:-1]) + heads.value_offset / model.value_scale
    cost, logit = heads.step(z_hat[..., :-1, :], action[..., :-1, :])
    weights = discount_weights(logit.sigmoid(), model.gamma)
    # One unit of the cost head is worth 1 / (effective horizon) of one of the cost-to-go head.
    mean = mean_over_depths(cost / heads.effective_horizon + paid[..., :-1], weights, ahead + paid)
    return ImaginedCosts(ahead[..., 0], mean)


def cheapest_costs(model: WorldModel, target: WorldModel, z: Tensor, first: Draw, horizon: int) -> ImaginedCosts:
    """What options cost if the cheapest option is taken at every imagined step after them: all sequences are gone through.

    One member of the target's ensemble answers for all of a row. It is the target's, whose answers change less from one
    update to the next than what two options differ by.

    Args:
        model: Imagines and costs, without gradient.
        target: Its critic, `PerActionCostToGo` or what has ``options``, answers beyond the imagined steps.
        z: Latents ``(B, D)`` to start from.
        first: K options to begin with for each latent, ``(B, K, A)``.
        horizon: Number H of imagined steps.

    Returns:
        Costs ``(B, K)``, in units of the cost-to-go head.
    """
    heads, options = model.cost_module, torch.eye(model.actor.action_dim, device=z.device)
    # Latents (B, N_h, D) of depth h; of the steps between them cost and discount (B, N_h, K or A).
    latents, steps, action = [z.unsqueeze(1)], [], first.action.unsqueeze(1)
    for _ in range(horizon):
        here = latents[-1].unsqueeze(2).expand(-1, -1, action.shape[2], -1)
        cost, logit = heads.step(here, action)
        steps.append((cost / heads.effective_horizon, model.gamma * (1.0 - logit.sigmoid())))
        latents.append(model.predictor(here, action).flatten(1, 2))
        action = options.expand(len(z), latents[-1].shape[1], -1, -1)
    every = target.cost_module.cost_to_go.options_subsampled(torch.cat(latents, dim=1))  # (B, N_0 + ... + N_H, A)
    every = every + heads.value_offset / model.value_scale
    now, *later = every.split([found.shape[1] for found in latents], dim=1)
    depths = [now @ first.action.transpose(1, 2)]  # (B, 1, K) each
    for depth, ahead in enumerate(later, start=1):
        cheapest = ahead.amin(-1)
        for cost, discount in reversed(steps[:depth]):
            expected = cost + discount * cheapest.view_as(cost)
            cheapest = expected.amin(-1)
        depths.append(expected)
    return ImaginedCosts(depths[0][:, 0], torch.stack(depths).mean(0)[:, 0])


def improve_actor(
    model: WorldModel, target: WorldModel, z: Tensor, weight: Tensor, value_spread: Tensor, horizon: int
) -> tuple[Tensor, Improvement]:
    """How the actor changes towards actions that cost less along imagined steps; its temperature moves.

    Args:
        model: The world model, which the caller leaves as it is.
        target: Its critic judges options that are few.
        z: Latents ``(B, D)``.
        weight: Of each, ``(B,)``.
        value_spread: Running spread ``()`` of costs-to-go over latents, in which the loss is expressed; updated here.
        horizon: Imagined steps.

    Returns:
        The actor's output for the latents, and the improvement.
    """
    actor = model.actor
    output = actor.net(z)
    few = actor.num_sequences(horizon) <= _MOST_SEQUENCES
    costs_of = partial(cheapest_costs, model, target, z) if few else partial(imagined_costs, model, z)
    improvement = actor.improve(output, partial(costs_of, horizon=horizon), value_spread.clone())
    actor.learn_temperature(masked_mean(improvement.entropy, weight))
    with torch.no_grad():
        value_spread.lerp_(spread(improvement.cost_to_go).clamp(min=1e-3), 0.01)
    return output, improvement


def actor_losses(
    model: WorldModel, target: WorldModel, samples: Samples, value_spread: Tensor, horizon: int
) -> dict[str, Tensor]:
    """Losses of the actor by name: the cost of its actions along imagined steps, imitation of stored plans, and what keeps
    it from saturating.

    Args:
        model: The world model, which the caller leaves as it is, as TD3 its critic; only the actor's temperature moves.
        target: Its critic judges options that are few.
        samples: Where the actor is trained. Plans are stored for a window's first step only.
        value_spread: Running spread ``()`` of costs-to-go over latents, in which the first is expressed; updated here.
        horizon: Imagined steps.
    """
    actor, batch, z = model.actor, samples.batch, samples.z
    output, improvement = improve_actor(model, target, z, samples.weight, value_spread, horizon)
    with torch.no_grad():
        plan_cost = imagined_costs(model, z, Draw(batch.plan_mean, batch.plan_mean, torch.zeros_like(z[:, 0])), 0).now
    # Plans are stored for a window's first step, and imitated as far as the critic still thinks them better.
    planned = batch.planned & (samples.step == 0)
    promise = (improvement.cost_to_go - plan_cost) / value_spread
    return {
        "actor": masked_mean(improvement.loss, samples.weight),
        "distillation": distillation_loss(actor.imitation(output, batch.plan_mean), promise, planned).mean(),
        "regularisation": masked_mean(actor.regularisation(output), samples.weight),
    }
