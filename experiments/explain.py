"""Record one episode step by step: which mode acted, the predicted costs and latents, and the observed ones."""

from __future__ import annotations

from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch

from jepa_agent.agent import JEPA


class Explanation(NamedTuple):
    """An episode of T steps as the agent saw it.

    Shapes: D is the size of a latent, H the number of imagined steps.
    """

    env_id: str
    mode: str
    planned: np.ndarray  # (T,) bool: Mode-2 acted
    searched: np.ndarray  # (T,) bool: Mode-2 searched, whether or not its plan was executed
    gain: np.ndarray  # (T,) predicted gain of the plan over the actor's sequence; 0 where there was no search
    expected_cost: np.ndarray  # (T,) predicted by the cost module for the step
    cost: np.ndarray  # (T,) = -reward
    latents: np.ndarray  # (T+1, D) of the observations
    imagined: np.ndarray  # (T, H+1, D) along the current plan, or along the actor's own sequence where Mode-1 acted

    def misses(self) -> np.ndarray:
        """Return the prediction error 1 to H steps ahead in latent space.

        Returns:
            Root-mean-square distances ``(T, H)`` between imagined and later observed latents; NaN past the episode's end.
            The first column is the surprise.
        """
        steps, horizon = len(self.cost), self.imagined.shape[1] - 1
        misses = np.full((steps, horizon), np.nan)
        for k in range(1, min(horizon, steps) + 1):
            # What was imagined at step t for k steps ahead is compared with the latent observed at t + k.
            apart = self.imagined[: steps + 1 - k, k] - self.latents[k:]
            misses[: steps + 1 - k, k - 1] = np.sqrt(np.square(apart).mean(-1))
        return misses

    def typical_distance(self) -> float:
        """Return the root-mean-square distance between two random latents of the episode, the error of a blind guess.

        Source:
            ``E |z - z'|^2 = 2 Var(z)`` for independent ``z`` and ``z'``, here as a mean over dimensions.
        """
        return float(np.sqrt(2.0 * self.latents.var(0).mean()))

    def plane(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Project latents on the two principal axes of the observed ones.

        Returns:
            Observed latents ``(T+1, 2)``, imagined latents ``(T, H+1, 2)``, and the share of the observed latents' variance
            that lies in this plane.
        """
        centre = self.latents.mean(0)
        _, sizes, axes = np.linalg.svd(self.latents - centre, full_matrices=False)
        share = float(np.square(sizes[:2]).sum() / max(np.square(sizes).sum(), 1e-12))
        return (self.latents - centre) @ axes[:2].T, (self.imagined - centre) @ axes[:2].T, share


def explain(model: JEPA, env: gym.Env, mode: str, seed: int) -> Explanation:
    """Play one episode deterministically and record decisions, predictions and outcomes.

    Args:
        model: Trained agent; its mode is changed to ``mode``.
        env: Environment that fits the agent, made by `gymnasium.make`.
        mode: Mode that acts, such as "actor", "planner" or "auto".
        seed: Seed of the episode.
    """
    model.set_mode(mode)
    policy, world, rows = model.policy, model.world_model, []
    policy.set_training_mode(False)
    obs, _ = env.reset(seed=seed)
    memory, over = policy.recall(None, 1), False
    while not over:
        seen, _ = policy.obs_to_tensor(obs)
        decision, memory = policy.act(seen, memory, deterministic=True)
        with torch.no_grad():
            z = memory.latent
            # Working memory holds a plan that is being executed only where the planner acted.
            own = world.actor_sequence(z, memory.plan.shape[1])
            imagined = world.imagine(z, torch.where(decision.planned[:, None, None], memory.plan, own))
            expected = world.cost(z, decision.action).cost
        obs, reward, terminated, truncated, _ = env.step(policy.to_env(decision.action)[0])
        over = terminated or truncated
        told = (decision.planned, decision.searched, decision.gain, expected, z, imagined)
        rows.append((*(field[0].numpy(force=True) for field in told), -float(reward)))
    seen, _ = policy.obs_to_tensor(obs)
    # One more decision, for its latent only: T steps lead through T + 1 observations.
    last = policy.act(seen, memory, deterministic=True)[1].latent.numpy(force=True)
    planned, searched, gain, expected_cost, latents, paths, cost = (np.stack(column) for column in zip(*rows, strict=True))
    assert env.spec is not None
    return Explanation(
        env.spec.id, mode, planned, searched, gain, expected_cost, cost, np.concatenate([latents, last]), paths
    )
