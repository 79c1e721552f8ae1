"""Play one episode step by step: which mode acted, the predicted costs and latents, and the observed ones."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

from jepa_agent.acting.working_memory import WorkingMemory
from jepa_agent.pictures.plane import principal_plane
from jepa_agent.policy import JEPAPolicy
from jepa_agent.types import Decision


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
        plane = principal_plane(self.latents)
        return plane.project(self.latents), plane.project(self.imagined), plane.share


class Step(NamedTuple):
    """A step of an episode that is being played."""

    decision: Decision
    memory: WorkingMemory  # after the decision
    reward: float


def play(
    policy: JEPAPolicy,
    env: gym.Env,
    seed: int | None,
    normalise: Callable[[Any], Any] | None = None,
    most: int | None = None,
    on_decision: Callable[[Decision], None] = lambda decision: None,
) -> Generator[Step, None, WorkingMemory]:
    """Play one episode deterministically, which draws nothing from the agent's generators.

    Args:
        policy: Acts by its mode switch.
        env: Environment that fits the policy.
        seed: Seed of the episode; None goes on with the environment's own random numbers.
        normalise: Makes of observations what the policy was trained on, as `VecNormalize.normalize_obs`.
        most: Steps after which to stop; None plays to the end.
        on_decision: Called before each step with what was decided for it.

    Yields:
        A `Step` after each step of the environment.

    Returns:
        Working memory of one decision more, for the latent of the last observation: T steps lead through T + 1.
    """
    policy.set_training_mode(False)
    raw, _ = env.reset(seed=seed)
    memory, steps, over = policy.recall(None, 1), 0, False
    while True:
        seen, _ = policy.obs_to_tensor(raw if normalise is None else normalise(raw))
        decision, memory = policy.act(seen, memory, deterministic=True)
        if over or steps == most:
            return memory
        on_decision(decision)
        raw, reward, terminated, truncated, _ = env.step(policy.to_env(decision.action)[0])
        steps, over = steps + 1, terminated or truncated
        yield Step(decision, memory, float(reward))


def explain(
    policy: JEPAPolicy,
    env: gym.Env,
    mode: str,
    seed: int | None,
    normalise: Callable[[Any], Any] | None = None,
    most: int | None = None,
) -> Explanation:
    """Play one episode deterministically and record decisions, predictions and outcomes.

    Args:
        policy: Of a trained agent; acts by its mode switch.
        env: Environment that fits the agent.
        mode: Name of the mode that acts.
        seed: Seed of the episode.
        normalise: As for `play`.
        most: Steps after which to stop; None plays to the end.
    """
    world, rows = policy.world_model, []
    episode = play(policy, env, seed, normalise, most)
    while True:
        try:
            step = next(episode)
        except StopIteration as ended:
            last = ended.value.latent.numpy(force=True)
            break
        decision, z = step.decision, step.memory.latent
        with torch.no_grad():
            # Working memory holds a plan that is being executed only where the planner acted.
            own = world.actor_sequence(z, step.memory.plan.shape[1])
            imagined = world.imagine(z, torch.where(decision.planned[:, None, None], step.memory.plan, own))
            expected = world.cost(z, decision.action).cost
        told = (decision.planned, decision.searched, decision.gain, expected, z, imagined)
        rows.append((*(field[0].numpy(force=True) for field in told), -step.reward))
    planned, searched, gain, expected_cost, latents, paths, cost = (np.stack(column) for column in zip(*rows, strict=True))
    name = "environment" if env.spec is None else env.spec.id
    return Explanation(name, mode, planned, searched, gain, expected_cost, cost, np.concatenate([latents, last]), paths)
