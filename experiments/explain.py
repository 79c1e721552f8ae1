"""One episode explained: who acted, what was expected, and what came."""

from __future__ import annotations

from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch

from jepa_agent.agent import JEPA


class Explanation(NamedTuple):
    """An episode of T steps, as the agent saw it. D: latent, H: imagined steps."""

    env_id: str
    mode: str
    planned: np.ndarray  # (T,) bool: Mode-2 acted
    searched: np.ndarray  # (T,) bool: a search was made, its plan executed or not
    gain: np.ndarray  # (T,) what the plan was to save; 0 where nothing was searched
    expected_cost: np.ndarray  # (T,) of the step, by the cost module
    cost: np.ndarray  # (T,) = -reward
    latents: np.ndarray  # (T+1, D) observed
    imagined: np.ndarray  # (T, H+1, D) along the plan in force, or along the actor's own sequence where Mode-1 acted

    def misses(self) -> np.ndarray:
        """Root-mean-square distance ``(T, H)`` of what was imagined 1 to H steps ahead from what was then observed; NaN past
        the episode's end. One step ahead it is the surprise."""
        steps, horizon = len(self.cost), self.imagined.shape[1] - 1
        misses = np.full((steps, horizon), np.nan)
        for k in range(1, min(horizon, steps) + 1):
            apart = self.imagined[: steps + 1 - k, k] - self.latents[k:]
            misses[: steps + 1 - k, k - 1] = np.sqrt(np.square(apart).mean(-1))
        return misses

    def typical_distance(self) -> float:
        """Root-mean-square distance of two latents of the episode taken at random: what a blind guess would miss by."""
        return float(np.sqrt(2.0 * self.latents.var(0).mean()))

    def plane(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Observed ``(T+1, 2)`` and imagined ``(T, H+1, 2)`` latents on the two principal axes of the observed ones, and the
        share of their variance that these axes hold."""
        centre = self.latents.mean(0)
        _, sizes, axes = np.linalg.svd(self.latents - centre, full_matrices=False)
        share = float(np.square(sizes[:2]).sum() / max(np.square(sizes).sum(), 1e-12))
        return (self.latents - centre) @ axes[:2].T, (self.imagined - centre) @ axes[:2].T, share


def explain(model: JEPA, env: gym.Env, mode: str, seed: int) -> Explanation:
    """Play one episode deterministically and keep what was decided and expected at each step."""
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
            own = world.actor_sequence(z, memory.plan.shape[1])
            imagined = world.imagine(z, torch.where(decision.planned[:, None, None], memory.plan, own))
            expected = world.cost(z, decision.action).cost
        obs, reward, terminated, truncated, _ = env.step(policy.to_env(decision.action)[0])
        over = terminated or truncated
        told = (decision.planned, decision.searched, decision.gain, expected, z, imagined)
        rows.append((*(field[0].numpy(force=True) for field in told), -float(reward)))
    seen, _ = policy.obs_to_tensor(obs)
    last = policy.act(seen, memory, deterministic=True)[1].latent.numpy(force=True)
    planned, searched, gain, expected_cost, latents, paths, cost = (np.stack(column) for column in zip(*rows, strict=True))
    assert env.spec is not None
    return Explanation(
        env.spec.id, mode, planned, searched, gain, expected_cost, cost, np.concatenate([latents, last]), paths
    )
