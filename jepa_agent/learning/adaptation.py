"""Test-time adaptation: an agent steps and learns in another world than the one it has, and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gymnasium as gym
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize


def check_world(model: OffPolicyAlgorithm, env: GymEnv, n_steps: int) -> None:
    """``ValueError`` unless an agent can adapt to an environment for so many steps."""
    if isinstance(n_steps, bool) or not isinstance(n_steps, int) or n_steps < 0:
        raise ValueError(f"n_steps must be a whole number of at least 0, got {n_steps!r}")
    if not isinstance(env, gym.Env | VecEnv):
        raise ValueError(f"another world must be an environment, such as gym.make(...) returns, got {env!r}")
    spaces = (env.observation_space, env.action_space)
    if spaces != (model.observation_space, model.action_space):
        own = f"{model.observation_space} and {model.action_space}"
        raise ValueError(f"another world must have the agent's spaces, {own}, got {spaces[0]} and {spaces[1]}")
    given = env.num_envs if isinstance(env, VecEnv) else 1
    if given != model.n_envs:
        raise ValueError(f"the agent steps in {model.n_envs} environment(s) side by side, got {given}: give as many")
    normalizer = unwrap_vec_normalize(env) if isinstance(env, VecEnv) else None
    if (normalizer is None) != (model.get_vec_normalize_env() is None):
        raise ValueError(
            "VecNormalize must be around both environments or around none: around the new one, with the statistics of the "
            "agent's own (VecNormalize.load)"
        )


@contextmanager
def in_another_world(model: OffPolicyAlgorithm, env: GymEnv) -> Iterator[None]:
    """An agent that steps in ``env`` and has stored nothing yet; afterwards its own environment is its environment again.

    Old experience would teach the old world: of 3,000 transitions beside 200 new ones Pendulum-v1's agent learns nothing.
    """
    own = model.env
    model.replay_buffer.reset()  # type: ignore[union-attr]
    model.set_env(env)
    try:
        yield
    finally:
        model.env, model._last_obs = None, None
        model._vec_normalize_env = None
        if own is not None:
            model.set_env(own)
