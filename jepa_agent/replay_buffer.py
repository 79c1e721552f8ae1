"""Experience, handed out in windows."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from jepa_agent.spaces import ChoiceCode, action_code, stored_actions
from jepa_agent.types import SequenceBatch


class SequenceReplayBuffer(ReplayBuffer):
    """SB3's ring with windows: any stored transition may start one; what lies past an episode's end or past the newest
    transition is masked. Terminations and time limits are kept apart; the planner's mean and spread stand beside the
    executed action."""

    def __init__(self, buffer_size: int, observation_space: spaces.Space, action_space: spaces.Space, **kwargs: Any):
        super().__init__(buffer_size, observation_space, stored_actions(action_space), **kwargs)
        self.action_space, self._code = action_space, action_code(action_space)
        shape = (self.buffer_size, self.n_envs, self._code.dim)
        self.plan_mean = np.zeros(shape, dtype=np.float32)
        self.plan_std = np.zeros(shape, dtype=np.float32)
        self._next_plan: tuple[np.ndarray, np.ndarray] | None = None
        self.added = 0  # rows ever stored, overwritten ones too
        self.history = uuid4().hex  # whose rows these are

    def reset(self) -> None:
        super().reset()
        self.added, self.history = 0, uuid4().hex

    def stage_plan(self, mean: np.ndarray, std: np.ndarray) -> None:
        """Mean and spread ``(n_envs, A)`` of the plans behind the transition that is added next; a negative spread means
        that Mode-2 did not act."""
        self._next_plan = (mean, std)

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        self.plan_mean[self.pos], self.plan_std[self.pos] = self._next_plan or (0.0, -1.0)
        self._next_plan = None
        super().add(obs, next_obs, action, reward, done, infos)
        self.added += 1

    def cut(self) -> None:
        """End the episodes that are under way, as by a time limit: what is added next does not follow them."""
        if self.size():
            newest = self.pos - 1
            self.timeouts[newest] = np.where(self.dones[newest] > 0, self.timeouts[newest], 1.0)
            self.dones[newest] = 1.0

    def sample_sequences(self, batch_size: int, length: int, env: VecNormalize | None = None) -> SequenceBatch:
        """``batch_size`` windows of ``length`` steps, their starts drawn from everything stored, the more often the newer:
        the density grows linearly with time, so that the newest are met twice as often as on average (compare Wang & Ross,
        1906.04009). Uniform draws spend an agent that has got better on what it did when it was worse."""
        # numpy's global generator, as in all of SB3's buffers: `seed` of the algorithm governs it.
        rows = (self.size() * np.sqrt(np.random.random_sample(batch_size))).astype(np.int64)  # noqa: NPY002
        envs = np.random.randint(0, self.n_envs, size=batch_size)  # noqa: NPY002
        return self.window(rows, envs, length, env)

    def window(self, age: np.ndarray, envs: np.ndarray, length: int, env: VecNormalize | None = None) -> SequenceBatch:
        """Windows ``(B, length)`` that start at the given ages (0: the oldest transition) in the given environments."""
        offsets = age[:, None] + np.arange(length)  # (B, T), counted from the oldest transition
        steps = (offsets + (self.pos if self.full else 0)) % self.buffer_size
        column = envs[:, None]
        done = self.dones[steps, column]
        ended_before = np.cumsum(done, axis=1) - done
        mask = (offsets < self.size()) & (ended_before == 0)
        first = self._normalize_obs(self.observations[steps[:, 0], envs], env)
        rest = self._normalize_obs(self.next_observations[steps, column], env)
        obs = np.concatenate([np.asarray(first)[:, None], np.asarray(rest)], axis=1)
        cost = -self._normalize_reward(self.rewards[steps, column], env)
        return SequenceBatch(
            obs=self._tensor(obs.reshape(*obs.shape[:2], *(self.observation_space.shape or ()))),
            action=self._action_vectors(self.actions[steps, column]),
            cost=self._tensor(cost),
            terminated=self._tensor(done * (1.0 - self.timeouts[steps, column])),
            mask=self._tensor(mask.astype(np.float32)),
            plan_mean=self._tensor(self.plan_mean[steps[:, 0], envs]),
            plan_std=self._tensor(self.plan_std[steps[:, 0], envs]),
        )

    def _action_vectors(self, actions: np.ndarray) -> Tensor:
        if isinstance(self._code, ChoiceCode):
            return self._code.vectors(self._tensor(actions))
        return self._tensor(actions).float()

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
