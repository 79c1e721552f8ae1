"""Losses of value and actor on sampled latents: `JEPA.train` is made of these. Nothing here changes a network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from jepa_agent.learning.losses import distillation_loss, n_step_return, value_gradient_loss
from jepa_agent.model.world_model import WorldModel
from jepa_agent.tensor_ops import masked_mean, pessimistic, spread
from jepa_agent.types import SequenceBatch


class Samples(NamedTuple):
    """One step of each window, at which value and actor are trained."""

    batch: SequenceBatch
    row: Tensor  # (B,) index of the window
    step: Tensor  # (B,) index of the step within it
    z: Tensor  # (B, D) latent there, without gradient
    weight: Tensor  # (B,) 0 where the episode had ended before


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
def value_target(target: WorldModel, samples: Samples, n_steps: int, noise: float, pessimism: float) -> Tensor:
    """Costs-to-go to learn: ``n_steps`` observed costs, then the target networks' pessimistic answer at the actor's smoothed
    action (TD3, 1802.09477).

    Args:
        target: The target networks.
        samples: Where the critic is trained.
        n_steps: Observed costs that are summed.
        noise: Spread of the noise that smooths Box actions.
        pessimism: Standard deviations of the ensemble that are added.

    Returns:
        Targets ``(B,)`` in the units of -reward.
    """
    batch = samples.batch
    # y = sum_k gamma^k c_k + gamma^n Q_target(z_n, pi_target(z_n) + noise), 0 beyond a termination
    known = n_step_return(batch.cost, batch.terminated, batch.mask, target.gamma, samples.step, n_steps)
    z_next = target.observe(batch, known.last + 1, 1)[:, 0]
    action = target.actor.relaxed(target.actor.net(z_next), noise)
    ahead = target.cost_module.cost_to_go.forward_subsampled(z_next, action, members_per_row=2) * target.value_scale
    return known.cost + known.discount * pessimistic(ahead, pessimism)


def critic_loss(model: WorldModel, samples: Samples, target: Tensor) -> Tensor:
    """Mean loss of the costs-to-go of the actions taken.

    Args:
        model: Its cost module owns the critic.
        samples: Where the critic is trained.
        target: Costs-to-go ``(B,)`` in the units of -reward.
    """
    taken, critic = samples.batch.action[samples.row, samples.step], model.cost_module.cost_to_go
    return masked_mean(critic.loss(samples.z, taken, target / model.value_scale), samples.weight)


def actor_losses(model: WorldModel, samples: Samples, value_spread: Tensor) -> dict[str, Tensor]:
    """Losses of the actor by name: the cost-to-go of its actions, imitation of stored plans, and what keeps it from
    saturating.

    Args:
        model: The world model; its costs-to-go are frozen by the caller, as in TD3.
        samples: Where the actor is trained. Plans are stored for a window's first step only.
        value_spread: Running spread ``()`` of costs-to-go over latents, in which the first is expressed; updated here.
    """
    actor, batch, z = model.actor, samples.batch, samples.z

    def cost_of(action: Tensor) -> Tensor:
        return model.cost_module.cost_to_go.forward_subsampled(z, action, members_per_row=1)[0]

    # min_pi Q(z, pi(z)) / spread: one member per row, whose error the next row does not share.
    output = actor.net(z)
    cost_to_go = actor.expected(output, cost_of)
    with torch.no_grad():
        value_spread.lerp_(spread(cost_to_go).clamp(min=1e-3), 0.01)
        plan_cost = cost_of(batch.plan_mean)
    # Plans are stored for a window's first step, and imitated as far as the critic still thinks them better.
    planned = batch.planned & (samples.step == 0)
    promise = (cost_to_go - plan_cost) / value_spread
    return {
        "actor": masked_mean(value_gradient_loss(cost_to_go, value_spread), samples.weight),
        "distillation": distillation_loss(actor.imitation(output, batch.plan_mean), promise, planned).mean(),
        "regularisation": masked_mean(actor.regularisation(output), samples.weight),
    }
