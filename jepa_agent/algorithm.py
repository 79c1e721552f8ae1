"""Learning: what the agent does with its experience."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from jepa_agent.collecting import CollectingAlgorithm
from jepa_agent.config import AgentConfig, PlannerConfig, as_kwargs
from jepa_agent.environments import check_kind, guard_environments
from jepa_agent.interruption import poll
from jepa_agent.losses.actor import distillation_loss, value_gradient_loss
from jepa_agent.losses.energy import energy_loss
from jepa_agent.losses.prediction import cost_loss, prediction_loss, termination_loss
from jepa_agent.losses.value import n_step_return, value_loss
from jepa_agent.mode_switch import ModeSwitch
from jepa_agent.networks import MemoryNetwork, random_latents
from jepa_agent.planning import Planner
from jepa_agent.policy import CnnPolicy, JEPAPolicy, MlpPolicy, MultiInputPolicy
from jepa_agent.replay_buffer import SequenceReplayBuffer, buffer_for
from jepa_agent.spaces import check_spaces
from jepa_agent.tensor_ops import masked_mean, pessimistic, polyak_update, spread
from jepa_agent.types import SequenceBatch

_DEFAULT = AgentConfig()
_MOST_SKIPPED = 10


class JEPA(CollectingAlgorithm):
    """A joint embedding predictive agent with Stable-Baselines3's face.

    ``JEPA("MlpPolicy", "CartPole-v1").learn(5_000)``. The settings are documented in `AgentConfig`; sizes of the networks
    go into ``policy_kwargs`` (`ModelConfig`), and so does the optimizer, AdamW with a weight decay of 0.01 unless
    ``optimizer_class`` and ``optimizer_kwargs`` say otherwise. ``planner`` is a `PlannerConfig` or a planner of your own;
    ``mode`` one of `make_mode_switch`'s names or a `ModeSwitch`, and can be changed at any time by `set_mode`; ``memory``
    one of ``none, gru, attention`` or a `MemoryNetwork`, which is copied.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    policy: JEPAPolicy
    replay_buffer: SequenceReplayBuffer
    _skipped_updates = 0  # whose losses or gradients were not finite
    _skipped_in_a_row = 0

    def __init__(
        self,
        policy: str | type[JEPAPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = _DEFAULT.learning_rate,
        buffer_size: int = _DEFAULT.buffer_size,
        learning_starts: int = _DEFAULT.learning_starts,
        batch_size: int = _DEFAULT.batch_size,
        tau: float = _DEFAULT.tau,
        gamma: float = _DEFAULT.gamma,
        train_freq: int | tuple[int, str] = _DEFAULT.train_freq,
        gradient_steps: int = _DEFAULT.gradient_steps,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = _DEFAULT.n_steps,
        train_horizon: int = _DEFAULT.train_horizon,
        memory: str | MemoryNetwork = _DEFAULT.memory,
        mode: str | ModeSwitch = "auto",
        planner: PlannerConfig | Planner | None = None,
        exploration_std: float = _DEFAULT.exploration_std,
        target_noise: float = _DEFAULT.target_noise,
        pessimism: float = _DEFAULT.pessimism,
        plan_pessimism: float = _DEFAULT.plan_pessimism,
        prediction_coef: float = _DEFAULT.prediction_coef,
        cost_coef: float = _DEFAULT.cost_coef,
        termination_coef: float = _DEFAULT.termination_coef,
        energy_coef: float = _DEFAULT.energy_coef,
        distillation_coef: float = _DEFAULT.distillation_coef,
        regularisation_coef: float = _DEFAULT.regularisation_coef,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        super().__init__(
            policy=policy,
            env=env,
            learning_rate=learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            action_noise=action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            n_steps=n_steps,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=dict(policy_kwargs or {}),
            verbose=verbose,
            seed=seed,
            device=device,
            support_multi_env=True,
            sde_support=False,
        )
        self.train_horizon = train_horizon
        self.memory = memory
        self.mode = mode
        self.planner = planner
        self.exploration_std = exploration_std
        self.target_noise = target_noise
        self.pessimism = pessimism
        self.plan_pessimism = plan_pessimism
        self.prediction_coef = prediction_coef
        self.cost_coef = cost_coef
        self.termination_coef = termination_coef
        self.energy_coef = energy_coef
        self.distillation_coef = distillation_coef
        self.regularisation_coef = regularisation_coef
        self._check_settings()
        if _init_setup_model:
            self._check_buffer_size()
            for name in ("learning_starts", "batch_size"):
                if getattr(self, name) > buffer_size:
                    warnings.warn(f"buffer_size {buffer_size} is less than {name} {getattr(self, name)}", stacklevel=2)
            self._setup_model()

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """As SB3's, but what cannot work is refused before any wrapper trips over it, and last observations last."""
        check_kind(env)
        check_spaces(env.observation_space, env.action_space)
        wrapped = CollectingAlgorithm._wrap_env(env, verbose, monitor_wrapper)
        guard_environments(wrapped)
        return wrapped

    def _check_settings(self) -> None:
        """`ValueError` that names a setting out of range, or a part of the wrong kind."""
        numbers = {name: getattr(self, name) for name in as_kwargs(_DEFAULT)}
        for name in ("learning_rate", "train_freq"):
            if not isinstance(numbers[name], (int, float)):  # a schedule; (n, "episode")
                del numbers[name]
        AgentConfig(**numbers)
        if not (self.planner is None or isinstance(self.planner, (PlannerConfig, Planner))):
            raise ValueError(f"planner must be a PlannerConfig or a Planner, got {self.planner!r}")
        if self.optimize_memory_usage:
            raise ValueError("optimize_memory_usage is not supported: windows need the real last observation of an episode")

    def _check_buffer_size(self) -> None:
        """``ValueError`` if the buffer holds no whole window of each environment."""
        rows, window = self.buffer_size // self.n_envs, self.train_horizon + self.n_steps
        if rows < window:
            raise ValueError(
                f"buffer_size {self.buffer_size} keeps {rows} steps of each of {self.n_envs} environment(s), but learning "
                f"needs windows of train_horizon + n_steps = {window}: give at least {window * self.n_envs}"
            )

    def _setup_model(self) -> None:
        chosen = self.policy_kwargs
        own = {"gamma", "exploration_std", "plan_pessimism", "energy_weight", "memory", "planner", "mode"}
        if own & chosen.keys():
            raise ValueError(f"{', '.join(sorted(own & chosen.keys()))}: give to JEPA itself, not in policy_kwargs")
        self.policy_kwargs = {
            **chosen,
            "gamma": self.gamma,
            "exploration_std": self.exploration_std,
            "plan_pessimism": self.plan_pessimism,
            "energy_weight": self.energy_coef,
            "memory": self.memory,
            "planner": self.planner,
            "mode": self.mode,
        }
        if self.action_noise is not None and not isinstance(self.action_space, spaces.Box):
            raise ValueError(f"action_noise needs Box actions, got {self.action_space}: explore by exploration_std instead")
        self.replay_buffer_class = buffer_for(self.observation_space, self.replay_buffer_class)
        # n_steps is ours, not SB3's n-step buffer's; without this it would warn that it ignores it.
        n_steps, self.n_steps = self.n_steps, 1
        try:
            super()._setup_model()
        finally:
            self.policy_kwargs, self.n_steps = chosen, n_steps
        self.world_model = self.policy.world_model
        self.world_model_target = self.policy.world_model_target
        self.value_spread = torch.ones((), device=self.device)
        # What else an update may change; a features extractor of a user's may keep statistics.
        self._statistics: list[Tensor] = [self.value_spread, *self.world_model.buffers()]
        # Listed once: walking all modules costs more than the arithmetic on their parameters.
        self._parameters: list[Tensor] = list(self.world_model.parameters())
        self._target_parameters: list[Tensor] = list(self.world_model_target.parameters())
        self._actor_parameters = list(self.world_model.actor.parameters())

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        parts, tensors = super()._get_torch_save_params()
        return parts, [*tensors, "value_spread"]

    # ------------------------------------------------------------------ learning, one page

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Fit representation, value and actor ``gradient_steps`` times."""
        optimizer = self.policy.optimizer
        self._update_learning_rate(optimizer)
        if not math.isfinite(rate := optimizer.param_groups[0]["lr"]):
            raise ValueError(f"learning_rate is {rate} at step {self.num_timesteps}: its schedule must give finite numbers")
        terms: dict[str, Tensor] = {}
        with self.policy.in_training_mode():
            for _ in range(gradient_steps):
                poll()
                length = self.train_horizon + self.n_steps  # enough for n real steps from any imagined one on
                past = self.world_model.past_size
                batch = self.replay_buffer.sample_sequences(batch_size, length, env=self._vec_normalize_env, past=past)
                optimizer.zero_grad()
                before = [statistic.clone() for statistic in self._statistics]

                # Three gradients, none reaching into another's networks, and one step along all of them.
                z_hat, terms = self._learn_representation(batch)
                at = self._looked_at(batch_size)
                z, weight = z_hat[at], batch.mask[at]
                terms["value"], target = self._learn_value(batch, z, weight, at)
                terms.update(self._learn_actor(batch, z, weight, at))

                if self._is_finite(terms):
                    optimizer.step()
                    self._update_targets()
                    self._n_updates += 1
                else:
                    torch._foreach_copy_(self._statistics, before)

        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if self._skipped_updates:
            self.logger.record("train/skipped_updates", self._skipped_updates)
        for name, value in terms.items():
            self.logger.record_mean(f"train/{name}_loss", value.item())
        self.logger.record_mean("train/cost_to_go", target.mean().item())

    def _is_finite(self, terms: dict[str, Tensor]) -> bool:
        """Whether losses and gradients are finite; an update along others is skipped and counted. `FloatingPointError` after
        ``_MOST_SKIPPED`` in a row: what was stored or learned is beyond repair by more of the same."""
        gradients = [weight.grad for weight in self._parameters if weight.grad is not None]
        sizes = torch.stack([*torch._foreach_norm(gradients), *(term.detach() for term in terms.values())])
        if sizes.sum().isfinite():
            self._skipped_in_a_row = 0
            return True
        self._skipped_updates += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= _MOST_SKIPPED:
            raise FloatingPointError(
                f"{_MOST_SKIPPED} updates in a row had losses or gradients that are not finite, the last of step "
                f"{self.num_timesteps}: a lower learning_rate, rewards of smaller size or VecNormalize may help"
            )
        return False

    def _learn_representation(self, batch: SequenceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Imagine along the actions taken; meet the latents, costs and ends that were observed.

        Returns the imagined latents ``(B, T+1, D)``, from here on fixed, and the terms of the loss.
        """
        model, heads, horizon = self.world_model, self.world_model.cost_module, self.train_horizon
        action, mask = batch.action[:, :horizon], batch.mask[:, :horizon]
        with torch.no_grad():
            z_target = self.world_model_target.observe(batch, 1, horizon)
        z_hat = model.imagine(model.observe(batch, 0, 1)[:, 0], action)
        cost, logit = heads.step(z_hat[:, :-1], action)
        terms = {
            "prediction": masked_mean(prediction_loss(z_hat[:, 1:], z_target), mask),
            "cost": masked_mean(cost_loss(cost, batch.cost[:, :horizon] / heads.cost_scale), mask),
            "termination": masked_mean(termination_loss(logit, batch.terminated[:, :horizon]), mask),
        }
        if self.energy_coef:
            visited = z_hat[:, 0].detach()
            anywhere = random_latents(len(visited), visited.shape[1], None, visited.device)
            terms["energy"] = energy_loss(heads.energy(visited), heads.energy(anywhere)).mean()
        torch.stack([getattr(self, f"{name}_coef") * term for name, term in terms.items()]).sum().backward()
        return z_hat.detach(), terms

    def _looked_at(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Row and step, both ``(B,)``, at which value and actor look at each window: half of the steps are 0, where the
        agent was, the others where it imagined to be, so that a planner may ask about either."""
        start = torch.randint(self.train_horizon, (batch_size,), device=self.device)
        start *= torch.rand(batch_size, device=self.device) < 0.5
        return torch.arange(batch_size, device=self.device), start

    def _learn_value(
        self, batch: SequenceBatch, z: Tensor, weight: Tensor, at: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Costs-to-go of the actions taken in latents ``(B, D)``, those ``at`` which each window is looked at: the loss and
        its targets."""
        cost_to_go = self.world_model.cost_module.cost_to_go.dealt(z, batch.action[at], judges=2)
        target = self._value_target(batch, at)
        loss = masked_mean(value_loss(cost_to_go, target / self.world_model.value_scale), weight)
        loss.backward()
        return loss, target

    @torch.no_grad()
    def _value_target(self, batch: SequenceBatch, at: tuple[Tensor, Tensor]) -> Tensor:
        """Cost-to-go ``(B,)`` from each window's step on, in the units of -reward."""
        model, (_, start) = self.world_model_target, at
        known = n_step_return(batch.cost, batch.terminated, batch.mask, self.gamma, start, self.n_steps)
        z_next = model.observe(batch, known.last + 1, 1)[:, 0]
        action = model.actor.relaxed(model.actor.net(z_next), self.target_noise)
        ahead = model.cost_module.cost_to_go.dealt(z_next, action, judges=2) * model.value_scale
        return known.cost + known.discount * pessimistic(ahead, self.pessimism)

    def _learn_actor(self, batch: SequenceBatch, z: Tensor, weight: Tensor, at: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Down the cost-to-go, and at a window's first step, where plans are stored, towards what the planner found."""
        actor, heads = self.world_model.actor, self.world_model.cost_module
        output = actor.net(z)
        cost_to_go = actor.expected(output, lambda action: heads.cost_to_go.dealt(z, action, judges=1)[0])
        with torch.no_grad():
            self.value_spread.lerp_(spread(cost_to_go).clamp(min=1e-3), 0.01)
            plan_cost = heads.cost_to_go.dealt(z, batch.plan_mean, judges=1)[0]
        planned = (batch.plan_std[:, 0] >= 0) & (at[1] == 0)
        promise = (cost_to_go - plan_cost) / self.value_spread
        pull = distillation_loss(actor.imitation(output, batch.plan_mean), promise, planned)
        terms = {
            "actor": masked_mean(value_gradient_loss(cost_to_go, self.value_spread), weight),
            "distillation": self.distillation_coef * pull.mean(),
            "regularisation": self.regularisation_coef * masked_mean(actor.regularisation(output), weight),
        }
        # The cost-to-go judges the actor; it is not to be talked round by it.
        torch.stack(list(terms.values())).sum().backward(inputs=self._actor_parameters)
        return terms

    def _update_targets(self) -> None:
        polyak_update(self._parameters, self._target_parameters, self.tau)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "JEPA",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> JEPA:
        """Collect and learn for ``total_timesteps`` environment steps, counted over all environments."""
        self._check_buffer_size()
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
