"""What the algorithm needs of environments that are not its own: the right kind, seeds, a last observation that lasts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper

from jepa_agent.environments.observations import (
    BAD_OBSERVATION,
    as_array,
    check_form,
    first_not_finite,
    is_finite,
    is_finite_reward,
    shown,
)


def check_kind(env: Any) -> None:
    """``ValueError`` that says what to hand over instead of what is neither a Gymnasium environment nor a VecEnv."""
    if isinstance(env, gym.vector.VectorEnv):
        name = f"{env.spec.id!r}" if env.spec is not None else "..."
        raise ValueError(
            f"{type(env).__name__}, as gymnasium.make_vec makes it, is no VecEnv of Stable-Baselines3: use "
            f"make_vec_env({name}, n_envs={env.num_envs}) from stable_baselines3.common.env_util"
        )
    if not isinstance(env, (gym.Env, VecEnv)):
        raise ValueError(
            f"expected a Gymnasium environment, its id, or a VecEnv of Stable-Baselines3, got {type(env).__name__}; "
            "PettingZoo's become a VecEnv by SuperSuit's pettingzoo_env_to_vec_env_v1 and concat_vec_envs_v1"
        )


def seed_env(env: VecEnv, seed: int) -> None:
    """Seed the next reset of all environments. Those that cannot be seeded, as SuperSuit's often, are named in a warning.

    Args:
        env: SB3's vectorised environments.
        seed: Of the first; the others get those that follow.
    """
    try:
        env.seed(seed)
    except (AttributeError, NotImplementedError, TypeError) as error:
        warnings.warn(
            f"{type(env).__name__} cannot be seeded ({error or type(error).__name__}): its episodes are not repeated by the "
            "same seed, nor after going on from a checkpoint",
            stacklevel=2,
        )


class Unusable(ValueError):
    """What one of the environments returned cannot be learned from.

    Args:
        environment: Which one.
        what: What is wrong.
        step: When, in steps of all environments; None where that is not known.
    """

    def __init__(self, environment: int, what: str, step: int | None = None):
        when = "" if step is None else f", step {step}"
        super().__init__(f"environment {environment}{when}: {what}; nothing can be learned from it")
        self.environment, self.what, self.step = environment, what, step


def check_finite(name: str, values: Any, step: int | None = None) -> None:
    """See that all environments gave finite numbers.

    Args:
        name: What was given, for the message.
        values: ``(n_envs, ...)``, or a dict of them.
        step: Number of steps so far, for the message.

    Raises:
        Unusable: Names the environment and what it gave.
    """
    if (bad := first_not_finite(values, name)) is not None:
        raise Unusable(*bad, step)


def check_last_observations(
    dones: np.ndarray, infos: Sequence[dict[str, Any]], space: spaces.Space, step: int | None = None
) -> None:
    """See that the last observations of episodes that have just ended are of the space's form and finite.

    Args:
        dones: Which episodes ended, ``(n_envs,)``.
        infos: Of all environments; they hold the last observations.
        space: Of the observations.
        step: Number of steps so far, for the message.

    Raises:
        Unusable: Names the environment and what it gave.
    """
    for index in map(int, np.flatnonzero(dones)):
        last = infos[index].get("terminal_observation")
        if last is not None:
            _check_form(last, space, index, "the environment's last observation")
            if (bad := first_not_finite(_with_env_axis(last), "last observation")) is not None:
                raise Unusable(index, bad[1], step)


def _with_env_axis(obs: Any) -> Any:
    """One environment's observation, or each part of it, as if of several: ``(1, ...)``."""
    return {key: np.asarray(part)[None] for key, part in obs.items()} if isinstance(obs, Mapping) else np.asarray(obs)[None]


def guard_environments(env: VecEnv) -> None:
    """See that all environments have the same spaces, that what they return is of their spaces and finite, and that last
    observations last.

    This is done below all wrappers, before `VecNormalize` takes anything into its statistics or clips it. `DummyVecEnv`
    copies observations into its own arrays, by broadcasting if need be, so there each environment is looked at. And it
    resets an environment before it copies what that returned last, so an environment that fills the same array again and
    again would lose it; other observations are copied in time."""
    while isinstance(env, VecEnvWrapper) and isinstance(env.venv, VecEnv):
        env = env.venv
    _check_alike(env)
    for index, one in enumerate(env.envs if isinstance(env, DummyVecEnv) else ()):
        if not _is_guarded(one.step, _step):
            one.step = partial(_step, one.step, one.observation_space, index)  # type: ignore[method-assign]
            one.reset = partial(_reset, one.reset, one.observation_space, index)  # type: ignore[method-assign]
    if not _is_guarded(env.step_wait, _step_wait):
        env.step_wait = partial(_step_wait, env.step_wait, env)  # type: ignore[method-assign]
        env.reset = partial(_reset_all, env.reset, env)  # type: ignore[method-assign]


def _is_guarded(method: Callable[..., Any], guard: Callable[..., Any]) -> bool:
    return isinstance(method, partial) and method.func is guard


def _check_alike(env: VecEnv) -> None:
    for name in ("observation_space", "action_space"):
        try:
            found = list(env.get_attr(name))
        except (AttributeError, NotImplementedError, TypeError):
            continue  # VecEnvs of others do not always tell
        for index, space in enumerate(found):
            if space != found[0]:
                raise ValueError(f"environment {index} has the {name} {space}, but the first one {found[0]}: make all alike")


def _step(step: Callable[[Any], tuple[Any, ...]], space: spaces.Space, index: int, action: Any) -> tuple[Any, ...]:
    obs, reward, terminated, truncated, info = step(action)
    _check_form(obs, space, index)
    number = as_array(reward)
    if number.dtype.kind not in "biuf" or number.size != 1:
        raise Unusable(index, f"the environment's reward must be a number, found {shown(reward)}")
    return (deepcopy(obs) if terminated or truncated else obs), number.item(), terminated, truncated, info


def _reset(reset: Callable[..., tuple[Any, ...]], space: spaces.Space, index: int, **options: Any) -> tuple[Any, ...]:
    obs, info = reset(**options)
    _check_form(obs, space, index)
    return obs, info


def _check_form(obs: Any, space: spaces.Space, index: int, name: str = "the environment's observation") -> None:
    try:
        check_form(obs, space, name=name)
    except ValueError as error:
        raise Unusable(index, str(error)) from error


def _step_wait(step_wait: Callable[[], tuple[Any, ...]], env: VecEnv) -> tuple[Any, ...]:
    obs, rewards, dones, infos = step_wait()
    check_form(obs, env.observation_space, (env.num_envs,), "the environments' observation")
    if as_array(rewards).dtype.kind not in "biuf" or np.size(rewards) != env.num_envs:
        raise ValueError(f"the environments' rewards must be {env.num_envs} number(s), found {shown(rewards)}")
    rewards = np.reshape(rewards, env.num_envs)
    check_finite("reward", rewards)
    check_last_observations(dones, infos, env.observation_space)
    check_finite("observation", obs)
    return obs, rewards, dones, infos


def _reset_all(reset: Callable[[], Any], env: VecEnv) -> Any:
    obs = reset()
    check_form(obs, env.observation_space, (env.num_envs,), "the environments' observation")
    check_finite("first observation", obs)
    return obs


class WorkerVecEnv(DummyVecEnv):
    """Environments that are each a `Worker` below wrappers which leave actions as they are: all step at the same time."""

    def step_async(self, actions: np.ndarray) -> None:
        """Begin a step in every worker."""
        super().step_async(actions)
        for env, action in zip(self.envs, actions, strict=True):
            env.unwrapped.begin_step(action)  # type: ignore[attr-defined]


class RefuseBadSteps(gym.Wrapper):
    """Ends in a ``ValueError`` that names episode and step where an environment returns an observation of another form than
    its space has, or an observation or reward that is not finite: no mean can be taken of that."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self._episode, self._step = 0, 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        obs, info = self.env.reset(**options)
        self._episode, self._step = self._episode + 1, 0
        self._check(obs, 0.0)
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._step += 1
        self._check(obs, reward)
        return obs, reward, terminated, truncated, info

    def _check(self, obs: Any, reward: Any) -> None:
        where = f"episode {self._episode}, step {self._step}"
        check_form(obs, self.observation_space, name=f"{where}: the environment's observation")
        if not is_finite(reward):
            raise ValueError(f"{where}: the reward is not finite: {shown(reward)}")
        if not is_finite(obs):
            raise ValueError(f"{where}: the observation is not finite: {shown(obs)}")


class EndOnBadObservation(gym.Wrapper):
    """Ends an episode, as by a time limit, where an observation or a reward is not finite: at its last good observation,
    with a reward of 0. Each is counted in `bad_observations`, the first is told.

    Args:
        env: The environment.
        most_resets: How often to try for a first observation that is finite; `ValueError` after that.
    """

    def __init__(self, env: gym.Env, most_resets: int = 10):
        super().__init__(env)
        self.most_resets, self.bad_observations = most_resets, 0
        self._last: Any = None

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode whose first observation is finite."""
        for _ in range(self.most_resets):
            obs, info = self.env.reset(**options)
            if is_finite(obs):
                self._last = deepcopy(obs)
                return obs, info
            self._tell()
            options.pop("seed", None)  # the same seed would give the same again
        raise ValueError(f"{self.most_resets} episodes in a row began with an observation that is not finite")

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; one that cannot be learned from ends the episode."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if is_finite(obs) and is_finite_reward(reward):
            self._last = deepcopy(obs)
            return obs, reward, terminated, truncated, info
        self._tell()
        return self._last, 0.0, False, True, {**info, BAD_OBSERVATION: True}

    def _tell(self) -> None:
        self.bad_observations += 1
        if self.bad_observations == 1:
            warnings.warn(
                "an observation or reward was not finite: the episode ends at the last good one, as will others",
                stacklevel=3,
            )
