"""Pendulum and cart-pole as differentiable world models that make no mistake: what a planner does on them is its own doing,
and the best there is to do is known."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from jepa_agent.tensor_ops import discount_weights
from jepa_agent.types import StepCost


class ExactModel(ABC):
    """The world model's verbs, as far as planners need them, on the environment's own state for a latent ``z`` ``(..., D)``.

    Nothing is learned, so there is no cost-to-go: what lies beyond the horizon is not seen. Costs are not discounted.
    """

    env_id: str
    num_choices: tuple[int, ...] = ()  # of Discrete actions; none for a Box
    action_dim: int

    @abstractmethod
    def encode(self, obs: Tensor) -> Tensor:
        """The state an observation shows."""

    @abstractmethod
    def predict(self, z: Tensor, action: Tensor) -> Tensor:
        """The state after one action: ``(..., D)``, ``(..., A)`` to ``(..., D)``."""

    @abstractmethod
    def cost(self, z: Tensor, action: Tensor) -> StepCost:
        """Cost of an action and whether (0 or 1) it ends the episode, both ``(...)``."""

    @abstractmethod
    def to_env(self, action: Tensor) -> np.ndarray:
        """Actions ``(B, A)`` as the environment takes them."""

    @abstractmethod
    def least_cost(self, z: Tensor, steps: int) -> Tensor:
        """What the best policy pays from states ``(B, D)`` in so many steps: ``(B,)``."""

    def imagine(self, z: Tensor, actions: Tensor) -> Tensor:
        """States along actions: ``(..., D)``, ``(..., H, A)`` to ``(..., H+1, D)``, the first being ``z``."""
        states = [z]
        for t in range(actions.shape[-2]):
            states.append(self.predict(states[-1], actions[..., t, :]))
        return torch.stack(states, dim=-2)

    def trajectory_cost(self, z: Tensor, actions: Tensor) -> Tensor:
        """What candidates cost over their own length: ``(B, D)``, ``(B, N, H, A)`` to ``(B, N)``."""
        states = self.imagine(z.unsqueeze(1).expand(*actions.shape[:2], z.shape[-1]), actions)
        step = self.cost(states[..., :-1, :], actions)
        return (discount_weights(step.terminated, 1.0)[..., :-1] * step.cost).sum(-1)

    def actor_sequence(self, z: Tensor, horizon: int) -> Tensor:
        """Where a search begins: no torque, or always the first choice: ``(B, H, A)``."""
        actions = z.new_zeros(len(z), horizon, self.action_dim)
        if self.num_choices:
            actions[..., 0] = 1.0
        return actions


class Pendulum(ExactModel):
    """``Pendulum-v1``: state (angle, speed), angle 0 upright; actions in [-1, 1] are torques up to 2."""

    env_id = "Pendulum-v1"
    action_dim = 1

    def encode(self, obs: Tensor) -> Tensor:
        return torch.stack([torch.atan2(obs[..., 1], obs[..., 0]), obs[..., 2]], dim=-1)

    def predict(self, z: Tensor, action: Tensor) -> Tensor:
        angle, speed = z.unbind(-1)
        speed = speed + (15.0 * angle.sin() + 3.0 * 2.0 * action[..., 0]) * 0.05
        speed = speed.clamp(-8.0, 8.0)
        return torch.stack([angle + speed * 0.05, speed], dim=-1)

    def cost(self, z: Tensor, action: Tensor) -> StepCost:
        angle, speed = z.unbind(-1)
        angle = (angle + math.pi) % (2.0 * math.pi) - math.pi
        cost = angle.square() + 0.1 * speed.square() + 0.001 * (2.0 * action[..., 0]).square()
        return StepCost(cost, torch.zeros_like(cost))

    def to_env(self, action: Tensor) -> np.ndarray:
        return 2.0 * action.numpy()

    def least_cost(self, z: Tensor, steps: int, angles: int = 360, speeds: int = 241, torques: int = 33) -> Tensor:
        """By dynamic programming over a grid, with values between its points interpolated."""
        grid = torch.cartesian_prod(_circle(angles), torch.linspace(-8.0, 8.0, speeds)).to(z.device)
        states = grid.unsqueeze(1).expand(-1, torques, -1)
        actions = torch.linspace(-1.0, 1.0, torques, device=z.device).view(1, -1, 1).expand(len(grid), -1, -1)
        cost, (corners, weights) = self.cost(states, actions).cost, _corners(self.predict(states, actions), angles, speeds)
        value = grid.new_zeros(len(grid))
        for _ in range(steps):
            value = (cost + (weights * value[corners]).sum(-1)).amin(1)
        corners, weights = _corners(z, angles, speeds)
        return (weights * value[corners]).sum(-1)


def _circle(n: int) -> Tensor:
    return torch.arange(n) * (2.0 * math.pi / n) - math.pi


def _corners(z: Tensor, angles: int, speeds: int) -> tuple[Tensor, Tensor]:
    """The four grid points around each state ``(..., 2)`` and what each weighs, both ``(..., 4)``; angles go round."""
    a = ((z[..., 0] + math.pi) * (angles / (2.0 * math.pi))) % angles
    s = ((z[..., 1] + 8.0) * ((speeds - 1) / 16.0)).clamp(0.0, speeds - 1.0001)
    low_a, low_s = a.floor(), s.floor()
    part_a, part_s = a - low_a, s - low_s
    rows = torch.stack([low_a, low_a, low_a + 1, low_a + 1], dim=-1).long() % angles
    columns = torch.stack([low_s, low_s + 1, low_s, low_s + 1], dim=-1).long()
    weights = torch.stack(
        [(1 - part_a) * (1 - part_s), (1 - part_a) * part_s, part_a * (1 - part_s), part_a * part_s], dim=-1
    )
    return rows * speeds + columns, weights


class CartPole(ExactModel):
    """``CartPole-v1``: state (position, velocity, angle, angular velocity); one-hot actions push left or right."""

    env_id = "CartPole-v1"
    num_choices = (2,)
    action_dim = 2

    def encode(self, obs: Tensor) -> Tensor:
        return obs

    def predict(self, z: Tensor, action: Tensor) -> Tensor:
        position, velocity, angle, spin = z.unbind(-1)
        sin, cos = angle.sin(), angle.cos()
        push = (10.0 * (action[..., 1] - action[..., 0]) + 0.05 * spin.square() * sin) / 1.1
        turn = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * cos.square() / 1.1))
        pull = push - 0.05 * turn * cos / 1.1
        return torch.stack(
            [position + 0.02 * velocity, velocity + 0.02 * pull, angle + 0.02 * spin, spin + 0.02 * turn], dim=-1
        )

    def cost(self, z: Tensor, action: Tensor) -> StepCost:
        after = self.predict(z, action)
        fallen = (after[..., 0].abs() > 2.4) | (after[..., 2].abs() > 12.0 * 2.0 * math.pi / 360.0)
        return StepCost(-torch.ones_like(after[..., 0]), fallen.to(z.dtype))

    def to_env(self, action: Tensor) -> np.ndarray:
        return action.argmax(-1).numpy()

    def least_cost(self, z: Tensor, steps: int) -> Tensor:
        """The pole can be balanced for ever from everywhere an episode begins."""
        return z.new_full(z.shape[:1], -float(steps))


EXACT_MODELS: dict[str, type[ExactModel]] = {"pendulum": Pendulum, "cartpole": CartPole}
