"""Acting: encode, decide the mode, act or plan. SB3's ``predict`` with an explicit state."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from jepa_agent.acting.deliberation import deliberate
from jepa_agent.acting.gain_model import GainModel
from jepa_agent.acting.mode_switch import NUM_FEATURES, CandidateCosts, ModeSwitch, Situation, make_mode_switch
from jepa_agent.acting.working_memory import PackedMemory, WorkingMemory
from jepa_agent.config import AgentConfig, ModelConfig, PlannerConfig, near_names, with_named_arguments
from jepa_agent.environments.observations import check_given
from jepa_agent.interruption import poll
from jepa_agent.learning.representation import Contrast, RepresentationTerm, build_networks
from jepa_agent.model.actor import Actor
from jepa_agent.model.building import build_features, make_actor, make_critic, make_encoder, make_predictor
from jepa_agent.model.cost import CostModule, CostToGo
from jepa_agent.model.memory import MemoryNetwork, make_memory
from jepa_agent.model.predictor import Predictor
from jepa_agent.model.world_model import WorldModel
from jepa_agent.planning import Planner, check_planner, kinds, make_planner
from jepa_agent.spaces import BoxCode, action_code, check_spaces
from jepa_agent.tensor_ops import copy_buffers, row_count
from jepa_agent.types import Decision, Observations, Plan

_DROPPED = 3  # calls in a row without a state that are a loop, not single questions
_SIZES, _AGENT = ModelConfig(), AgentConfig()


def check_planner_type(planner: Any) -> None:
    """``ValueError`` for what is neither None, a `PlannerConfig` nor a `Planner`; a kind's name is shown as it is meant."""
    if planner is None or isinstance(planner, (PlannerConfig, Planner)):
        return
    known = [planner] if planner in kinds() else near_names(str(planner), kinds(), most=1)
    hint = f"; did you mean PlannerConfig(kind={known[0]!r})?" if isinstance(planner, str) and known else ""
    raise ValueError(f"planner must be a PlannerConfig or a Planner, got {planner!r}{hint}")


class AskedObjective(Protocol):
    """What plans are judged by in place of the learned cost."""

    @property
    def proposer(self) -> WorldModel:
        """The world model whose actor proposes sequences."""
        ...

    def __call__(self, z: Tensor, actions: Tensor, before: Tensor | None = None) -> Tensor:
        """Costs ``(E, B, N)`` of sequences ``(B, N, H, A)`` from latents ``(B, D)``, after an action ``(B, A)``."""
        ...


class JEPAPolicy(BasePolicy):
    """Owns every network, the planner and the mode switch; everything that lasts from step to step travels in ``state``.

    ``policy_kwargs`` of the algorithm end here; ``settings`` and what follows it are handed over by the algorithm. The
    encoder follows from the space: vectors, images and Dict need one class. A subclass may make any part of the world model
    itself.

    Args:
        observation_space: Of the environment.
        action_space: Of the environment.
        lr_schedule: Learning rate by remaining progress.
        encoder: One of `model.encoders.ENCODERS`, for vector observations.
        latent_dim: Size D of the latent.
        net_arch: Hidden widths of the encoder, the predictor and the costs-to-go.
        head_arch: Hidden widths of the actor and of immediate cost and termination.
        activation_fn: Between the layers.
        ensemble_size: Number of cost-to-go networks.
        memory_size: Steps that the memory network looks back.
        critic_class: A subclass of `CostToGo`; None is the one that fits the actions.
        predictor_class: A subclass of `Predictor`.
        features_extractor_class: Features of SB3's kind in place of ours.
        features_extractor_kwargs: Its arguments.
        normalize_images: Whether images are bytes to be divided by 255.
        optimizer_class: AdamW unless given.
        optimizer_kwargs: Its arguments; torch's own (a weight decay of 0.01) unless given.
    """

    @with_named_arguments
    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        latent_dim: int = _SIZES.latent_dim,
        net_arch: list[int] | tuple[int, ...] = _SIZES.net_arch,
        head_arch: list[int] | tuple[int, ...] = _SIZES.head_arch,
        activation_fn: type[nn.Module] = nn.ReLU,
        ensemble_size: int = _SIZES.ensemble_size,
        memory_size: int = _SIZES.memory_size,
        encoder: str = _SIZES.encoder,
        critic_class: type[CostToGo] | None = None,
        predictor_class: type[Predictor] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_kwargs: dict[str, Any] | None = None,
        settings: AgentConfig = _AGENT,
        memory: str | MemoryNetwork = _AGENT.memory,
        planner: Planner | PlannerConfig | None = None,
        mode: str | ModeSwitch = "auto",
        representation: Sequence[RepresentationTerm] = (),
    ):
        check_spaces(observation_space, action_space)
        classes = {
            "activation_fn": activation_fn,
            "critic_class": critic_class,
            "predictor_class": predictor_class,
            "features_extractor_class": features_extractor_class,
            "optimizer_class": optimizer_class,
        }
        for name, given in classes.items():
            if isinstance(given, str):
                raise ValueError(f"{name} must be a class, got its name {given!r}")
        if optimizer_kwargs is None and optimizer_class is torch.optim.AdamW:
            optimizer_kwargs = {"fused": True}
        super().__init__(
            observation_space,
            action_space,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            normalize_images=normalize_images,
            squash_output=isinstance(action_space, spaces.Box),
        )
        self.action_code = action_code(action_space)
        self.action_dim = self.action_code.dim
        self.sizes = ModelConfig(latent_dim, net_arch, head_arch, ensemble_size, memory_size, encoder)  # type: ignore[arg-type]
        self.activation_fn = activation_fn
        self.settings, self.memory, self.terms = settings, memory, list(representation)
        self._dropped_states, self._told_of_dropped_state = 0, False
        self.set_planner(planner)
        self.mode_switch = make_mode_switch(mode)
        self.objective: AskedObjective | None = None  # in place of the learned `WorldModel.member_costs`
        # Draws of acting and planning come from here, so that a deterministic evaluation in mid-training changes no draw.
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**31, (1,))))
        self.extractor_class, self.extractor_kwargs = features_extractor_class, features_extractor_kwargs
        self.critic_class, self.predictor_class = critic_class, predictor_class
        self.world_model = self.make_world_model()
        own = build_networks(self.terms, self.sizes, observation_space, action_space)
        self.world_model.term_networks.update(own)
        self.gain_model = GainModel(NUM_FEATURES)
        self.world_model_target = deepcopy(self.world_model).requires_grad_(False).eval()
        self.optimizer = self.optimizer_class(
            self.world_model.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )
        self.set_training_mode(False)

    # ------------------------------------------------------------------ parts, to be overridden

    def make_world_model(self) -> WorldModel:
        """The world model with fresh networks."""
        sizes, activation = self.sizes, self.activation_fn
        features = build_features(self.observation_space, self.extractor_class, self.extractor_kwargs, self.normalize_images)
        observation, encoder = make_encoder(self.observation_space, sizes, activation, features)
        predictor, critic = self.make_predictor(), self.make_critic()
        gamma, energy_weight = self.settings.gamma, self.settings.energy_coef
        energy = energy_weight > 0 or any(isinstance(term, Contrast) and term.weight for term in self.terms)
        cost_module = CostModule(sizes.latent_dim, self.action_dim, sizes.head_arch, critic, gamma, activation, energy)
        return WorldModel(
            observation,
            encoder,
            predictor,
            cost_module,
            self.make_actor(),
            gamma=gamma,
            energy_weight=energy_weight,
            memory=make_memory(self.memory, sizes.latent_dim, self.action_dim, sizes.memory_size),
        )

    def make_predictor(self) -> Predictor:
        """From a latent and an action to the next latent; of ``predictor_class``, if given."""
        return make_predictor(self.action_space, self.sizes, self.activation_fn, self.predictor_class)

    def make_critic(self) -> CostToGo:
        """The ensemble of costs-to-go; of ``critic_class``, if given."""
        return make_critic(self.action_space, self.sizes, self.activation_fn, self.critic_class)

    def make_actor(self) -> Actor:
        """Mode-1."""
        return make_actor(self.action_space, self.sizes, self.activation_fn)

    def set_planner(self, planner: Planner | PlannerConfig | None) -> None:
        """Who searches in Mode-2; ``None`` is the default for the action space. ``ValueError`` if it does not fit that."""
        check_planner_type(planner)
        wanted = planner or PlannerConfig()
        made = wanted if isinstance(wanted, Planner) else make_planner(wanted, self.action_space)
        self.planner = check_planner(made, self.action_space)

    # ------------------------------------------------------------------ SB3's face

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: PackedMemory | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, PackedMemory]:
        """Actions for observations, and the state to hand to the next call.

        Deterministic calls draw from a generator seeded anew, so that equal input gives equal output, unless a budget of
        milliseconds lets the clock decide, and training goes on as without them; others advance the policy's own generator.
        Without a memory network, Mode-1 alone neither reads a state nor leaves more than an empty one.

        Args:
            observation: ``(*obs_shape)`` or ``(n_envs, *obs_shape)``, by name for a Dict space.
            state: What the last call returned; None starts afresh.
            episode_start: Bool ``(n_envs,)``; true clears that row's state.
            deterministic: Whether to act without exploring.

        Raises:
            ValueError: Observations, a state or episode starts of another form, or numbers that are not finite.
        """
        if isinstance(observation, tuple):
            raise ValueError(
                "predict() was given a tuple, probably all of what Gymnasium's env.reset() returns; "
                "pass the observation alone: obs, info = env.reset()"
            )
        poll()
        check_given(observation, self.observation_space, "the observation given to predict()")
        self.set_training_mode(False)
        obs, vectorized = self.obs_to_tensor(observation)
        count = row_count(obs)
        starts = None if episode_start is None else np.atleast_1d(episode_start)
        if starts is not None and starts.shape != (count,):
            raise ValueError(f"episode_start has shape {starts.shape} for {count} observation(s)")
        lasting = self.mode_switch.tracks_state or self.world_model.memory is not None
        self._count_dropped_state(lasting and state is None and starts is None)
        if deterministic and not lasting:
            # Mode-1 alone depends on nothing but what it sees, so it leaves an empty memory behind.
            memory = self.recall(None, count)
            with torch.no_grad():
                action = self._actor(deterministic)(self.world_model.encode(obs))
        else:
            memory = self.recall(state, count)
            if starts is not None and starts.any():
                memory = memory.clear(torch.as_tensor(starts, dtype=torch.bool, device=memory.steps.device))
            if state is not None and not memory.is_finite:
                raise ValueError("the state given to predict() holds numbers that are not finite: None starts afresh")
            decision, memory = self.act(obs, memory, deterministic)
            action = decision.action
        actions = self.to_env(action)
        return (actions if vectorized else actions.squeeze(axis=0)), memory.pack()

    def _count_dropped_state(self, dropped: bool) -> None:
        """Warn, once, of a loop that does not hand back what `predict` returns."""
        self._dropped_states = self._dropped_states + 1 if dropped else 0
        if self._dropped_states == _DROPPED and not self._told_of_dropped_state:
            self._told_of_dropped_state = True
            warnings.warn(
                f"predict() was called {_DROPPED} times in a row without the state that it returned: plans, budgets and "
                "memory begin anew at every step. In a loop: state, start = None, np.ones(n_envs, bool); then at each step "
                "action, state = model.predict(obs, state, start) and start = done",
                stacklevel=4,
            )

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        decision, _ = self.act(observation, self.recall(None, row_count(observation)), deterministic)
        return decision.action

    def forward(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Actions ``(B, A)`` in the networks' coordinates, from a cold start."""
        return self._predict(observation, deterministic)

    def set_training_mode(self, mode: bool) -> None:
        """As SB3's; the target networks always evaluate."""
        if self.training != mode:  # walking all modules at every step costs more than the forward pass
            super().set_training_mode(mode)
            self.world_model_target.eval()  # targets are of what was seen, whatever is done to inputs while training

    @contextmanager
    def in_training_mode(self) -> Iterator[None]:
        """While an update is made: images are shifted at random. At all other times they are left as they are, so that the
        verbs of the world model give what acting and planning see."""
        self.set_training_mode(True)
        try:
            yield
        finally:
            self.set_training_mode(False)

    # ------------------------------------------------------------------ one decision

    def act(
        self, obs: Observations, memory: WorkingMemory, deterministic: bool, noise: Tensor | None = None
    ) -> tuple[Decision, WorkingMemory]:
        """Decide on every row: Mode-1 everywhere, replaced by Mode-2 where the switch wants and accepts a plan.

        Args:
            obs: Observations ``(B, *obs_shape)`` as tensors.
            memory: Working memory of the B environments.
            deterministic: Whether to act without exploring.
            noise: Added to the chosen Box actions, ``(B, A)``, before memory records them.

        Returns:
            The decision, and working memory after it.
        """
        with torch.inference_mode(False), torch.no_grad():
            # Perceive: the latent, in the light of the past, and how far it is from what was expected.
            model, tracks_state = self.world_model, self.mode_switch.tracks_state
            seen = model.encode(obs)
            z = seen if model.memory is None else model.recollect(seen, memory.past())
            surprise = torch.zeros_like(z[:, 0])
            if tracks_state:
                surprise = memory.surprise(z, model.predict(memory.latent, memory.action))

            # Decide: Mode-1 acts everywhere; Mode-2 where the switch asks for a search and accepts its plan.
            actor = self._actor(deterministic)
            output = actor.net(z)
            plans, own, ahead = memory.warm_start(), actor.mode(output), memory.ahead
            costs = partial(self._candidate_costs, z, own, plans[:, 0])
            situation = Situation(memory, surprise, costs, self.gain_model, model.value_scale)
            decision, wanted = self._act_mode1(own, situation), self.mode_switch.wants_plan(situation)
            if tracks_state and self.planner.replan_every > 1:
                decision, wanted = self._follow_plan(decision, plans, ahead > 0, wanted)
            rows, found = wanted.nonzero().squeeze(-1), plans
            if rows.numel():
                generator = torch.Generator().manual_seed(0) if deterministic else self.generator
                decision, found = self._act_mode2(z, own, rows, plans, memory.action, decision, generator)
            # A plan that was just made is followed for replan_every - 1 more steps.
            if tracks_state and self.planner.replan_every > 1:
                renewed = decision.planned & decision.searched
                ahead = torch.where(renewed, self.planner.replan_every - 1, (ahead - 1).clamp(min=0))
            if tracks_state:
                memory = memory.searched(
                    decision.searched,
                    decision.milliseconds if self.mode_switch.clocked else torch.zeros_like(surprise),
                    decision.worth,
                    self.mode_switch.control(situation),
                )

            # Explore, and remember what was in fact executed.
            if not deterministic:
                drawn = actor.draw(output, self.generator).action
                decision = decision._replace(action=actor.explored(decision.action, own, drawn))
            if noise is not None:
                decision = decision._replace(action=(decision.action + noise).clamp(-1.0, 1.0))
            if model.memory is not None:
                memory = memory.note(model.note(seen, decision.action))
            return decision, memory.remember(z, decision.action, found, ahead)

    def _actor(self, deterministic: bool) -> Actor:
        """Who acts: while exploring the newest actor, else the target's, the mean of about the last ten updates, which more
        often still knows what was learned."""
        return self.world_model_target.actor if deterministic else self.world_model.actor

    def _candidate_costs(self, z: Tensor, own: Tensor, remembered: Tensor) -> CandidateCosts:
        """Costs-to-go of the actor's actions ``(B, A)``, of those that the remembered plans have next, and of K others, all
        in one forward pass."""
        actions = torch.cat([torch.stack([own, remembered], dim=1), self.world_model.actor.others(own)], dim=1)
        rows = z.unsqueeze(1).expand(-1, actions.shape[1], -1)
        costs = self.world_model.cost_to_go(rows.flatten(0, 1), actions.flatten(0, 1)).unflatten(1, actions.shape[:2])
        return CandidateCosts(costs[..., 0], costs[..., 1], costs[..., 2:])

    @staticmethod
    def _act_mode1(action: Tensor, situation: Situation) -> Decision:
        """Mode-1 on every row."""
        surprise = situation.surprise
        none, zero = torch.zeros_like(surprise, dtype=torch.bool), torch.zeros_like(surprise)
        return Decision(action, none, none, zero, zero, surprise, torch.zeros_like(action), zero, zero, situation)

    def learn_gains(self, decision: Decision) -> None:
        """Learn from a decision what the plan of a search promises in which situation."""
        if decision.searched.any():
            situation, rows = decision.situation, decision.searched
            self.gain_model.learn(situation.features[rows], decision.worth[rows] / situation.unit)

    def _follow_plan(self, decision: Decision, plans: Tensor, following: Tensor, wanted: Tensor) -> tuple[Decision, Tensor]:
        """Plans ``(B, H, A)`` go on where they are ``following`` ``(B,)``: the decision, and where to search."""
        action = torch.where(following.unsqueeze(-1), plans[:, 0], decision.action)
        return decision._replace(action=action, planned=following), wanted & ~following

    def _act_mode2(
        self,
        z: Tensor,
        own: Tensor,
        rows: Tensor,
        plans: Tensor,
        before: Tensor,
        decision: Decision,
        generator: torch.Generator,
    ) -> tuple[Decision, Tensor]:
        """Mode-2 on ``rows``, in one batch; returns the decision and the plans ``(B, H, A)`` to remember."""
        everywhere = len(rows) == len(z)  # the usual case, which needs no indexing

        def spread_out(values: Tensor, over: Tensor) -> Tensor:
            return values if everywhere else over.index_copy(0, rows, values)

        searched = [values if everywhere else values[rows] for values in (z, plans, own, before)]
        began = time.perf_counter()
        plan, gain, disagreement = self.deliberate(searched[0], searched[1], generator, searched[2], searched[3])
        each = 1000.0 * (time.perf_counter() - began) / len(rows)
        accepted = spread_out(self.mode_switch.accepts(gain, disagreement), decision.planned)
        first, mean = plan.actions[:, 0], plan.mean[:, 0]
        found = {"action": first, "plan_mean": self.world_model.actor.distillation_target(first, mean)}
        acted = {
            name: torch.where(accepted.unsqueeze(-1), spread_out(values, getattr(decision, name)), getattr(decision, name))
            for name, values in found.items()
        }
        decision = decision._replace(
            planned=accepted,
            searched=decision.searched.index_fill(0, rows, True),
            gain=spread_out(gain, decision.gain),
            disagreement=spread_out(disagreement, decision.disagreement),
            plan_spread=spread_out(plan.std[:, 0].mean(-1), decision.plan_spread),
            milliseconds=decision.milliseconds.index_fill(0, rows, each),
            **acted,
        )
        return decision, spread_out(plan.actions, plans)

    def deliberate(
        self,
        z: Tensor,
        warm_start: Tensor,
        generator: torch.Generator,
        action: Tensor | None = None,
        before: Tensor | None = None,
    ) -> tuple[Plan, Tensor, Tensor]:
        """Plan, as `acting.deliberation.deliberate`, with this policy's planner and objective.

        Args:
            z: Latents ``(B, D)``.
            warm_start: What is left of the last plan, ``(B, H, A)``.
            generator: Of the planner's draws.
            action: The actor's action ``(B, A)``, where it has been computed already.
            before: The action ``(B, A)`` executed last, zeros where there was none; None is none anywhere.
        """
        asked, pessimism = self.objective, self.settings.plan_pessimism
        if asked is None:
            model = self.world_model
            return deliberate(model, self.planner, model.member_costs, pessimism, z, warm_start, generator, action)
        if asked.proposer is not self.world_model:
            action = None  # the agent's actor has another cost in mind
        objective = partial(asked, before=before)
        return deliberate(asked.proposer, self.planner, objective, pessimism, z, warm_start, generator, action)

    def recall(self, state: PackedMemory | None, n_envs: int) -> WorkingMemory:
        """Working memory from a packed state.

        Args:
            state: What `predict` returned; None is an empty memory.
            n_envs: Number of environments.

        Raises:
            ValueError: The state has another form.
        """
        latent_dim, action_dim, past_size = self.sizes.latent_dim, self.action_dim, self.world_model.past_size
        notes = (past_size, latent_dim + action_dim + 1 if past_size else 0)
        empty = WorkingMemory.empty(n_envs, latent_dim, action_dim, self.planner.horizon, notes)
        return (empty if state is None else WorkingMemory.unpack(state, empty)).to(self.world_model.device)

    def observe_scales(self, obs: Any, reward: np.ndarray, unit: float = 1.0) -> None:
        """Take steps ``(B, ...)`` into the running scales, of the targets too, as `WorldModel.observe_scales`."""
        self.world_model.observe_scales(obs, reward, unit)
        copy_buffers(self.world_model, self.world_model_target)

    def begin_values(self) -> None:
        """Set where costs-to-go begin, of the targets too, as `CostModule.begin_values`; before the first update."""
        self.world_model.cost_module.begin_values()
        copy_buffers(self.world_model, self.world_model_target)

    # ------------------------------------------------------------------ coordinates

    def to_env(self, action: Tensor) -> np.ndarray:
        """Actions ``(B, A)`` of the networks as the environment takes them."""
        return self.action_code.to_env(action)

    def from_env(self, action: np.ndarray) -> Tensor:
        """The inverse of `to_env`: ``(B, A)``."""
        return self.action_code.from_env(action).to(self.device)

    def scale_action(self, action: np.ndarray) -> np.ndarray:
        """Box actions ``(B, *action_shape)`` within their bounds to [-1, 1]."""
        assert isinstance(self.action_code, BoxCode)
        return self.action_code.scale(action)

    def unscale_action(self, scaled_action: np.ndarray) -> np.ndarray:
        """The inverse of `scale_action`."""
        assert isinstance(self.action_code, BoxCode)
        return self.action_code.unscale(scaled_action)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        sizes = self.sizes
        data.update(
            lr_schedule=self._dummy_schedule,
            encoder=sizes.encoder,
            latent_dim=sizes.latent_dim,
            net_arch=sizes.net_arch,
            head_arch=sizes.head_arch,
            activation_fn=self.activation_fn,
            features_extractor_class=self.extractor_class,
            features_extractor_kwargs=self.extractor_kwargs,
            ensemble_size=sizes.ensemble_size,
            memory_size=sizes.memory_size,
            critic_class=self.critic_class,
            predictor_class=self.predictor_class,
            optimizer_class=self.optimizer_class,
            optimizer_kwargs=self.optimizer_kwargs,
            settings=self.settings,
            memory=self.memory,
            planner=self.planner,
            mode=self.mode_switch,
            representation=self.terms,
        )
        return data


# SB3's names for its policies; here one class reads off the space what it needs.
MlpPolicy = CnnPolicy = MultiInputPolicy = JEPAPolicy
