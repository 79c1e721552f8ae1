"""The agent. Yann LeCun, "A path towards autonomous machine intelligence" (2022), as a Stable-Baselines3 algorithm.

====================  ==================================================  =============================
module of the paper   here                                                 equation
====================  ==================================================  =============================
perception            `WorldModel.encode`, with working memory             z_t = Enc(o_t)
world model           `WorldModel.predict`, `imagine`                      z'_{t+1} = Pred(z_t, a_t)
cost, intrinsic       `WorldModel.cost`                                    c_t, P(end) = C(z_t, a_t)
cost, critic          `WorldModel.cost_to_go`, an ensemble                 Q(z_t, a_t) = c_t + gamma Q(z_{t+1}, pi)
actor, Mode-1         `WorldModel.actor`                                   a_t ~ pi(z_t), down trajectory_cost(z, .)
actor, Mode-2         `planning.Planner`, `acting.deliberation`            argmin_a trajectory_cost(z_t, a)
configurator          `acting.mode_switch`, `objectives.Objectives`        which of the two, and for which cost
short-term memory     `acting.working_memory`                              from step to step through `predict`
====================  ==================================================  =============================

Nothing is decoded, so a constant latent would predict itself without error. It does not come about, because the targets are
latents of a slow copy of the encoder through which no gradient flows (Grill et al., 2006.07733), because latents lie on a
sphere, and because costs and ends of episodes must be read from them. The copy must be slow: with one that follows in ten
updates, latents of neighbouring states of MountainCarContinuous-v0 came ten times as near to one another within 2,000 (one
seed), until the critic could not tell them apart. The nearest agents are TD-MPC2 (2310.16828), MR.Q (2501.16142) and, for
the actor, DHMBPO (2512.15439).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn, Schedule, TensorDict
from stable_baselines3.common.utils import configure_logger, get_system_info, set_random_seed
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from jepa_agent.acting.exploration import make_exploration
from jepa_agent.acting.mode_switch import ModeSwitch
from jepa_agent.acting.working_memory import WorkingMemory
from jepa_agent.config import AgentConfig, PlannerConfig, as_kwargs, did_you_mean, with_named_arguments
from jepa_agent.environments.guards import (
    Unusable,
    check_finite,
    check_kind,
    check_last_observations,
    guard_environments,
    seed_env,
)
from jepa_agent.environments.observations import BAD_OBSERVATION, RESTARTED
from jepa_agent.extras import needs
from jepa_agent.interruption import poll
from jepa_agent.learning.adaptation import check_world, in_another_world
from jepa_agent.learning.capture import CapturedGradients, Gradients
from jepa_agent.learning.diagnostics import decision_measures, realised_gain
from jepa_agent.learning.progress_bar import PhasedProgressBar
from jepa_agent.learning.replay_buffer import SequenceReplayBuffer, buffer_for, reward_unit
from jepa_agent.learning.representation import (
    RepresentationTerm,
    check_terms,
    default_terms,
    imagine_along,
    representation_losses,
)
from jepa_agent.learning.steps import (
    Samples,
    actor_losses,
    critic_loss,
    sample_training_steps,
    value_target,
    with_intrinsic_costs,
)
from jepa_agent.learning.terms import TERMS
from jepa_agent.learning.watch import LatentCallback, with_latents_watched
from jepa_agent.model.memory import MemoryNetwork
from jepa_agent.objectives.constraints import Keep
from jepa_agent.objectives.cost_to_go import FittedCostToGo
from jepa_agent.objectives.costs import Cost
from jepa_agent.objectives.experience import gather_experience
from jepa_agent.objectives.objectives import Objectives
from jepa_agent.persistence import agent_file, minari_data, replay_rows, run_folder
from jepa_agent.persistence.archive import as_checkpoint_error, write
from jepa_agent.persistence.checkpoint_folder import read_experience
from jepa_agent.persistence.logs import log_configuration, log_final_score, make_resumable
from jepa_agent.persistence.run_folder import SavedAt
from jepa_agent.planning import Planner
from jepa_agent.policy import CnnPolicy, JEPAPolicy, MlpPolicy, MultiInputPolicy, check_planner_type
from jepa_agent.spaces import check_spaces
from jepa_agent.tensor_ops import polyak_update
from jepa_agent.types import Decision, SequenceBatch

if TYPE_CHECKING:
    from minari import MinariDataset
    from typing_extensions import Self

_DEFAULT = AgentConfig()
_HANDED_TO_POLICY = ("settings", "memory", "planner", "mode", "representation")
_MOST_SKIPPED = 10  # updates in a row
_PATIENCE = 4  # times learning_starts
_ENCODER_LAG = 20  # updates: the rate of the target encoder is 1 at first and falls as 20 / updates


class JEPA(OffPolicyAlgorithm):
    """A joint embedding predictive agent with Stable-Baselines3's face: ``JEPA("MlpPolicy", "CartPole-v1").learn(5_000)``.

    Args:
        policy: ``"MlpPolicy"``, ``"CnnPolicy"`` or ``"MultiInputPolicy"`` (one class: the encoder follows from the space)
            or a subclass of `JEPAPolicy`.
        env: A Gymnasium environment, its id, or a VecEnv. Observations: Box, images, Dict; actions: Box, Discrete,
            MultiDiscrete, MultiBinary.
        learning_rate: Step of AdamW for all networks, or a schedule of it; its weight decay is 0.01 unless
            ``policy_kwargs=dict(optimizer_kwargs=...)`` says otherwise.
        buffer_size: Transitions kept, over all environments.
        learning_starts: Random steps before learning, whose updates are then made at once; the first episode is acted at
            random to its end, for at most four times as long.
        batch_size: Windows per update.
        tau: Step of the target critic and actor towards the online ones, in [0, 1].
        gamma: Discount per step, in [0, 1].
        train_freq: Environment steps between rounds of updates, or ``(n, "episode")``.
        gradient_steps: Updates per round; -1 means as many as steps were collected.
        action_noise: SB3's noise, added to Box actions beside the exploration of the actor's own.
        replay_buffer_class: A subclass of `SequenceReplayBuffer`.
        replay_buffer_kwargs: Its further arguments.
        optimize_memory_usage: Not supported: windows need the real last observation of an episode.
        n_steps: Observed costs summed before the cost-to-go bootstraps.
        encoder_tau: Step of the target encoder, whose latents are predicted, in [0, 1]; a fast one lets latents contract.
        train_horizon: Imagined steps T that the world model is trained on.
        memory: ``"none"``, ``"gru"``, ``"attention"``, or a `MemoryNetwork`, which is copied: what folds the last steps into
            the latent where the environment shows only a part of its state.
        mode: Who acts: one of `make_mode_switch`'s names or a `ModeSwitch`; changed at any time by `set_mode`.
        planner: How Mode-2 searches: a `PlannerConfig` or a `Planner`; None is the default for the action space.
        representation: What the world model is fitted to, a list of `RepresentationTerm`, of which
            `jepa_agent.learning.terms` has more; None is prediction, cost, termination, InfoNCE for Box actions, and the
            energy, by the weights below.
        exploration: What acts before learning starts, one of `acting.exploration.EXPLORATIONS`.
        actor_horizon: Imagined steps along which the actor is improved; 0 is the cost-to-go alone.
        pessimism: Standard deviations of the ensemble added to the targets of the cost-to-go.
        plan_pessimism: Standard deviations of the ensemble by which a plan must beat the actor's own sequence.
        prediction_coef: Weight of latent prediction.
        cost_coef: Weight of immediate cost.
        termination_coef: Weight of termination.
        infonce_coef: Weight of telling latents apart, for Box actions alone.
        energy_coef: Weight of the contrastive energy, in learning and in the cost of plans; 0 builds none.
        distillation_coef: Weight of imitating what the planner found.
        regularisation_coef: Weight that keeps the actor from saturating.
        capture: Whether updates are recorded as a CUDA graph and replayed; of no effect on a CPU.
        stats_window_size: Episodes over which ``rollout/`` values are averaged.
        tensorboard_log: Folder for TensorBoard's events: what is logged, the configuration as text, and the hparams tab.
        policy_kwargs: Sizes of the networks (`ModelConfig`) and more that `JEPAPolicy` takes.
        verbose: 0 is silent, 1 prints what is logged, 2 also debugging messages.
        seed: Of all random numbers, the environment's too.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.

    Raises:
        ValueError: A setting out of range, a space that is not supported, or a buffer too small for one window.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    # What is saved beside arguments and weights: numbers; with a run also parts that have a state_dict, and generators.
    # Terms of other classes than these are not stored, but asked for.
    saved_counters: ClassVar[tuple[str, ...]] = (
        "num_timesteps",
        "_total_timesteps",
        "_num_timesteps_at_start",
        "_episode_num",
        "_n_updates",
        "_n_representation_updates",
        "_current_progress_remaining",
        "_updates_owed",
        "_skipped_updates",
        "_bad_observations",
        "_env_restarts",
        "_cpu_seconds",
    )
    saved_parts: ClassVar[tuple[str, ...]] = ("_random_actions",)
    saved_generators: ClassVar[tuple[str, ...]] = ("policy.generator",)
    saved_terms: ClassVar[tuple[type[RepresentationTerm], ...]] = TERMS
    policy: JEPAPolicy
    replay_buffer: SequenceReplayBuffer
    last_decision: Decision | None = None
    saved_at: SavedAt | None = None
    _memory: WorkingMemory | None = None  # from step to step
    _last_cost: np.ndarray | None = None
    _bad_observations = 0  # that ended an episode
    _env_restarts = 0  # of environments that failed in an episode
    _updates_owed = 0  # of the random steps
    _cpu_seconds = 0.0  # of the run so far, where a callback counts them
    _n_representation_updates = 0  # that left value and actor alone; _n_updates does not count them
    _skipped_updates = 0  # whose losses or gradients were not finite
    _skipped_in_a_row = 0

    @with_named_arguments
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
        encoder_tau: float = _DEFAULT.encoder_tau,
        train_horizon: int = _DEFAULT.train_horizon,
        memory: str | MemoryNetwork = _DEFAULT.memory,
        mode: str | ModeSwitch = "auto",
        planner: PlannerConfig | Planner | None = None,
        representation: Sequence[RepresentationTerm] | None = None,
        exploration: str = _DEFAULT.exploration,
        actor_horizon: int = _DEFAULT.actor_horizon,
        pessimism: float = _DEFAULT.pessimism,
        plan_pessimism: float = _DEFAULT.plan_pessimism,
        prediction_coef: float = _DEFAULT.prediction_coef,
        cost_coef: float = _DEFAULT.cost_coef,
        termination_coef: float = _DEFAULT.termination_coef,
        infonce_coef: float = _DEFAULT.infonce_coef,
        energy_coef: float = _DEFAULT.energy_coef,
        distillation_coef: float = _DEFAULT.distillation_coef,
        regularisation_coef: float = _DEFAULT.regularisation_coef,
        capture: bool = _DEFAULT.capture,
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
        given = locals()
        self.settings = self._make_settings({name: given[name] for name in as_kwargs(_DEFAULT)})
        self.memory = memory
        self.mode = mode
        self.planner = planner
        self.representation = representation
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
        wrapped = OffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)
        guard_environments(wrapped)
        return wrapped

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise ValueError(f"unknown policy {policy_name!r}{did_you_mean(policy_name, self.policy_aliases)}")
        return self.policy_aliases[policy_name]

    def _check_settings(self) -> None:
        """`ValueError` that names a part of the wrong kind, or a setting in the wrong place."""
        if own := sorted({*as_kwargs(_DEFAULT), *_HANDED_TO_POLICY} & self.policy_kwargs.keys()):
            raise ValueError(f"{', '.join(own)}: give to JEPA itself, not in policy_kwargs")
        if not (isinstance(self.policy_class, type) and issubclass(self.policy_class, JEPAPolicy)):
            names = ", ".join(map(repr, self.policy_aliases))
            raise ValueError(f"policy must be one of {names} or a subclass of JEPAPolicy, got {self.policy_class!r}")
        check_planner_type(self.planner)
        if self.representation is not None:
            check_terms(self.representation)
        if self.optimize_memory_usage:
            raise ValueError("optimize_memory_usage is not supported: windows need the real last observation of an episode")

    @staticmethod
    def _make_settings(given: dict[str, Any]) -> AgentConfig:
        """The settings as numbers, by name, in one frozen object. ``ValueError`` that names one out of range."""
        no_number = {name for name in ("learning_rate", "train_freq") if not isinstance(given[name], (int, float))}
        # A schedule, and (n, "episode"), are SB3's to keep.
        return AgentConfig(**{name: value for name, value in given.items() if name not in no_number})

    def _check_buffer_size(self) -> None:
        """``ValueError`` if the buffer holds no whole window of each environment."""
        rows, window = self.buffer_size // self.n_envs, self.settings.train_horizon + self.n_steps
        if rows < window:
            raise ValueError(
                f"buffer_size {self.buffer_size} keeps {rows} steps of each of {self.n_envs} environment(s), but learning "
                f"needs windows of train_horizon + n_steps = {window}: give at least {window * self.n_envs}"
            )

    def _setup_model(self) -> None:
        if self.action_noise is not None and not isinstance(self.action_space, spaces.Box):
            raise ValueError(f"action_noise needs Box actions, got {self.action_space}: the actor explores by itself")
        # As SB3's `_setup_model`, but with our buffer, and a policy that is given more than `policy_kwargs`.
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.replay_buffer_class = buffer_for(self.observation_space, self.replay_buffer_class)
        self.replay_buffer = self.replay_buffer_class(
            self.buffer_size,
            self.observation_space,
            self.action_space,
            device=self.device,
            n_envs=self.n_envs,
            **self.replay_buffer_kwargs,
        )
        own = self.settings
        infonce = own.infonce_coef if isinstance(self.action_space, spaces.Box) else 0.0
        self.terms = self.representation or default_terms(
            own.prediction_coef, own.cost_coef, own.termination_coef, infonce, own.energy_coef
        )
        handed = {**{name: getattr(self, name) for name in _HANDED_TO_POLICY}, "representation": self.terms}
        make, given = self.policy_class, {**handed, **self.policy_kwargs}
        policy = make(self.observation_space, self.action_space, self.lr_schedule, **given)
        self.policy = policy.to(self.device)  # type: ignore[assignment]
        self._convert_train_freq()
        self._random_actions = make_exploration(self.settings.exploration, self.action_space, self.n_envs)
        self.objectives = Objectives(self.policy)
        self._watch = LatentCallback()
        # Logged beside each loss, which is logged unweighted.
        self._weights = {
            **{term.name: term.weight for term in self.terms},
            "value": 1.0,
            "actor": 1.0,
            "distillation": own.distillation_coef,
            "regularisation": own.regularisation_coef,
        }
        self.world_model = self.policy.world_model
        self.world_model_target = self.policy.world_model_target
        self.value_spread = torch.ones((), device=self.device)
        # What else an update may change; a features extractor of a user's may keep statistics.
        self._statistics: list[Tensor] = [self.value_spread, *self.world_model.buffers()]
        # Listed once: walking all modules costs more than the arithmetic on their parameters.
        self._parameters: list[Tensor] = list(self.world_model.parameters())
        online, targets = self.world_model.perception_and_heads(), self.world_model_target.perception_and_heads()
        self._perception, self._heads = zip(online, targets, strict=True)
        self._actor_parameters = list(self.world_model.actor.parameters())
        self._captured: dict[tuple[bool, int], CapturedGradients] = {}
        if own.capture and self.world_model.actor.compares_at_random:
            raise ValueError(f"capture: what is compared of {self.action_space} is drawn anew at every update, leave it out")

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
            self._random_actions = make_exploration(self.settings.exploration, self.action_space, self.n_envs)

    # ------------------------------------------------------------------ learning, one page

    def train(self, gradient_steps: int, batch_size: int = 64, representation_only: bool = False) -> None:
        """Fit representation, value and actor.

        The first time, the updates of the random steps are made, too: no step of experience goes without.

        Args:
            gradient_steps: How many times.
            batch_size: Windows per update.
            representation_only: Whether to leave value and actor alone, and the representation's terms that read rewards.

        Raises:
            ValueError: The learning rate's schedule gives a number that is not finite.
            FloatingPointError: Losses or gradients of many updates in a row were not finite.
        """
        terms = self.terms
        if representation_only:
            terms = [term for term in terms if not term.reads_reward]
        else:
            gradient_steps += self._updates_owed
            self._updates_owed = gradient_steps  # what a stop leaves over is made when learning goes on
            if not self._n_updates:
                self.policy.begin_values()
        optimizer, past = self.policy.optimizer, self.world_model.past_size
        self._update_learning_rate(optimizer)
        if not math.isfinite(rate := optimizer.param_groups[0]["lr"]):
            raise ValueError(f"learning_rate is {rate} at step {self.num_timesteps}: its schedule must give finite numbers")
        length = self.settings.train_horizon + self.n_steps  # enough for n real steps from any imagined one on
        fit = self._fitting(terms, representation_only, batch_size)
        with self.policy.in_training_mode():
            for _ in range(gradient_steps):
                poll()
                batch = self.replay_buffer.sample_sequences(batch_size, length, self._vec_normalize_env, past)
                statistics = [statistic.clone() for statistic in self._statistics]
                found = fit(batch)  # three gradients, none reaching into another's networks, and one step along all of them
                measures = dict(zip(found, torch.stack([*found.values()]).tolist(), strict=True))  # one copy to the host
                if self._is_finite(measures):
                    optimizer.step()
                    made = self._n_updates + self._n_representation_updates
                    polyak_update(*self._perception, max(self.settings.encoder_tau, _ENCODER_LAG / (made + _ENCODER_LAG)))
                    polyak_update(*self._heads, self.tau)
                    self._n_updates += not representation_only
                    self._n_representation_updates += representation_only
                else:
                    torch._foreach_copy_(self._statistics, statistics)
                self._updates_owed -= not representation_only

                for name, value in measures.items():
                    self.logger.record_mean(f"train/{name}", value)

        for name, weight in self._weights.items():
            self.logger.record(f"train/{name}_weight", weight, exclude=("stdout", "log"))
        self.logger.record("train/temperature", self.world_model.actor.temperature.item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if self._skipped_updates:
            self.logger.record("train/skipped_updates", self._skipped_updates)

    def _fit(
        self, batch: SequenceBatch, terms: Sequence[RepresentationTerm], representation_only: bool
    ) -> dict[str, Tensor]:
        """Three gradients, none reaching into another's networks, for one step along all of them: what is logged of them, by
        name, losses unweighted."""
        self.policy.optimizer.zero_grad()
        z_hat, losses = self._fit_representation(batch, terms)
        told: dict[str, Tensor] = {}
        if not representation_only:
            paid = with_intrinsic_costs(self.world_model_target, batch, terms)
            if paid is not batch:
                told["intrinsic_cost"] = (paid.cost - batch.cost).mean()
            samples = sample_training_steps(paid, z_hat)
            losses["value"], cost_to_go = self._fit_value(samples)
            losses.update(self._fit_actor(samples))
            told["cost_to_go"] = cost_to_go.mean()
        gradients = [weight.grad for weight in self._parameters if weight.grad is not None]
        told["gradient_norm"] = torch.stack(torch._foreach_norm(gradients)).norm()
        return {**{f"{name}_loss": loss.detach() for name, loss in losses.items()}, **told}

    def _fitting(self, terms: Sequence[RepresentationTerm], representation_only: bool, batch_size: int) -> Gradients:
        """`_fit` as a function of the batch alone, recorded on a GPU if that is asked for."""
        fit = partial(self._fit, terms=terms, representation_only=representation_only)
        if not self.settings.capture or self.device.type != "cuda":
            return fit
        key = representation_only, batch_size
        if key not in self._captured:
            self._captured[key] = CapturedGradients(fit, self._parameters, self._statistics)
        return self._captured[key]

    def _fit_representation(
        self, batch: SequenceBatch, terms: Sequence[RepresentationTerm]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Imagine along the actions taken, meet what was observed: latents ``(B, T+1, D)``, losses unweighted."""
        seen = imagine_along(self.world_model, self.world_model_target, batch, self.settings.train_horizon)
        total, losses = representation_losses(terms, seen)
        total.backward()
        return seen.z_hat.detach(), losses

    def _fit_value(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """Costs-to-go of the actions taken towards n observed steps and the target network's answer: loss and targets."""
        target = value_target(self.world_model, self.world_model_target, samples, self.n_steps, self.settings.pessimism)
        loss = critic_loss(self.world_model, samples, target)
        loss.backward()
        return loss, target

    def _fit_actor(self, samples: Samples) -> dict[str, Tensor]:
        """The actor down the cost of imagined steps, the world model frozen, and towards stored plans: unweighted losses."""
        own = self.settings
        losses = actor_losses(self.world_model, self.world_model_target, samples, self.value_spread, own.actor_horizon)
        total = torch.stack([self._weights[name] * loss for name, loss in losses.items()]).sum()
        total.backward(inputs=self._actor_parameters)
        return losses

    def _is_finite(self, measures: Mapping[str, float]) -> bool:
        """Whether losses and gradients are finite; an update along others is skipped and counted. `FloatingPointError` after
        ``_MOST_SKIPPED`` in a row: what was stored or learned is beyond repair by more of the same."""
        if all(map(math.isfinite, measures.values())):
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

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "JEPA",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Collect and learn.

        Args:
            total_timesteps: Environment steps, counted over all environments.
            callback: One of SB3's callbacks, a list of them, or a function. Latents are watched by a `LatentCallback` with
                its defaults unless there is one here.
            log_interval: Episodes between two dumps of what is logged; None never dumps.
            tb_log_name: Name of the run in ``tensorboard_log``.
            reset_num_timesteps: Whether to count steps anew; False goes on.
            progress_bar: Whether to show one, for which SB3 needs the packages of the extra ``cli``.

        Raises:
            MissingExtraError: A progress bar is asked for without its packages.
            ValueError: A cost of the user's is set, or the buffer holds no whole window.
        """
        self._check_buffer_size()
        if progress_bar:
            with needs("cli"):
                import_module("tqdm.rich")
        try:
            return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
        finally:
            if hasattr(self, "_logger"):
                log_final_score(self)

    def learn_offline(self, n_updates: int, representation_only: bool = False) -> Self:
        """Learn from what the replay buffer holds, as `load_replay_buffer` fills it; no environment is asked.

        Args:
            n_updates: Updates of ``batch_size`` windows each.
            representation_only: Whether to learn without rewards: the world model is fitted by the representation's terms
                that read none, value and actor stay as they are. `set_cost` then plans, `learn` goes on.

        Raises:
            ValueError: ``n_updates`` is below 1, the buffer is empty, another cost is set, or every term reads rewards.
        """
        if n_updates < 1:
            raise ValueError(f"n_updates must be at least 1, got {n_updates}")
        if not self.replay_buffer.size():
            raise ValueError("the replay buffer is empty: load_replay_buffer or learn first")
        if representation_only and not any(term.weight and not term.reads_reward for term in self.terms):
            raise ValueError("every term of the representation reads rewards: give JEPA one that does not, as Prediction()")
        self._check_learned_cost()
        self._check_buffer_size()
        if not hasattr(self, "_logger"):
            self.set_logger(configure_logger(self.verbose, None, "JEPA", True))
        try:
            self.train(n_updates, self.batch_size, representation_only)
        finally:
            self._updates_owed = 0  # these are owed to no step
        return self

    def adapt(self, env: GymEnv, n_steps: int, callback: MaybeCallback = None, *, representation_only: bool = False) -> Self:
        """Test-time adaptation: step in another world and learn from what is met there, world model, values and actor.

        The replay buffer forgets the old world and afterwards holds the new one's steps, which `num_timesteps` counts like
        any others. The agent's own environment is its environment again, at the beginning of an episode.

        Args:
            env: The other world: an environment with the agent's spaces, and a VecEnv of as many as its own.
            n_steps: Environment steps, and as many updates as in learning; 0 leaves all as it is (zero-shot).
            callback: As of `learn`.
            representation_only: Whether to fit the world model alone, after the last step, by the representation's terms
                that read no rewards; value and actor stay as they are.

        Raises:
            ValueError: The world does not fit, ``n_steps`` is negative, or a cost of the user's is set.
        """
        check_world(self, env, n_steps)
        self._check_learned_cost()
        if not n_steps:
            return self
        gradient_steps = self.gradient_steps
        self._memory = self.last_decision = None
        try:
            with in_another_world(self, env):
                if representation_only:
                    self.gradient_steps = 0
                self.learn(n_steps, callback, reset_num_timesteps=False)
                if representation_only:
                    self.learn_offline(n_steps, representation_only=True)
        finally:
            self.gradient_steps = gradient_steps
            self._memory = self.last_decision = None
        return self

    # ------------------------------------------------------------------ collecting

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """As SB3's, with working memory threaded from step to step and what was decided kept for storing."""
        poll()
        if self._last_obs is None:
            self.begin_episodes()
        assert self._last_obs is not None
        if self._last_episode_starts is None or np.any(self._last_episode_starts):
            check_finite("first observation", self._last_obs, self.num_timesteps)
        self._last_obs = deepcopy(self._last_obs)  # what the environment handed out it may fill anew when it steps
        last, self.last_decision = self.last_decision, None
        if self._acts_at_random(learning_starts):
            return self._to_take_and_to_store(self._random_actions())

        # What is remembered of an episode that has ended is cleared before deciding.
        policy = self.policy
        assert self._last_obs is not None
        assert self._last_episode_starts is not None
        obs, _ = policy.obs_to_tensor(self._last_obs)
        before = policy.recall(None, n_envs) if self._memory is None else self._memory
        starts = torch.as_tensor(self._last_episode_starts, dtype=torch.bool, device=self.device)
        noise = None
        if action_noise is not None and policy.squash_output:
            noise = torch.as_tensor(action_noise(), dtype=torch.float32, device=self.device).reshape(n_envs, -1)
        self.last_decision, self._memory = policy.act(obs, before.clear(starts), deterministic=False, noise=noise)
        policy.learn_gains(self.last_decision)
        measures = decision_measures(self.last_decision, policy.mode_switch.tracks_state)
        # What a plan gained shows one step later: its cost and the cost-to-go from there, against what was expected.
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

    def _count_failures(self, infos: list[dict[str, Any]]) -> None:
        """Log how many episodes have ended because of what could not be learned from, as `EndOnBadObservation` tells, or of
        an environment that failed, as `RestartingEnv` does."""
        self._bad_observations += sum(bool(info.get(BAD_OBSERVATION)) for info in infos)
        if self._bad_observations:
            self.logger.record("rollout/bad_observations", self._bad_observations)
        self._env_restarts += sum(bool(info.get(RESTARTED)) for info in infos)
        if self._env_restarts:
            self.logger.record("rollout/env_restarts", self._env_restarts)

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, *args: Any, **kwargs: Any) -> RolloutReturn:
        """As SB3's, with two differences: a step at which a callback stops training is stored and counted, and an exception
        leaves counters and buffer as they were after the last stored step.
        """
        begun, added = self.num_timesteps, self.replay_buffer.added
        try:
            rollout = super().collect_rollouts(env, callback, *args, **kwargs)
            if self.num_timesteps <= self.learning_starts:
                self._updates_owed += rollout.episode_timesteps if self.gradient_steps < 0 else self.gradient_steps
            return rollout if rollout.continue_training else self._finish_step(rollout, callback.locals)
        except BaseException as error:
            # What was not stored has not happened: neither the step under way nor the evaluation due at it.
            self.num_timesteps = begun + (self.replay_buffer.added - added) * self.n_envs
            self.replay_buffer.rewind(self.replay_buffer.added)  # a row that was half stored is not there
            self._last_obs = None
            if isinstance(error, Unusable):  # the environments do not know how many steps there were
                step = self.num_timesteps + self.n_envs if error.step is None else error.step
                raise Unusable(error.environment, error.what, step) from error
            raise

    def _finish_step(self, rollout: RolloutReturn, step: Mapping[str, Any]) -> RolloutReturn:
        """Do what SB3 leaves out where a callback stops training: the ``step`` taken, known by the names it has in
        `collect_rollouts`, is stored and counted like any other."""
        noise, every, ended = step["action_noise"], step["log_interval"], np.flatnonzero(step["dones"])
        self._update_info_buffer(step["infos"], step["dones"])
        self._store_transition(
            step["replay_buffer"], step["buffer_actions"], step["new_obs"], step["rewards"], step["dones"], step["infos"]
        )
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        for index in ended:
            self._episode_num += 1
            if noise is not None:
                noise.reset(**({"indices": [index]} if self.n_envs > 1 else {}))
            if every is not None and self._episode_num % every == 0:
                self.dump_logs()
        return rollout._replace(n_episodes=rollout.n_episodes + len(ended))

    def _acts_at_random(self, learning_starts: int) -> bool:
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
        # Raw values were checked in the environments; wrappers, as VecNormalize, may have made others of them.
        check_finite("reward", reward, self.num_timesteps)
        check_last_observations(dones, infos, self.observation_space, self.num_timesteps)
        check_finite("observation", new_obs, self.num_timesteps)
        self._count_failures(infos)
        if self.last_decision is not None:
            decision = self.last_decision
            replay_buffer.stage_plan(decision.plan_mean.cpu().numpy(), (decision.planned & decision.searched).cpu().numpy())
        # Scales follow raw rewards and the unit of VecNormalize apart: its deviation changes, what is stored does not.
        normalizer = self._vec_normalize_env
        raw = reward if normalizer is None else normalizer.get_original_reward()
        self.policy.observe_scales(self._last_obs, raw, reward_unit(normalizer))
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        self._last_episode_starts, self._last_cost = dones.copy(), -reward

    def begin_episodes(self) -> None:
        """Reset the environments, with the seeds they were given, if any."""
        assert self.env is not None
        self._last_obs = self.env.reset()  # type: ignore[assignment]
        self._last_episode_starts = np.ones((self.env.num_envs,), dtype=bool)
        if self._vec_normalize_env is not None:
            self._last_original_obs = self._vec_normalize_env.get_original_obs()

    def end_episodes(self) -> None:
        """End the episodes under way, as by a time limit."""
        self.replay_buffer.cut()
        if self.action_noise is not None:
            self.action_noise.reset()
        self._last_obs = None

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        callbacks = with_latents_watched(callback, self._watch)
        return super()._init_callback([*callbacks, PhasedProgressBar()] if progress_bar else callbacks)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        self._check_learned_cost()
        if reset_num_timesteps:
            self._memory = None
        if reset_num_timesteps or self._last_obs is None:
            self.replay_buffer.cut()
        begun = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)
        self._logger = make_resumable(self._logger)
        log_configuration(self)
        return begun

    # ------------------------------------------------------------------ who acts and what for, at any time

    @property
    def cost(self) -> Cost | None:
        """The cost that was set, None for the learned one."""
        return self.objectives.cost

    def set_mode(self, mode: str | ModeSwitch) -> None:
        """Choose who acts from now on, by one of `make_mode_switch`'s names or a `ModeSwitch`. Nothing is retrained.

        While a cost of your own is set, which the actor does not know, the planner acts: ``ValueError`` for any other mode.
        """
        if self.objectives.set_mode(mode):
            self.mode = mode

    def set_planner(self, planner: PlannerConfig | Planner | None) -> None:
        """Choose how Mode-2 searches from now on: a `PlannerConfig`, a `Planner`, or ``None`` for the default. Nothing is
        retrained; a state of `predict` from before may not fit, so episodes are to be begun anew. ``ValueError`` if it does
        not fit the actions, or cannot plan for the cost that is set."""
        self.objectives.set_planner(planner)
        self.planner, self._memory = planner, None

    def set_cost(
        self,
        cost: Cost | Callable[[Tensor], Tensor] | None,
        planner: PlannerConfig | Planner | None = None,
        *,
        end_cost: float | None = None,
        constraints: Sequence[Keep] = (),
        cost_to_go: FittedCostToGo | None = None,
    ) -> None:
        """Plan for another cost from now on. Nothing is retrained.

        The planner acts at every step and minimises the cost's discounted sum, along a longer horizon than usual unless
        ``planner`` says otherwise. The learned cost-to-go, which is that of another cost, is left out unless `LearnedCost`
        is part of the sum: what lies beyond a plan's end is not seen unless ``cost_to_go`` learns it. Saving saves the agent
        without the cost; learning is refused while it is set.

        Args:
            cost: One of `jepa_agent.costs`, or a function of the latents ``(..., D)`` that steps lead to, returning
                ``(...)``; None returns to the learned cost.
            planner: How to search for it.
            end_cost: Cost of each step that an episode has ended before. None is the worst that is imagined from what the
                replay buffer holds, at least 0; give 0 where ending is the goal.
            constraints: Ranges made by `jepa_agent.costs.keep`, which plans have to keep to: those imagined to leave one are
                rejected, and where all are, the one that is out the least is taken.
            cost_to_go: Learns what follows a plan's end, from the replay buffer's latents and in imagination, and an actor
                that proposes plans; some twenty seconds by default, anew at each call. None sees no further than the plan.

        Raises:
            ValueError: The cost cannot be asked of the world model, has another shape or is not finite; or it is None, with
                other arguments beside it.
        """
        if cost is None:
            if planner is not None or end_cost is not None or constraints or cost_to_go is not None:
                raise ValueError("a cost of None takes no other arguments: LearnedCost() is the learned cost that does")
            self.objectives.follow_learned(self.planner, self.mode)
        else:
            gather = partial(gather_experience, self.policy, self.replay_buffer, self._vec_normalize_env)
            self.objectives.set_cost(cost, planner, end_cost, constraints, cost_to_go, gather)
        self._memory = None

    @contextmanager
    def using_cost(
        self,
        cost: Cost | Callable[[Tensor], Tensor] | None,
        planner: PlannerConfig | Planner | None = None,
        *,
        end_cost: float | None = None,
        constraints: Sequence[Keep] = (),
        cost_to_go: FittedCostToGo | None = None,
    ) -> Iterator[None]:
        """`set_cost` for the length of a ``with`` block; afterwards the agent plans as before."""
        before = self.objectives.course
        self.set_cost(cost, planner, end_cost=end_cost, constraints=constraints, cost_to_go=cost_to_go)
        try:
            yield
        finally:
            if before.cost is None:
                self.objectives.follow_learned(self.planner, self.mode)
            else:
                self.objectives.follow(before)
            self._memory = None

    def _check_learned_cost(self) -> None:
        if self.cost is not None:
            raise ValueError("learning follows the environment's reward, but another cost is set: set_cost(None) first")

    # ------------------------------------------------------------------ saving and going on

    def save(  # type: ignore[override]
        self,
        path: str | Path | BinaryIO,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Write weights, optimisers, settings and counters, without pickle and all or nothing.

        Objects of your own are named, not stored: `load` says how to hand them over. The replay buffer is saved by
        `save_replay_buffer`, everything at once by `save_checkpoint`.

        Args:
            path: A file, or what can be written like one; ``.zip`` is added to a path without suffix.
            exclude: Names of settings to leave out.
            include: Not supported.

        Raises:
            ValueError: ``include`` is given.
        """
        if include:
            raise ValueError(f"nothing but settings, weights and counters can be saved, got include={list(include)}")
        manifest, tensors = agent_file.contents(self, set(exclude or ()))
        write(path, "agent", manifest, {"tensors": tensors})

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: str | Path | BinaryIO,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """An agent from a file of `save`; nothing in the file is run.

        Args:
            path: The file, or what can be read like one.
            env: To act in; its spaces must be the saved ones.
            device: Where the networks go.
            custom_objects: Replace saved settings, as ``kwargs`` do.
            print_system_info: Whether to print versions.
            force_reset: Whether the environment is reset before the next `learn`.
            kwargs: Settings by name.

        Raises:
            CheckpointError: A ``ValueError``, for a file that is not whole, and for an environment with other spaces or
                other ``policy_kwargs`` than were saved.
        """
        if print_system_info:
            get_system_info()
        model = agent_file.load(cls, path, env, device, {**(custom_objects or {}), **kwargs})
        if force_reset:
            model._last_obs = None
        return model

    def set_parameters(  # type: ignore[override]
        self,
        load_path_or_dict: str | Path | BinaryIO | TensorDict,
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Set weights and optimisers.

        Args:
            load_path_or_dict: What `get_parameters` returned, or a file of `save`.
            exact_match: Whether all parameters must be given.
            device: Where tensors of a file go.
        """
        if isinstance(load_path_or_dict, dict):
            return super().set_parameters(load_path_or_dict, exact_match, device)
        parameters = agent_file.parameters_from(self, load_path_or_dict)
        with as_checkpoint_error(load_path_or_dict):
            super().set_parameters(parameters, exact_match, device)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], ["value_spread"]

    def save_replay_buffer(self, path: str | Path | BinaryIO) -> None:  # type: ignore[override]
        """Write what the buffer holds, without pickle; ``.zip`` is added to a path without suffix."""
        last = self.replay_buffer.added
        replay_rows.write_rows(path, self.replay_buffer, last - self.replay_buffer.size(), last)

    def load_replay_buffer(  # type: ignore[override]
        self, path: str | Path | BinaryIO, truncate_last_traj: bool = True
    ) -> None:
        """Fill the buffer from a file of `save_replay_buffer` or the newest checkpoint in a folder, with the newest
        transitions if it held more.

        An agent that has seen nothing yet takes the running scales of observations and costs from what it is given, as if it
        had collected it.

        Args:
            path: The file, or what can be read like one; or a folder of `save_checkpoint` or of ``jepa-agent train``.
            truncate_last_traj: Whether what is stored next begins an episode, rather than following the last transition.

        Raises:
            CheckpointError: Any other file, pickled ones first of all, which are not run.
        """
        if isinstance(path, (str, Path)):
            read_experience(Path(path), self.replay_buffer)
        else:
            with as_checkpoint_error(path):
                replay_rows.read_all(path, self.replay_buffer)
        if truncate_last_traj:
            self.replay_buffer.cut()
        self._observe_stored()

    def load_minari(self, dataset: str | MinariDataset) -> None:
        """Fill the buffer, of one environment, with the episodes of a Minari data set, or with the newest steps that fit.

        Running scales are taken from it as by `load_replay_buffer`.

        Args:
            dataset: A data set of the agent's spaces, or the name of one that lies on this machine.

        Raises:
            MissingExtraError: The extra ``minari`` is not installed.
            ValueError: There is no such data set, or it cannot be learned from; the buffer is unchanged then.
        """
        opened = minari_data.open_dataset(dataset) if isinstance(dataset, str) else dataset
        minari_data.read_episodes(opened, self.replay_buffer)
        self._observe_stored()

    def _observe_stored(self) -> None:
        """Let running scales follow what the buffer holds, if nothing has been seen yet."""
        if not self.world_model.has_observed:
            for obs, reward in self.replay_buffer.in_blocks(self._vec_normalize_env):
                self.policy.observe_scales(obs, reward, reward_unit(self._vec_normalize_env))

    def save_checkpoint(self, folder: str | Path, keep_last: int = 1, logs: Iterable[Path] = ()) -> None:
        """Add a checkpoint of the whole run to a folder, all or nothing.

        It holds what `save` writes, the replay buffer (only what is new of it since the last checkpoint there),
        normalisation and all random numbers. Call it between rollouts, as from ``_on_rollout_start``, or
        when not learning: the episodes under way end here.

        Args:
            folder: Made if need be.
            keep_last: Newest checkpoints to keep; others are dropped.
            logs: Files that grow with the run, of which the length is noted for `persistence.checkpoint_folder.cut_logs`.
        """
        run_folder.save_checkpoint(self, Path(folder), keep_last, logs)

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        env: GymEnv,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
    ) -> Self:
        """The run as it was at the newest whole checkpoint in a folder of `save_checkpoint`; nothing in the files is run.

        ``learn(n, reset_num_timesteps=False)`` then goes on, bit for bit as the run that saved it. A damaged checkpoint is
        named in a warning, and the one before it is taken.

        Args:
            folder: Of the checkpoints.
            env: Made and wrapped as it was.
            device: Where the networks go.
            custom_objects: Replace saved settings.

        Raises:
            CheckpointError: The environment's spaces, number or VecNormalize differ, or no checkpoint is whole.
        """
        return run_folder.resume(cls, Path(folder), env, device, custom_objects or {})
