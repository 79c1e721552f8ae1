"""Experience, handed out in windows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import uuid4

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from torch import Tensor

from jepa_agent.environments.observations import BAD_OBSERVATION, RESTARTED
from jepa_agent.spaces import BoxCode, ChoiceCode, action_code, stored_actions
from jepa_agent.tensor_ops import HUGE
from jepa_agent.types import Observations, PastSteps, SequenceBatch

_BLOCK = 256  # transitions at a time, which also of pictures take little memory
_VOID = 2.0  # in the column of ends: one by a step that is none, for what it led to is not known


class SequenceReplayBuffer(ReplayBuffer):
    """SB3's ring with windows: any stored transition may start one; what lies past an episode's end or past the newest
    transition is masked. Terminations and time limits are kept apart; the planner's mean and spread stand beside the
    executed action."""

    # What is saved of it: arrays ``(buffer_size, n_envs, ...)``, or dictionaries of such. A subclass adds its own names.
    columns: ClassVar[tuple[str, ...]] = (
        "observations",
        "next_observations",
        "actions",
        "rewards",
        "dones",
        "timeouts",
        "plan_mean",
        "planned",
    )

    def __init__(self, buffer_size: int, observation_space: spaces.Space, action_space: spaces.Space, **kwargs: Any):
        super().__init__(buffer_size, observation_space, stored_actions(action_space), **kwargs)
        self.action_space, self._code = action_space, action_code(action_space)
        # Slots never written are read in windows that reach past the newest step: masked, but to hold members of the space.
        for space, arrays in self._parts():
            if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) and np.any(space.start):
                for array in arrays:
                    array[:] = space.start
        shape = (self.buffer_size, self.n_envs, self._code.dim)
        self.plan_mean = np.zeros(shape, dtype=np.float32)
        self.planned = np.zeros(shape[:2], dtype=bool)
        self._next_plan: tuple[np.ndarray, np.ndarray] | None = None
        self.added = 0  # rows ever stored, overwritten ones too
        self.history = uuid4().hex  # whose rows these are

    def reset(self) -> None:
        """Forget all that is stored."""
        super().reset()
        self.added, self.history = 0, uuid4().hex

    def rewind(self, added: int) -> None:
        """Set the counters as ``added`` rows leave them."""
        self.added, self.pos, self.full = added, added % self.buffer_size, added >= self.buffer_size

    def stage_plan(self, mean: np.ndarray, planned: np.ndarray) -> None:
        """Keep plans for the transition that is added next.

        Args:
            mean: What the actor may imitate of each plan, ``(n_envs, A)``.
            planned: Where a plan was what acted, bool ``(n_envs,)``.
        """
        self._next_plan = (mean, planned)

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """As SB3's, with what `stage_plan` kept; steps that must not be learned from are marked."""
        self.plan_mean[self.pos], self.planned[self.pos] = self._next_plan or (0.0, False)
        self._next_plan = None
        row = self.pos
        super().add(obs, next_obs, action, reward, done, infos)
        for index, info in enumerate(infos):
            if info.get(BAD_OBSERVATION) or info.get(RESTARTED):
                self.dones[row, index] = _VOID
        self.added += 1

    def add_episode(self, obs: Any, actions: np.ndarray, rewards: np.ndarray, terminated: bool) -> None:
        """Store a whole episode of T steps, as an environment gave it.

        Args:
            obs: Observations ``(T+1, ...)``, by name for a Dict space.
            actions: In the environment's units, ``(T, ...)``.
            rewards: Of each step, ``(T,)``.
            terminated: Whether the last step ended the episode, or else it was cut, as by a time limit.

        Raises:
            ValueError: The buffer is of several environments, whose steps are stored side by side.
        """
        if self.n_envs > 1:
            raise ValueError(f"episodes are stored in a buffer of one environment, but this one has {self.n_envs}")
        taken = self._code.scale(actions) if isinstance(self._code, BoxCode) else actions

        def seen(t: int) -> Any:
            return {key: part[t : t + 1] for key, part in obs.items()} if isinstance(obs, dict) else obs[t : t + 1]

        for t in range(len(rewards)):
            last = t + 1 == len(rewards)
            infos = [{"TimeLimit.truncated": last and not terminated}]
            self.add(seen(t), seen(t + 1), taken[t : t + 1], rewards[t : t + 1], np.array([last]), infos)

    def cut(self) -> None:
        """End the episodes that are under way, as by a time limit: what is added next does not follow them."""
        self._next_plan = None
        if self.size():
            newest = self.pos - 1
            self.timeouts[newest] = np.where(self.dones[newest] > 0, self.timeouts[newest], 1.0)
            self.dones[newest] = 1.0

    def sample_sequences(
        self, batch_size: int, length: int, env: VecNormalize | None = None, past: int = 0
    ) -> SequenceBatch:
        """Windows of consecutive steps, the more often the newer they are.

        The density grows linearly with time, so that the newest are met twice as often as on average (compare Wang & Ross,
        1906.04009). Uniform draws spend an agent that has got better on what it did when it was worse.

        Args:
            batch_size: Number B of windows.
            length: Number T of steps in each.
            env: Normalises observations and rewards, if any does.
            past: Number P of steps before each window, for a memory network.
        """
        # numpy's global generator, as in all of SB3's buffers: `seed` of the algorithm governs it.
        rows = (self.size() * np.sqrt(np.random.random_sample(batch_size))).astype(np.int64)  # noqa: NPY002
        envs = np.random.randint(0, self.n_envs, size=batch_size)  # noqa: NPY002
        return self.window(rows, envs, length, env, past)

    def spread(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Ages and environments of at most ``count`` of the transitions stored, evenly spread over time and environments."""
        stored = self.size() * self.n_envs
        chosen = np.linspace(0, stored - 1, min(count, stored)).astype(np.int64)
        return chosen // self.n_envs, np.arange(len(chosen)) % self.n_envs

    def in_blocks(self, env: VecNormalize | None = None) -> Iterator[tuple[Observations, np.ndarray]]:
        """All that is stored, oldest first and some ``_BLOCK`` transitions at a time: observations before the steps
        ``(B, ...)``, normalised as when sampled, and rewards ``(B,)`` as the environment gave them."""
        rows = max(_BLOCK // self.n_envs, 1)
        for first in range(0, self.size(), rows):
            ages = np.arange(first, min(first + rows, self.size()))
            steps = (ages + (self.pos if self.full else 0)) % self.buffer_size
            steps, envs = (part.reshape(-1) for part in np.meshgrid(steps, np.arange(self.n_envs), indexing="ij"))
            yield self.read(self.observations, steps, envs, env), self.rewards[steps, envs]

    def window(
        self, age: np.ndarray, envs: np.ndarray, length: int, env: VecNormalize | None = None, past: int = 0
    ) -> SequenceBatch:
        """Windows at given places.

        Args:
            age: First step of each, ``(B,)``, counted from the oldest transition stored.
            envs: Environment of each, ``(B,)``.
            length: Number T of steps.
            env: Normalises observations and rewards, if any does.
            past: Number P of steps before each window.
        """
        offsets = age[:, None] + np.arange(length)  # (B, T), counted from the oldest transition
        steps = (offsets + (self.pos if self.full else 0)) % self.buffer_size
        column = envs[:, None]
        done = self.dones[steps, column]
        ended_before = np.cumsum(done, axis=1) - done
        mask = (offsets < self.size()) & (ended_before == 0) & (done < _VOID)
        cost = -self._normalize_reward(self.rewards[steps, column], env).clip(-HUGE, HUGE)  # as the running scale takes them
        return SequenceBatch(
            obs=StoredWindows(self, steps, envs, env),
            action=self._action_vectors(self.actions[steps, column]),
            cost=self._tensor(cost),
            terminated=self._tensor(done * (1.0 - self.timeouts[steps, column])),
            mask=self._tensor(mask.astype(np.float32)),
            plan_mean=self._tensor(self.plan_mean[steps[:, 0], envs]),
            planned=self._tensor(self.planned[steps[:, 0], envs]),
            past=self._before(age, envs, past, env) if past else None,
        )

    def _before(self, age: np.ndarray, envs: np.ndarray, count: int, env: VecNormalize | None) -> PastSteps:
        """The ``count`` steps before windows that start at the given ages."""
        offsets = age[:, None] + np.arange(-count, 0)
        steps = (offsets + (self.pos if self.full else 0)) % self.buffer_size
        column = envs[:, None]
        ended_since = np.cumsum(self.dones[steps, column][:, ::-1], axis=1)[:, ::-1]
        return PastSteps(
            obs=self.read(self.observations, steps, np.broadcast_to(column, steps.shape), env),
            action=self._action_vectors(self.actions[steps, column]),
            mask=self._tensor(((offsets >= 0) & (ended_since == 0)).astype(np.float32)),
        )

    def _parts(self) -> list[tuple[spaces.Space, tuple[np.ndarray, np.ndarray]]]:
        """Every space that observations consist of, and what holds them."""
        return [(self.observation_space, (self.observations, self.next_observations))]

    def read(self, stored: Any, steps: np.ndarray, envs: np.ndarray, env: VecNormalize | None) -> Observations:
        """Observations from given places, as tensors.

        Args:
            stored: `observations` or `next_observations`.
            steps: Rows of the buffer, of any shape.
            envs: Environments, of the same shape.
            env: Normalises observations, if any does.
        """
        obs = np.asarray(self._normalize_obs(stored[steps, envs], env))
        return self._tensor(obs.reshape(*steps.shape, *(self.observation_space.shape or ())))

    def _action_vectors(self, actions: np.ndarray) -> Tensor:
        if isinstance(self._code, ChoiceCode):
            return self._code.vectors(self._tensor(actions))
        return self._tensor(actions).float()

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


class DictSequenceReplayBuffer(SequenceReplayBuffer, DictReplayBuffer):  # type: ignore[misc]
    """The same for observations of a Dict space."""

    def _parts(self) -> list[tuple[spaces.Space, tuple[np.ndarray, np.ndarray]]]:
        assert isinstance(self.observation_space, spaces.Dict)
        now, after = self.observations, self.next_observations
        return [(part, (now[key], after[key])) for key, part in self.observation_space.spaces.items()]  # type: ignore[call-overload]

    def read(self, stored: Any, steps: np.ndarray, envs: np.ndarray, env: VecNormalize | None) -> Observations:
        named = self._normalize_obs({key: array[steps, envs] for key, array in stored.items()}, env)
        assert isinstance(named, dict)
        assert isinstance(self.observation_space, spaces.Dict)
        shapes = {key: (*steps.shape, *(part.shape or ())) for key, part in self.observation_space.spaces.items()}
        return {key: self._tensor(array.reshape(shapes[key])) for key, array in named.items()}


class StoredWindows:
    """Observations ``(B, T+1, ...)`` of windows, copied out of the buffer where they are indexed: an update needs few of
    them. Indexing gives what it would of a tensor, and a dictionary of tensors for a Dict space."""

    def __init__(self, buffer: SequenceReplayBuffer, steps: np.ndarray, envs: np.ndarray, env: VecNormalize | None):
        self._buffer, self._env = buffer, env
        # Before the first step lies its observation, after every step the next one.
        self._steps = np.concatenate([steps[:, :1], steps], axis=1)
        self._envs = np.broadcast_to(envs[:, None], self._steps.shape)
        self._after = np.broadcast_to(np.arange(self._steps.shape[1]) > 0, self._steps.shape)

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def device(self) -> torch.device:
        """Where what is read lies."""
        return torch.device(self._buffer.device)

    def __getitem__(self, index: Any) -> Observations:
        parts = index if isinstance(index, tuple) else (index,)
        where = tuple(part.cpu().numpy() if isinstance(part, Tensor) else part for part in parts)
        steps, envs, after = self._steps[where], self._envs[where], self._after[where]
        buffer = self._buffer
        if after.all():
            return buffer.read(buffer.next_observations, steps, envs, self._env)
        before = buffer.read(buffer.observations, steps, envs, self._env)
        if not after.any():
            return before
        return _chosen(torch.tensor(after), buffer.read(buffer.next_observations, steps, envs, self._env), before)


def _chosen(rows: Tensor, one: Observations, other: Observations) -> Observations:
    """``one`` where ``rows`` is true, ``other`` elsewhere."""
    if isinstance(one, dict):
        assert isinstance(other, dict)
        return {key: _chosen(rows, one[key], other[key]) for key in one}  # type: ignore[misc]
    assert isinstance(other, Tensor)
    return torch.where(rows.to(one.device).reshape(*rows.shape, *[1] * (one.dim() - rows.dim())), one, other)


def buffer_for(observation_space: spaces.Space, asked: type[ReplayBuffer] | None = None) -> type[SequenceReplayBuffer]:
    """The class of buffer that holds observations of a space.

    Args:
        observation_space: Of the environment.
        asked: The user's own class, if any.

    Raises:
        ValueError: The class asked for cannot hold windows of these observations.
    """
    fitting = DictSequenceReplayBuffer if isinstance(observation_space, spaces.Dict) else SequenceReplayBuffer
    if asked is None:
        return fitting
    if issubclass(asked, HerReplayBuffer):
        raise ValueError(
            "HerReplayBuffer puts other goals into single transitions, but JEPA learns from windows whose steps share one "
            "goal: leave replay_buffer_class out, goal-style Dict observations are learned from as they are"
        )
    if not issubclass(asked, SequenceReplayBuffer) or issubclass(asked, DictReplayBuffer) != issubclass(
        fitting, DictReplayBuffer
    ):
        raise ValueError(f"replay_buffer_class must be a {fitting.__name__} for these observations, got {asked!r}")
    return asked


def reward_unit(normalizer: VecNormalize | None) -> float:
    """What rewards are divided by when they are sampled."""
    if normalizer is None or not normalizer.norm_reward:
        return 1.0
    return float(np.sqrt(normalizer.ret_rms.var + normalizer.epsilon))


def transition_bytes(observation_space: spaces.Space, action_space: spaces.Space) -> int:
    """Memory in bytes that one transition of one environment takes."""
    parts = observation_space.spaces.values() if isinstance(observation_space, spaces.Dict) else [observation_space]
    observation = sum(math.prod(part.shape or ()) * np.dtype(part.dtype).itemsize for part in parts)
    stored, numbers = stored_actions(action_space), 3  # reward, done, timeout
    action = math.prod(stored.shape or ()) * np.dtype(stored.dtype).itemsize
    return 2 * observation + action + 4 * (action_code(action_space).dim + numbers) + 1  # whether a plan acted
