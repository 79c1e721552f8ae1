"""The configurator: Mode-1 or Mode-2, for every environment at every step."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from jepa_agent.acting.gain_model import GainModel
from jepa_agent.acting.working_memory import Control, WorkingMemory
from jepa_agent.config import near_names
from jepa_agent.tensor_ops import pessimistic

NUM_FEATURES = 5
_LEEWAY = 0.1  # how far from its budget, as a share of it, a switch may be
_CORRECTION = 0.03  # how fast a threshold follows, in units of the scores' mean size
_TABLE = 4096


class CandidateCosts(NamedTuple):
    """Costs-to-go of what might be done now, by each member of the ensemble."""

    actor: Tensor  # (E, B) of the actor's action
    plan: Tensor  # (E, B) of the remembered plan's next action
    others: Tensor  # (E, B, K) of other actions


class Situation:
    """What a switch may ask before the search; what costs a forward pass is computed once, if it is asked for at all.

    Args:
        memory: Working memory of the step before.
        surprise: Distance ``(B,)`` of the observed from the predicted latent.
        candidate_costs: Computes the costs-to-go of the actor's action and of others.
        gain_model: Predicts the gain of a search from `features`, in multiples of ``unit``.
        unit: One unit of the cost-to-go head, in the units of -reward.
    """

    def __init__(
        self,
        memory: WorkingMemory,
        surprise: Tensor,
        candidate_costs: Callable[[], CandidateCosts],
        gain_model: GainModel,
        unit: Tensor,
    ):
        self.memory, self.surprise, self.unit = memory, surprise, unit
        self._compute_costs, self._gain_model = candidate_costs, gain_model

    @cached_property
    def _costs(self) -> CandidateCosts:
        with torch.no_grad():
            return self._compute_costs()

    @property
    def cost_to_go(self) -> Tensor:
        """Cost-to-go ``(B,)`` under the actor."""
        return self._costs.actor.mean(0)

    @property
    def disagreement(self) -> Tensor:
        """Standard deviation ``(B,)`` over the ensemble of the cost-to-go of the actor's action."""
        return self._costs.actor.std(0, correction=0)

    @property
    def features(self) -> Tensor:
        """Inputs ``(B, F)`` of the gain model: a constant, the surprise, the ensemble's disagreement, what the plans of the
        latest searches promised, and the gain of the best other action over the actor's, less one standard deviation."""
        actor, plan, others = self._costs
        excess = pessimistic(torch.cat([plan.unsqueeze(-1), others], dim=-1) - actor.unsqueeze(-1), 1.0)
        plan = excess[:, :1] * (self.memory.searches > 0).unsqueeze(-1)  # none is remembered before the first search
        promise = -torch.cat([plan, excess[:, 1:]], dim=-1).amin(-1).clamp(max=0.0)
        costs = (cost / self.unit for cost in (self.disagreement, self.memory.recent_gain, promise))
        return torch.stack([torch.ones_like(promise), self.surprise, *costs], dim=-1)

    @cached_property
    def expected_gain(self) -> Tensor:
        """Gain ``(B,)`` to expect of a search, in the units of -reward, learned from what earlier ones promised."""
        return self._gain_model(self.features) * self.unit

    @property
    def mean_gain(self) -> Tensor:
        """What the plans of searches promised in the mean ``(B,)``."""
        return (self._gain_model.mean * self.unit).expand_as(self.surprise)


class ModeSwitch(ABC):
    """Decides twice: before the search whether it is worth making, after it whether its plan is worth executing.

    ``tracks_state`` is false only for a switch that never plans: it spares the time to keep track of costs and surprises.
    """

    tracks_state: ClassVar[bool] = True

    @property
    def clocked(self) -> bool:
        """Whether it looks at the clock: only then does working memory take note of the time searches take."""
        return False

    @abstractmethod
    def wants_plan(self, situation: Situation) -> Tensor:
        """Where to search: bool ``(B,)``."""

    def control(self, situation: Situation) -> Control:
        """Settings to find in `WorkingMemory.control` at the next step."""
        return situation.memory.control

    def accepts(self, gain: Tensor, disagreement: Tensor) -> Tensor:
        """Where to execute the plan that a search has found.

        Args:
            gain: Predicted gain ``(B,)`` over the actor's own sequence; finite or NaN.
            disagreement: Standard deviation ``(B,)`` of that gain over the ensemble.

        Returns:
            Bool ``(B,)``; where false, the actor acts.
        """
        return torch.ones_like(gain, dtype=torch.bool)


@dataclass(frozen=True)
class ActorMode(ModeSwitch):
    """Always Mode-1."""

    tracks_state: ClassVar[bool] = False

    def wants_plan(self, situation: Situation) -> Tensor:
        return torch.zeros_like(situation.surprise, dtype=torch.bool)


@dataclass(frozen=True)
class PlannerMode(ModeSwitch):
    """Always Mode-2."""

    def wants_plan(self, situation: Situation) -> Tensor:
        return torch.ones_like(situation.surprise, dtype=torch.bool)


@dataclass(frozen=True)
class EveryK(ModeSwitch):
    """Mode-2 on every k-th step of an episode, the first included; Mode-1 in between.

    Args:
        k: Steps from one search to the next, at least 1.
    """

    k: int = 4

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")

    def wants_plan(self, situation: Situation) -> Tensor:
        return situation.memory.steps % self.k == 0


@dataclass(frozen=True)
class Budgeted(ModeSwitch):
    """Searches where a score is high, as often as a budget allows.

    In every environment an integral controller moves the threshold that the score must pass until the budget is met. The
    first step of an episode always has a search; none is made after it that would overdraw the budget by more than a tenth,
    and no more than a tenth of it is ever left over (or two searches, if that is more).

    Args:
        plan_fraction: The budget as a share of the steps, above 0 and at most 1.
        ms_per_step: Instead, if not 0, the mean time in milliseconds that searches may take per step. What else deciding
            takes, and the environment, do not count, as they do in the ``ms_per_step`` of a comparison's results. It makes
            what is decided depend on the clock.
    """

    plan_fraction: float = 0.25
    ms_per_step: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.plan_fraction <= 1.0:
            raise ValueError(f"plan_fraction must lie above 0 and be at most 1, got {self.plan_fraction!r}")
        if self.ms_per_step < 0.0:
            raise ValueError(f"ms_per_step must be at least 0, got {self.ms_per_step!r}; 0 is no budget of time")

    @abstractmethod
    def score(self, situation: Situation) -> Tensor:
        """How much a search seems to be worth: ``(B,)``, at least 0, in units of its own."""

    def wants_plan(self, situation: Situation) -> Tensor:
        memory = situation.memory
        if self._always:
            return torch.ones_like(situation.surprise, dtype=torch.bool)
        granted = self._share(memory) * (memory.steps + 1)
        affordable = memory.searches + 1.0 <= (1.0 + _LEEWAY) * granted
        overdue = granted - memory.searches > (_LEEWAY * granted).clamp(min=2.0)
        passes = self.score(situation) >= self._threshold(situation)
        return (passes & affordable) | overdue | (memory.steps == 0)

    def control(self, situation: Situation) -> Control:
        """The threshold, raised where the score passed it and lowered where not, so that both balance at the budget, and the
        mean score. What the leeway forbade or forced does not move it."""
        memory = situation.memory
        if self._always:
            return memory.control
        threshold, size = self._threshold(situation), memory.mean_score
        score = self.score(situation).to(size)  # a lower precision where autocast is on
        size = torch.where(memory.steps > 0, size.lerp(score, 0.1), score)
        excess = (score >= threshold).float() - self._share(memory)
        return Control(threshold + _CORRECTION * size * excess, size)

    def initial_threshold(self, situation: Situation) -> Tensor:
        """The threshold ``(B,)`` that an episode begins with."""
        return torch.zeros_like(situation.surprise)

    @property
    def clocked(self) -> bool:
        return self.ms_per_step > 0.0

    @property
    def _always(self) -> bool:
        return self.plan_fraction == 1.0 and not self.ms_per_step

    def _threshold(self, situation: Situation) -> Tensor:
        memory = situation.memory
        return torch.where(memory.steps > 0, memory.threshold, self.initial_threshold(situation))

    def _share(self, memory: WorkingMemory) -> Tensor:
        """Share of the steps at which to search ``(B,)``; all, until the first search has shown how long one takes."""
        if not self.ms_per_step:
            return torch.full_like(memory.searches, self.plan_fraction)
        each = memory.milliseconds / memory.searches.clamp(min=1.0)
        return (self.ms_per_step / each).clamp(max=1.0)


@cache
def _table(seed: int) -> Tensor:
    return torch.rand(_TABLE, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class RandomMode(Budgeted):
    """Searches at random, by a sequence of numbers that ``seed`` fixes: the yardstick for switches with a reason."""

    seed: int = 0

    def score(self, situation: Situation) -> Tensor:
        return _table(self.seed).to(situation.surprise.device)[situation.memory.steps % _TABLE]

    def initial_threshold(self, situation: Situation) -> Tensor:
        return 1.0 - self._share(situation.memory)  # passed as often as the budget has it


@dataclass(frozen=True)
class SurpriseMode(Budgeted):
    """Searches where the observed latent is far from the predicted one: where the world is not as it was thought to be."""

    def score(self, situation: Situation) -> Tensor:
        return situation.surprise


@dataclass(frozen=True)
class DisagreementMode(Budgeted):
    """Searches where the ensemble disagrees about what the actor's action leads to."""

    def score(self, situation: Situation) -> Tensor:
        return situation.disagreement


@dataclass(frozen=True)
class AutoMode(Budgeted):
    """Searches where most gain is to be expected for its cost: at every step, unless a budget says otherwise.

    The expectation is learned from what plans promised in like situations, not from what executing them returned.

    Without a budget a plan is executed where its gain exceeds ``confidence`` standard deviations over the ensemble. That is
    more than the policy's ``plan_pessimism``, which every plan has met already, so that an agent that collects also tries
    its actor. With a budget, the choice was made before the search, and every plan is executed.

    Args:
        plan_fraction: As for `Budgeted`; 1 searches at every step.
        confidence: Standard deviations by which the gain must differ from zero, where there is no budget.
    """

    plan_fraction: float = 1.0
    confidence: float = 2.0

    def score(self, situation: Situation) -> Tensor:
        return situation.expected_gain.clamp(min=0.0)

    def initial_threshold(self, situation: Situation) -> Tensor:
        return situation.mean_gain

    def accepts(self, gain: Tensor, disagreement: Tensor) -> Tensor:
        if not self._always:
            return super().accepts(gain, disagreement)
        return gain > self.confidence * disagreement  # NaN compares as false: the actor acts


PLAIN: dict[str, type[ModeSwitch]] = {"actor": ActorMode, "planner": PlannerMode, "every_k": EveryK}
BUDGETED: dict[str, type[Budgeted]] = {
    "auto": AutoMode,
    "surprise": SurpriseMode,
    "disagreement": DisagreementMode,
    "random": RandomMode,
}


def register_mode(name: str, switch: type[ModeSwitch]) -> None:
    """Let a mode switch of one's own be asked for by name, in Python and on the command line; one that derives from
    `Budgeted` by name and budget, too. ``ValueError`` if the name is taken by another."""
    known: dict[str, Any] = BUDGETED if issubclass(switch, Budgeted) else PLAIN
    if {**PLAIN, **BUDGETED}.get(name, switch) is not switch or not re.fullmatch(r"[a-z_]+", name):
        raise ValueError(f"mode {name!r} is taken or no word of small letters: choose one other than {', '.join(modes())}")
    known[name] = switch


def modes() -> list[str]:
    """The names of all modes."""
    return [*PLAIN, *BUDGETED]


def make_mode_switch(mode: str | ModeSwitch) -> ModeSwitch:
    """A switch by name, or as given.

    Args:
        mode: ``actor``, ``planner``, ``every_k`` (k = 4) or ``every_2`` and so on; ``auto``, ``surprise``, ``disagreement``,
            ``random``, which may carry a budget: a share of the steps (``auto_0.1``) or milliseconds of searching per
            step (``auto_2ms``); or a `ModeSwitch`.

    Raises:
        ValueError: A name that is not known, or a budget of nothing.
    """
    if isinstance(mode, ModeSwitch):
        return mode
    if mode in PLAIN:
        return PLAIN[mode]()
    numbered = re.fullmatch(r"every_([1-9]\d*)", str(mode))
    if numbered:
        return EveryK(int(numbered[1]))
    named = re.fullmatch(rf"({'|'.join(BUDGETED)})(?:_(\d+(?:\.\d+)?)(ms)?)?", str(mode))
    if named is None:
        near = [] if re.search(r"\d", str(mode)) else near_names(str(mode), modes())
        if near:
            raise ValueError(f"unknown mode {mode!r}; did you mean {' or '.join(near)}?".replace("every_k", "every_4"))
        raise ValueError(
            f"unknown mode {mode!r}: choose {', '.join(PLAIN)} with a number for k (every_4), or "
            f"{', '.join(BUDGETED)}, with a share of the steps (auto_0.1) or milliseconds per step (auto_2ms) if need be"
        )
    kind, number, unit = BUDGETED[named[1]], named[2], named[3]
    if number is None:
        return kind()
    if float(number) == 0.0:
        raise ValueError(f"mode {mode!r} has nothing to spend: choose actor, or a budget above 0")
    return kind(ms_per_step=float(number)) if unit else kind(plan_fraction=float(number))
