"""Collecting: acting with working memory while learning, and what of it is stored."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import RolloutReturn
from stable_baselines3.common.utils import set_random_seed

from jepa_agent.diagnostics import decision_measures, realised_gain
from jepa_agent.environments import Unusable, check_finite, check_last_observations, seed_env
from jepa_agent.exploration import RandomActions
from jepa_agent.interruption import poll
from jepa_agent.observations import BAD_OBSERVATION, RESTARTED
from jepa_agent.replay_buffer import SequenceReplayBuffer, reward_unit
from jepa_agent.steering import SteerableAlgorithm
from jepa_agent.types import Decision

_PATIENCE = 4


class CollectingAlgorithm(SteerableAlgorithm):
    """What happens between two rounds of learning: actions are decided, plans and gains noted, transitions stored."""

    saved_parts = (*SteerableAlgorithm.saved_parts, "_random_actions")
    last_decision: Decision | None = None
    _last_cost: np.ndarray | None = None
    _bad_observations = 0  # that ended an episode
    _env_restarts = 0  # of environments that failed in an episode

    def _setup_model(self) -> None:
        super()._setup_model()
        self._random_actions = RandomActions(self.action_space, self.n_envs)

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed SB3's generators, the environment's, and the policy's own."""
        if seed is None:
            return
        set_random_seed(seed, using_cuda=self.device.type == "cuda")
        self.action_space.seed(seed)
        if self.env is not None:
            seed_env(self.env, seed)
        if hasattr(self, "policy"):  # not when a model is set up: its policy comes later
            self.policy.generator.manual_seed(seed)
            self._random_actions = RandomActions(self.action_space, self.n_envs)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """As SB3's, with working memory threaded from step to step and what was decided kept for storing."""
        poll()
        if self._last_obs is None:
            self._begin_episodes()
        assert self._last_obs is not None
        if self._last_episode_starts is None or np.any(self._last_episode_starts):
            check_finite("first observation", self._last_obs, self.num_timesteps)
        self._last_obs = deepcopy(self._last_obs)  # what the environment handed out it may fill anew when it steps
        last, self.last_decision = self.last_decision, None
        if self._knows_nothing(learning_starts):
            return self._to_take_and_to_store(self._random_actions())
        policy = self.policy
        assert self._last_obs is not None
        assert self._last_episode_starts is not None
        obs, _ = policy.obs_to_tensor(self._last_obs)
        before = policy.recall(self._state, n_envs)
        starts = torch.as_tensor(self._last_episode_starts, dtype=torch.bool, device=self.device)
        noise = None
        if action_noise is not None and policy.squash_output:
            noise = torch.as_tensor(action_noise(), dtype=torch.float32, device=self.device).reshape(n_envs, -1)
        self.last_decision, memory = policy.act(obs, before.clear(starts), deterministic=False, noise=noise)
        self._state = memory.pack()
        policy.learn_gains(self.last_decision)
        measures = decision_measures(self.last_decision, policy.mode_switch.watchful)
        if last is not None and (planned := last.planned & ~starts).any():
            cost = torch.as_tensor(self._last_cost, device=self.device)
            gain = realised_gain(last, cost, self.last_decision, self.gamma)
            measures["mode/gain_realised"] = float(gain[planned].mean())
        for name, value in measures.items():
            self.logger.record_mean(name, value)
        return self._to_take_and_to_store(policy.to_env(self.last_decision.action))

    def _to_take_and_to_store(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Actions for the environment, which may write into them, and apart from them what the buffer keeps."""
        return action, self.policy.scale_action(action) if self.policy.squash_output else action.copy()

    def _count_bad_observations(self, infos: list[dict[str, Any]]) -> None:
        """Log how many episodes have ended because of what could not be learned from, as `EndOnBadObservation` tells, or of
        an environment that failed, as `RestartingEnv` does."""
        self._bad_observations += sum(bool(info.get(BAD_OBSERVATION)) for info in infos)
        if self._bad_observations:
            self.logger.record("rollout/bad_observations", self._bad_observations)
        self._env_restarts += sum(bool(info.get(RESTARTED)) for info in infos)
        if self._env_restarts:
            self.logger.record("rollout/env_restarts", self._env_restarts)

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> RolloutReturn:
        try:
            return super().collect_rollouts(*args, **kwargs)
        except Unusable as error:  # the environments do not know how many steps there were
            step = self.num_timesteps + self.n_envs if error.step is None else error.step
            raise Unusable(error.environment, error.what, step) from error

    def _knows_nothing(self, learning_starts: int) -> bool:
        """Whether to act at random still: for ``learning_starts`` steps, and on to the end of a first episode unless that is
        far off; how it ends may be all there is to learn."""
        return self.num_timesteps < learning_starts or (
            self._episode_num == 0 and self.num_timesteps < _PATIENCE * learning_starts
        )

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        assert isinstance(replay_buffer, SequenceReplayBuffer)
        assert self._last_obs is not None
        # What the environments gave was looked at where it came from; this is what wrappers have made of it.
        check_finite("reward", reward, self.num_timesteps)
        check_last_observations(dones, infos, self.observation_space, self.num_timesteps)
        check_finite("observation", new_obs, self.num_timesteps)
        self._count_bad_observations(infos)
        if self.last_decision is not None:
            mean, std = self.last_decision.plan_mean, self.last_decision.plan_std
            replay_buffer.stage_plan(mean.cpu().numpy(), std.cpu().numpy())
        normalizer = self._vec_normalize_env
        raw = reward if normalizer is None else normalizer.get_original_reward()
        self.policy.observe_scales(self._last_obs, raw, reward_unit(normalizer))
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        self._last_episode_starts, self._last_cost = dones.copy(), -reward
