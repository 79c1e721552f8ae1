"""What Mode-2 plans for, how it searches, and who acts: chosen at run time. Nothing of this is learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from jepa_agent.acting.mode_switch import ModeSwitch, PlannerMode, make_mode_switch
from jepa_agent.config import PlannerConfig
from jepa_agent.objectives.constraints import Keep
from jepa_agent.objectives.cost_to_go import FittedCostToGo
from jepa_agent.objectives.costs import Cost, Experience, as_cost
from jepa_agent.objectives.experience import any_latents
from jepa_agent.objectives.objective import Objective, make_objective
from jepa_agent.planning import Planner
from jepa_agent.policy import AskedObjective, JEPAPolicy, check_planner_type
from jepa_agent.spaces import num_choices

# Without the learned cost-to-go a plan must see the consequences itself. Choices drawn at random soon lead into trouble; an
# actor that is pushed now and then keeps out of it.
FAR_SIGHTED = PlannerConfig(kind="icem", horizon=16, num_samples=96, num_elites=8, init_std=1.0)
FAR_SIGHTED_CHOICES = PlannerConfig(kind="cem", horizon=48, num_samples=8, num_elites=8, num_iterations=1, actor_samples=96)


class Course(NamedTuple):
    """What Mode-2 minimises and how, and when it acts."""

    cost: Cost | None  # None: the learned one
    objective: AskedObjective | None
    planner: PlannerConfig | Planner | None
    mode_switch: ModeSwitch


def with_ahead(objective: Objective, how: FittedCostToGo, policy: JEPAPolicy, z: Tensor) -> Objective:
    """An objective that sees beyond a plan's end, by what is learned on walks from latents ``(M, D)``.

    Raises:
        ValueError: The learned cost is in the sum, which has its own cost-to-go already; or ``how`` is something else.
    """
    if not isinstance(how, FittedCostToGo):
        raise ValueError(f"cost_to_go must be a FittedCostToGo, such as FittedCostToGo(), got {how!r}")
    if objective.learned:
        raise ValueError("LearnedCost in a sum brings its own cost-to-go: leave cost_to_go out")
    return replace(objective, ahead=how.fit(policy, z, objective.steps, objective.end_cost))


class Objectives:
    """The course that a policy is on.

    Args:
        policy: Whose planner, objective and mode switch are set.
    """

    def __init__(self, policy: JEPAPolicy):
        self.policy = policy
        self.cost: Cost | None = None

    @property
    def course(self) -> Course:
        """What is followed now."""
        return Course(self.cost, self.policy.objective, self.policy.planner, self.policy.mode_switch)

    def follow(self, course: Course) -> None:
        """Follow a course from now on."""
        self.policy.set_planner(course.planner)  # first, for it may refuse
        self.cost, self.policy.objective, self.policy.mode_switch = course.cost, course.objective, course.mode_switch

    def follow_learned(self, planner: PlannerConfig | Planner | None, mode: str | ModeSwitch) -> None:
        """Return to the learned cost."""
        self.follow(Course(None, None, planner, make_mode_switch(mode)))

    def set_mode(self, mode: str | ModeSwitch) -> bool:
        """Let others act from now on; returns whether that is what the agent does with the learned cost, too.
        ``ValueError`` where a cost is set that the mode's actor does not know."""
        switch = make_mode_switch(mode)
        if self.cost is None:
            self.policy.mode_switch = switch
            return True
        if not isinstance(switch, PlannerMode):
            raise ValueError(f"mode {mode!r} leans on the actor, which knows another cost than is set: set_cost(None) first")
        return False  # the planner acts already; what acts afterwards is another matter

    def set_planner(self, planner: PlannerConfig | Planner | None) -> None:
        """Search in another way from now on; ``ValueError`` if it does not fit the actions or the cost that is set."""
        if self.cost is None:
            self.policy.set_planner(planner)
        else:
            self._try(self.course._replace(planner=planner), any_latents(self.policy, 1))

    def set_cost(
        self,
        cost: Cost | Callable[[Tensor], Tensor],
        planner: PlannerConfig | Planner | None,
        end_cost: float | None,
        constraints: Sequence[Keep],
        cost_to_go: FittedCostToGo | None,
        gather: Callable[[int], Experience],
    ) -> None:
        """Plan for a cost of the user's; see `JEPA.set_cost`. ``gather`` gives experience by the horizon it is for."""
        chosen = as_cost(cost)
        check_planner_type(planner)
        self.policy.set_training_mode(False)  # while learning, images are shifted at random
        if planner is None:
            planner = FAR_SIGHTED_CHOICES if num_choices(self.policy.action_space) else FAR_SIGHTED
        with torch.inference_mode(False):  # what is fitted here may be asked for slopes later
            experience = gather(planner.horizon)
            model = self.policy.world_model
            objective = make_objective(chosen, model, experience, end_cost, constraints, planner.horizon)
            if cost_to_go is not None:
                objective = with_ahead(objective, cost_to_go, self.policy, experience.z)
        self._try(Course(chosen, objective, planner, PlannerMode()), experience.z[:1])

    def _try(self, course: Course, z: Tensor) -> None:
        """Follow a course, unless planning by it from latents ``(B, D)`` fails."""
        before = self.course
        self.follow(course)
        try:
            self._rehearse(z)
        except Exception:
            self.follow(before)
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
