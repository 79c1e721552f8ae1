"""Checks of environments from outside this package: their kind, seeds, spaces, and what they return."""

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
    """Check that an object is a Gymnasium environment or a VecEnv of Stable-Baselines3.

    Args:
        env: The object that was passed as environment.

    Raises:
        ValueError: It is neither; the message says what to pass instead.
    """
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
    """Seed the next reset of all environments; warn if they cannot be seeded, as is common for SuperSuit's VecEnvs.

    Args:
        env: The vectorised environments.
        seed: Seed of the first environment; the others get the numbers that follow.
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
    """An environment returned something that cannot be learned from.

    Args:
        environment: Index of the environment.
        what: What is wrong, as part of the message.
        step: Environment steps so far, of all environments together; None if unknown.
    """

    def __init__(self, environment: int, what: str, step: int | None = None):
        when = "" if step is None else f", step {step}"
        super().__init__(f"environment {environment}{when}: {what}; nothing can be learned from it")
        self.environment, self.what, self.step = environment, what, step


def check_finite(name: str, values: Any, step: int | None = None) -> None:
    """Check that all environments returned finite numbers.

    Args:
        name: What the values are, for the message.
        values: Array ``(n_envs, ...)``, or a dictionary of such arrays.
        step: Environment steps so far, for the message.

    Raises:
        Unusable: A value is not finite; the message names the first such environment and its values.
    """
    if (bad := first_not_finite(values, name)) is not None:
        raise Unusable(*bad, step)


def check_last_observations(
    dones: np.ndarray, infos: Sequence[dict[str, Any]], space: spaces.Space, step: int | None = None
) -> None:
    """Check that the last observations of episodes that have just ended fit the space and are finite.

    Args:
        dones: Which episodes ended, ``(n_envs,)``.
        infos: Infos of all environments; ``terminal_observation`` is the last observation, if present.
        space: The observation space.
        step: Environment steps so far, for the message.

    Raises:
        Unusable: A last observation is malformed or not finite; the message names the environment.
    """
    for index in map(int, np.flatnonzero(dones)):
        last = infos[index].get("terminal_observation")
        if last is not None:
            _check_form(last, space, index, "the environment's last observation")
            if (bad := first_not_finite(_with_env_axis(last), "last observation")) is not None:
                raise Unusable(index, bad[1], step)


def _with_env_axis(obs: Any) -> Any:
    """Return one environment's observation, or each entry of it, with a leading axis: ``(1, ...)``."""
    return {key: np.asarray(part)[None] for key, part in obs.items()} if isinstance(obs, Mapping) else np.asarray(obs)[None]


def guard_environments(env: VecEnv) -> None:
    """Check from now on that all environments return finite values of their spaces, and keep last observations intact.

    The checks are installed below all wrappers, so that `VecNormalize` neither clips a bad value nor adds it to its
    statistics. In a `DummyVecEnv` they are installed in each environment too, for two reasons. It copies observations into
    its own arrays, where broadcasting can hide a wrong shape. And it resets an environment before it copies the last
    observation, which is lost if the environment reuses one array; therefore last observations are copied first.

    A second call for the same environments has no effect.

    Args:
        env: The vectorised environments, changed in place.

    Raises:
        ValueError: The environments differ in their spaces.
    """
    # Third-party wrappers may wrap something that is not a VecEnv; the checks then go to the wrapper itself.
    while isinstance(env, VecEnvWrapper) and isinstance(env.venv, VecEnv):
        env = env.venv
    _check_alike(env)
    for index, one in enumerate(env.envs if isinstance(env, DummyVecEnv) else ()):
        # Once only: the same environments may be passed again, as by `set_env`.
        if not _is_guarded(one.step, _step):
            one.step = partial(_step, one.step, one.observation_space, index)  # type: ignore[method-assign]
            one.reset = partial(_reset, one.reset, one.observation_space, index)  # type: ignore[method-assign]
    if not _is_guarded(env.step_wait, _step_wait):
        env.step_wait = partial(_step_wait, env.step_wait, env)  # type: ignore[method-assign]
        env.reset = partial(_reset_all, env.reset, env)  # type: ignore[method-assign]


def _is_guarded(method: Callable[..., Any], guard: Callable[..., Any]) -> bool:
    """Return whether a method has already been replaced by this guard."""
    return isinstance(method, partial) and method.func is guard


def _check_alike(env: VecEnv) -> None:
    """Raise ``ValueError`` if the environments differ in their spaces."""
    for name in ("observation_space", "action_space"):
        try:
            found = list(env.get_attr(name))
        except (AttributeError, NotImplementedError, TypeError):
            continue  # not every third-party VecEnv implements get_attr
        for index, space in enumerate(found):
            if space != found[0]:
                raise ValueError(f"environment {index} has the {name} {space}, but the first one {found[0]}: make all alike")


def _step(step: Callable[[Any], tuple[Any, ...]], space: spaces.Space, index: int, action: Any) -> tuple[Any, ...]:
    """Step one environment; check the form of its observation and reward, and copy the last observation."""
    obs, reward, terminated, truncated, info = step(action)
    _check_form(obs, space, index)
    number = as_array(reward)
    if number.dtype.kind not in "biuf" or number.size != 1:
        raise Unusable(index, f"the environment's reward must be a number, found {shown(reward)}")
    return (deepcopy(obs) if terminated or truncated else obs), number.item(), terminated, truncated, info


def _reset(reset: Callable[..., tuple[Any, ...]], space: spaces.Space, index: int, **options: Any) -> tuple[Any, ...]:
    """Reset one environment and check the form of its observation."""
    obs, info = reset(**options)
    _check_form(obs, space, index)
    return obs, info


def _check_form(obs: Any, space: spaces.Space, index: int, name: str = "the environment's observation") -> None:
    """Check the form of an observation; raise `Unusable`, which names the environment."""
    try:
        check_form(obs, space, name=name)
    except ValueError as error:
        raise Unusable(index, str(error)) from error


def _step_wait(step_wait: Callable[[], tuple[Any, ...]], env: VecEnv) -> tuple[Any, ...]:
    """Finish a step of all environments and check observations ``(n_envs, ...)`` and rewards ``(n_envs,)``."""
    obs, rewards, dones, infos = step_wait()
    check_form(obs, env.observation_space, (env.num_envs,), "the environments' observation")
    if as_array(rewards).dtype.kind not in "biuf" or np.size(rewards) != env.num_envs:
        raise ValueError(f"the environments' rewards must be {env.num_envs} number(s), found {shown(rewards)}")
    # A third-party VecEnv may return a list, or an array ``(n_envs, 1)``.
    rewards = np.reshape(rewards, env.num_envs)
    check_finite("reward", rewards)
    check_last_observations(dones, infos, env.observation_space)
    check_finite("observation", obs)
    return obs, rewards, dones, infos


def _reset_all(reset: Callable[[], Any], env: VecEnv) -> Any:
    """Reset all environments and check their observations ``(n_envs, ...)``."""
    obs = reset()
    check_form(obs, env.observation_space, (env.num_envs,), "the environments' observation")
    check_finite("first observation", obs)
    return obs


class WorkerVecEnv(DummyVecEnv):
    """Environments that step at the same time, each of which is a `Worker` below its wrappers.

    The wrappers must pass actions on unchanged, since the step begins in the worker before they are called.
    """

    def step_async(self, actions: np.ndarray) -> None:
        """Begin a step in every worker.

        Args:
            actions: Actions of all environments, ``(n_envs, ...)``.
        """
        super().step_async(actions)
        for env, action in zip(self.envs, actions, strict=True):
            env.unwrapped.begin_step(action)  # type: ignore[attr-defined]


class RefuseBadSteps(gym.Wrapper):
    """Raises an error where an environment returns an observation or reward that cannot be averaged or learned from.

    Raises:
        ValueError: From `reset` and `step`: an observation has another form than its space, or an observation or reward is
            not finite. The message names episode and step.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self._episode, self._step = 0, 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode and check its first observation."""
        obs, info = self.env.reset(**options)
        self._episode, self._step = self._episode + 1, 0
        self._check(obs, 0.0)
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment and check what it returns."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._step += 1
        self._check(obs, reward)
        return obs, reward, terminated, truncated, info

    def _check(self, obs: Any, reward: Any) -> None:
        """Raise ``ValueError`` if an observation or a reward cannot be used."""
        where = f"episode {self._episode}, step {self._step}"
        check_form(obs, self.observation_space, name=f"{where}: the environment's observation")
        if not is_finite(reward):
            raise ValueError(f"{where}: the reward is not finite: {shown(reward)}")
        if not is_finite(obs):
            raise ValueError(f"{where}: the observation is not finite: {shown(obs)}")


class EndOnBadObservation(gym.Wrapper):
    """Truncates an episode at a step whose observation or reward is not finite.

    That step returns the last finite observation again and a reward of 0, and ``bad_observation`` in its info keeps it from
    being learned from. `bad_observations` counts such steps and resets; only the first one is warned about.

    Args:
        env: The environment.
        most_resets: How often to reset in search of a finite first observation.
    """

    def __init__(self, env: gym.Env, most_resets: int = 10):
        super().__init__(env)
        self.most_resets, self.bad_observations = most_resets, 0
        self._last: Any = None

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode whose first observation is finite.

        Raises:
            ValueError: ``most_resets`` episodes in a row began with an observation that is not finite.
        """
        for _ in range(self.most_resets):
            obs, info = self.env.reset(**options)
            if is_finite(obs):
                self._last = deepcopy(obs)
                return obs, info
            self._tell()
            options.pop("seed", None)  # the same seed would give the same observation again
        raise ValueError(f"{self.most_resets} episodes in a row began with an observation that is not finite")

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment; a step that is not finite truncates the episode."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if is_finite(obs) and is_finite_reward(reward):
            self._last = deepcopy(obs)
            return obs, reward, terminated, truncated, info
        self._tell()
        return self._last, 0.0, False, True, {**info, BAD_OBSERVATION: True}

    def _tell(self) -> None:
        """Count a bad observation and warn about the first one."""
        self.bad_observations += 1
        if self.bad_observations == 1:
            warnings.warn(
                "an observation or reward was not finite: the episode ends at the last good one, as will others",
                stacklevel=3,
            )
