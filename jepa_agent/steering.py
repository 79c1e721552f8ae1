"""What may be changed of a trained agent at any time: who acts, and what for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from jepa_agent.acting.mode_switch import ModeSwitch, PlannerMode, make_mode_switch
from jepa_agent.acting.working_memory import PackedMemory
from jepa_agent.config import PlannerConfig
from jepa_agent.environments.observations import check_given
from jepa_agent.learning.replay_buffer import SequenceReplayBuffer
from jepa_agent.model.encoders import random_latents
from jepa_agent.objectives.costs import Cost, Experience, as_cost, make_objective
from jepa_agent.persistence.run_folder import ResumableAlgorithm
from jepa_agent.planning import Planner
from jepa_agent.policy import JEPAPolicy
from jepa_agent.spaces import num_choices

# Without the learned cost-to-go a plan must see the consequences itself. Choices drawn at random soon lead into trouble; an
# actor that is pushed now and then keeps out of it.
FAR_SIGHTED = PlannerConfig(kind="icem", horizon=16, num_samples=96, num_elites=8, init_std=1.0)
FAR_SIGHTED_CHOICES = PlannerConfig(kind="cem", horizon=48, num_samples=8, num_elites=8, num_iterations=1, actor_samples=96)
_WINDOWS, _AT_ONCE = 4_000, 500


class _Course(NamedTuple):
    """What Mode-2 minimises and how, and when it acts."""

    cost: Cost | None
    objective: Callable[[Tensor, Tensor], Tensor] | None
    planner: PlannerConfig | Planner | None
    mode_switch: ModeSwitch


class SteerableAlgorithm(ResumableAlgorithm):
    """Modes and costs, chosen at run time. Nothing of this is learning."""

    policy: JEPAPolicy
    planner: PlannerConfig | Planner | None
    mode: str | ModeSwitch
    replay_buffer: SequenceReplayBuffer
    cost: Cost | None = None
    _state: PackedMemory | None

    def set_mode(self, mode: str | ModeSwitch) -> None:
        """Choose who acts from now on, by one of `make_mode_switch`'s names or a `ModeSwitch`. Nothing is retrained.

        While a cost of your own is set, which the actor does not know, the planner acts: ``ValueError`` for any other mode.
        """
        switch = make_mode_switch(mode)
        if self.cost is not None:
            if isinstance(switch, PlannerMode):
                return  # it acts already; what acts afterwards is another matter
            raise ValueError(f"mode {mode!r} leans on the actor, which knows another cost than is set: set_cost(None) first")
        self.policy.mode_switch = switch
        self.mode = mode

    def set_planner(self, planner: PlannerConfig | Planner | None) -> None:
        """Choose how Mode-2 searches from now on: a `PlannerConfig`, a `Planner`, or ``None`` for the default. Nothing is
        retrained; a state of `predict` from before may not fit, so episodes are to be begun anew. ``ValueError`` if it does
        not fit the actions, or cannot plan for the cost that is set."""
        if self.cost is None:
            self.policy.set_planner(planner)
        else:
            self._try(self._course()._replace(planner=planner), self._any_latents(1))
        self.planner, self._state = planner, None

    def set_cost(
        self,
        cost: Cost | Callable[[Tensor], Tensor] | None,
        planner: PlannerConfig | Planner | None = None,
        *,
        end_cost: float | None = None,
    ) -> None:
        """Plan for another cost from now on; None returns to the learned one. Nothing is retrained.

        ``cost`` is one of `jepa_agent.objectives.costs`, or a function of the latents ``(..., D)`` that steps lead to, returning
        ``(...)``. The planner acts at every step and minimises its discounted sum, along a longer horizon than usual unless
        ``planner`` says otherwise. The learned cost-to-go, of another cost, has no say: what lies beyond a plan's end is not
        seen. Each step that an episode has ended before costs ``end_cost``: by default the worst that is imagined from what
        the replay buffer holds, at least 0; give 0 where ending is the goal.

        The cost is tried on latents from the replay buffer at once: ``ValueError`` if it raises, has another shape or is not
        finite. Saving saves the agent without it; learning is refused while it is set.
        """
        if cost is None:
            self._steer(self._learned_course())
            return
        chosen = as_cost(cost)
        self.policy.set_training_mode(False)  # while learning, images are shifted at random
        if planner is None:
            planner = FAR_SIGHTED_CHOICES if num_choices(self.action_space) else FAR_SIGHTED
        with torch.inference_mode(False):  # what is fitted here may be asked for slopes later
            experience = self._experience(planner.horizon)
            objective = make_objective(chosen, self.policy.world_model, experience, end_cost)
        self._try(_Course(chosen, objective, planner, PlannerMode()), experience.z[:1])

    @contextmanager
    def using_cost(
        self,
        cost: Cost | Callable[[Tensor], Tensor] | None,
        planner: PlannerConfig | Planner | None = None,
        *,
        end_cost: float | None = None,
    ) -> Iterator[None]:
        """`set_cost` for the length of a ``with`` block; afterwards the agent plans as before."""
        before = self._course()
        self.set_cost(cost, planner, end_cost=end_cost)
        try:
            yield
        finally:
            self._steer(self._learned_course() if before.cost is None else before)

    def _try(self, course: _Course, z: Tensor) -> None:
        """Take a course, unless planning by it from latents ``(B, D)`` fails."""
        before = self._course()
        self._steer(course)
        try:
            self._rehearse(z)
        except Exception:
            self._steer(before)
            raise

    def _rehearse(self, z: Tensor) -> None:
        """Plan once from latents ``(B, D)``; ``ValueError`` if the cost cannot be planned for."""
        nothing = torch.zeros(len(z), self.policy.planner.horizon, self.policy.action_dim, device=z.device)
        with torch.inference_mode(False), torch.no_grad():
            try:
                self.policy.deliberate(z, nothing, torch.Generator().manual_seed(0))
            except RuntimeError as error:
                planner = type(self.policy.planner).__name__
                raise ValueError(f"{planner} cannot plan for this cost: {error}") from error

    def _course(self) -> _Course:
        return _Course(self.cost, self.policy.objective, self.policy.planner, self.policy.mode_switch)

    def _learned_course(self) -> _Course:
        return _Course(None, None, self.planner, make_mode_switch(self.mode))

    def _steer(self, course: _Course) -> None:
        self.policy.set_planner(course.planner)  # first, for it may refuse
        self.cost, self.policy.objective, self.policy.mode_switch = course.cost, course.objective, course.mode_switch
        self._state = None

    @torch.no_grad()
    def _experience(self, reach: int) -> Experience:
        """Observations from all over the replay buffer and their latents, each as it was met and one of the next ``reach``
        with a latent imagined along the actions taken; without any, latents drawn from all there are.

        Errors of imagination add up in one direction, so that latents far ahead do not mean what encoded ones mean. What
        they do mean is told by what was then observed.
        """
        policy, buffer, normalizer = self.policy, self.replay_buffer, self._vec_normalize_env

        def encode(obs: Any) -> Tensor:
            check_given(obs, self.observation_space, "an observation")
            seen, _ = policy.obs_to_tensor(obs if normalizer is None else normalizer.normalize_obs(obs))
            return policy.world_model.encode(seen)

        if buffer.size() > 1:
            ages, envs = buffer.spread(_WINDOWS)
            drawn = torch.rand(len(ages), generator=torch.Generator().manual_seed(0)).to(policy.device)
            blocks = [slice(first, first + _AT_ONCE) for first in range(0, len(ages), _AT_ONCE)]
            pairs = [self._as_met_and_imagined(ages[block], envs[block], reach, drawn[block]) for block in blocks]
            met, z = [obs for obs, _ in pairs], torch.cat([latents for _, latents in pairs])
            if isinstance(met[0], dict):
                return Experience({key: np.concatenate([part[key] for part in met]) for key in met[0]}, z, encode)
            return Experience(np.concatenate(met), z, encode)
        return Experience(None, self._any_latents(_WINDOWS), encode)

    def _any_latents(self, n: int) -> Tensor:
        """Latents ``(n, D)`` from all there are."""
        generator, policy = torch.Generator().manual_seed(0), self.policy
        return random_latents(n, policy.sizes.latent_dim, generator, torch.device("cpu")).to(policy.device)

    def _as_met_and_imagined(self, ages: np.ndarray, envs: np.ndarray, reach: int, drawn: Tensor) -> tuple[Any, Tensor]:
        """Two observations as the environment gave them, and their latents, of each of B windows: the first one's, encoded,
        and a later one's, imagined from the first; which one is ``drawn`` ``(B,)`` from [0, 1)."""
        model, buffer = self.policy.world_model, self.replay_buffer
        seen = buffer.window(ages, envs, reach, env=self._vec_normalize_env, past=model.past_size)
        z = model.imagine(model.observe(seen, 0, 1)[:, 0], seen.action)
        later = 1 + (drawn * seen.mask.sum(1)).long()  # before the episode's end
        row = torch.arange(len(z), device=z.device).repeat_interleave(2)
        step = torch.stack([torch.zeros_like(later), later], dim=1).flatten()
        met = buffer.window(ages, envs, reach).obs[row, step]
        obs = {key: part.cpu().numpy() for key, part in met.items()} if isinstance(met, dict) else met.cpu().numpy()
        return obs, z[row, step]

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        if self.cost is not None:
            raise ValueError("learning follows the environment's reward, but another cost is set: set_cost(None) first")
        return super()._setup_learn(*args, **kwargs)
