"""Exact differentiable models of Pendulum and CartPole, to test planners without model error.

They implement Gymnasium's own equations, so a poor result on them is the planner's, and the optimal cost is known.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from jepa_agent.tensor_ops import discount_weights
from jepa_agent.types import StepCost


class ExactModel(ABC):
    """The part of `WorldModel`'s interface that planners need; the latent ``z`` ``(..., D)`` is the environment's state.

    Nothing is learned. There is no cost-to-go, so costs beyond the horizon count as 0, and costs are not discounted.
    """

    env_id: str
    num_choices: tuple[int, ...] = ()  # sizes of Discrete actions; empty for a Box
    action_dim: int

    @abstractmethod
    def encode(self, obs: Tensor) -> Tensor:
        """Return the state ``(..., D)`` that an observation ``(..., *obs_shape)`` shows."""

    @abstractmethod
    def predict(self, z: Tensor, action: Tensor) -> Tensor:
        """Return the state ``(..., D)`` after action ``(..., A)`` is taken in state ``(..., D)``."""

    @abstractmethod
    def cost(self, z: Tensor, action: Tensor) -> StepCost:
        """Return the cost of an action in a state.

        Args:
            z: States ``(..., D)``.
            action: Actions ``(..., A)``.

        Returns:
            The cost, which is the negative reward, and whether the action ends the episode (0 or 1), both ``(...)``.
        """

    @abstractmethod
    def to_env(self, action: Tensor) -> np.ndarray:
        """Convert actions ``(B, A)`` of the planner to those that the environment's `step` takes."""

    @abstractmethod
    def least_cost(self, z: Tensor, steps: int) -> Tensor:
        """Return the undiscounted cost of the optimal policy.

        Args:
            z: First states ``(B, D)``.
            steps: Length of the episode in steps.

        Returns:
            Costs ``(B,)``.
        """

    def imagine(self, z: Tensor, actions: Tensor) -> Tensor:
        """Roll the model out along action sequences.

        Args:
            z: First states ``(..., D)``.
            actions: Action sequences ``(..., H, A)``.

        Returns:
            States ``(..., H+1, D)``, the first being ``z``.
        """
        states = [z]
        for t in range(actions.shape[-2]):
            states.append(self.predict(states[-1], actions[..., t, :]))
        return torch.stack(states, dim=-2)

    def trajectory_cost(self, z: Tensor, actions: Tensor) -> Tensor:
        """Return the undiscounted cost of candidate sequences over their own length.

        Args:
            z: First states ``(B, D)``.
            actions: Candidates ``(B, N, H, A)``.

        Returns:
            Costs ``(B, N)``; what would follow the end of an episode costs nothing.
        """
        states = self.imagine(z.unsqueeze(1).expand(*actions.shape[:2], z.shape[-1]), actions)
        step = self.cost(states[..., :-1, :], actions)
        # Weights are 1 while the episode goes on and 0 after the step that ends it.
        return (discount_weights(step.terminated, 1.0)[..., :-1] * step.cost).sum(-1)

    def actor_sequence(self, z: Tensor, horizon: int) -> Tensor:
        """Return a fixed first proposal for a search, in place of an actor's: no torque, or always the first choice.

        Args:
            z: States ``(B, D)``.
            horizon: Number of imagined steps H.

        Returns:
            Actions ``(B, H, A)``.
        """
        actions = z.new_zeros(len(z), horizon, self.action_dim)
        # A one-hot action; all zeros would be no choice at all.
        if self.num_choices:
            actions[..., 0] = 1.0
        return actions


class Pendulum(ExactModel):
    """``Pendulum-v1``: state (angle, angular velocity), angle 0 upright; actions in [-1, 1] are torques in [-2, 2] N m.

    Source:
        Gymnasium's ``classic_control/pendulum.py``, with g = 10, m = 1, l = 1 and a time step of 0.05 s.
    """

    env_id = "Pendulum-v1"
    action_dim = 1

    def encode(self, obs: Tensor) -> Tensor:
        """Return (angle, angular velocity) from observations (cos, sin, angular velocity) ``(..., 3)``."""
        return torch.stack([torch.atan2(obs[..., 1], obs[..., 0]), obs[..., 2]], dim=-1)

    def predict(self, z: Tensor, action: Tensor) -> Tensor:
        """Take one step of semi-implicit Euler: the new angular velocity moves the angle. The angle is not wrapped."""
        angle, speed = z.unbind(-1)
        # Angular acceleration 3 g / (2 l) sin(angle) + 3 / (m l^2) torque, the torque being 2 action.
        speed = speed + (15.0 * angle.sin() + 3.0 * 2.0 * action[..., 0]) * 0.05
        speed = speed.clamp(-8.0, 8.0)
        return torch.stack([angle + speed * 0.05, speed], dim=-1)

    def cost(self, z: Tensor, action: Tensor) -> StepCost:
        """Return angle^2 + 0.1 speed^2 + 0.001 torque^2 before the step; only the time limit ends an episode."""
        angle, speed = z.unbind(-1)
        # `predict` does not wrap the angle, so the cost takes it back to [-pi, pi).
        angle = (angle + math.pi) % (2.0 * math.pi) - math.pi
        cost = angle.square() + 0.1 * speed.square() + 0.001 * (2.0 * action[..., 0]).square()
        return StepCost(cost, torch.zeros_like(cost))

    def to_env(self, action: Tensor) -> np.ndarray:
        """Return torques ``(B, 1)`` in N m."""
        return 2.0 * action.numpy()

    def least_cost(self, z: Tensor, steps: int, angles: int = 360, speeds: int = 241, torques: int = 33) -> Tensor:
        """Compute the optimal cost by dynamic programming on a grid, with bilinear interpolation between grid points.

        Args:
            z: First states ``(B, 2)``.
            steps: Length of the episode in steps.
            angles: Grid points of the angle, which is periodic.
            speeds: Grid points of the angular velocity, from -8 to 8 rad/s.
            torques: Torques to choose from at each step, from -2 to 2 N m.

        Returns:
            Costs ``(B,)``.

        Source:
            Finite-horizon Bellman recursion, ``V_k(z) = min_a cost(z, a) + V_{k-1}(predict(z, a))`` with ``V_0 = 0``.
        """
        grid = torch.cartesian_prod(_circle(angles), torch.linspace(-8.0, 8.0, speeds)).to(z.device)
        states = grid.unsqueeze(1).expand(-1, torques, -1)
        actions = torch.linspace(-1.0, 1.0, torques, device=z.device).view(1, -1, 1).expand(len(grid), -1, -1)
        # The model does not change over time: successors and their weights are computed once for all steps.
        cost, (corners, weights) = self.cost(states, actions).cost, _corners(self.predict(states, actions), angles, speeds)
        value = grid.new_zeros(len(grid))
        for _ in range(steps):
            value = (cost + (weights * value[corners]).sum(-1)).amin(1)
        corners, weights = _corners(z, angles, speeds)
        return (weights * value[corners]).sum(-1)


def _circle(n: int) -> Tensor:
    """Return ``n`` angles from -pi on, equally spaced; pi is left out, being the same as -pi."""
    return torch.arange(n) * (2.0 * math.pi / n) - math.pi


def _corners(z: Tensor, angles: int, speeds: int) -> tuple[Tensor, Tensor]:
    """Return the four grid points around each state ``(..., 2)`` and their bilinear weights, both ``(..., 4)``."""
    a = ((z[..., 0] + math.pi) * (angles / (2.0 * math.pi))) % angles
    # Clamped just below the last column, so that the next column always exists; angles are periodic instead.
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
    """``CartPole-v1``: state (position, velocity, angle, angular velocity); one-hot actions push left or right.

    Source:
        Gymnasium's ``classic_control/cartpole.py``, after Barto, Sutton and Anderson (1983); explicit Euler of 0.02 s.
    """

    env_id = "CartPole-v1"
    num_choices = (2,)
    action_dim = 2

    def encode(self, obs: Tensor) -> Tensor:
        """Return the observation, which is the state."""
        return obs

    def predict(self, z: Tensor, action: Tensor) -> Tensor:
        """Take one Euler step; every quantity moves by the rates before the step."""
        position, velocity, angle, spin = z.unbind(-1)
        sin, cos = angle.sin(), angle.cos()
        # Cart 1 kg, pole 0.1 kg, half-length 0.5 m, force 10 N: 1.1 is the total mass, 0.05 pole mass times half-length.
        push = (10.0 * (action[..., 1] - action[..., 0]) + 0.05 * spin.square() * sin) / 1.1
        # Angular acceleration of the pole, then the acceleration of the cart.
        turn = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * cos.square() / 1.1))
        pull = push - 0.05 * turn * cos / 1.1
        return torch.stack(
            [position + 0.02 * velocity, velocity + 0.02 * pull, angle + 0.02 * spin, spin + 0.02 * turn], dim=-1
        )

    def cost(self, z: Tensor, action: Tensor) -> StepCost:
        """Return a cost of -1 for every step; an action that leads beyond 2.4 m or 12 degrees ends the episode."""
        after = self.predict(z, action)
        fallen = (after[..., 0].abs() > 2.4) | (after[..., 2].abs() > 12.0 * 2.0 * math.pi / 360.0)
        return StepCost(-torch.ones_like(after[..., 0]), fallen.to(z.dtype))

    def to_env(self, action: Tensor) -> np.ndarray:
        """Return the chosen actions ``(B,)``, 0 for left and 1 for right."""
        return action.argmax(-1).numpy()

    def least_cost(self, z: Tensor, steps: int) -> Tensor:
        """Return ``-steps``: from every state in which an episode can begin, the pole can be balanced for ever."""
        return z.new_full(z.shape[:1], -float(steps))


EXACT_MODELS: dict[str, type[ExactModel]] = {"pendulum": Pendulum, "cartpole": CartPole}
