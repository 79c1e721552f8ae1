"""The configurator: Mode-1 or Mode-2, for every environment at every step."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from jepa_agent.working_memory import WorkingMemory


class ModeSwitch(ABC):
    """Decides twice: before the search whether it is worth making, after it whether its plan is worth executing.

    ``watchful`` is false only for a switch that never plans: it spares the time to keep track of costs and surprises.
    """

    watchful: ClassVar[bool] = True

    @abstractmethod
    def wants_plan(self, memory: WorkingMemory) -> Tensor:
        """Where to search: bool ``(B,)``."""

    def accepts(self, gain: Tensor, disagreement: Tensor) -> Tensor:
        """Where to execute the plan, given its predicted gain over the actor's own sequence and the spread of that gain
        over the ensemble, both ``(B,)`` and finite or NaN: bool ``(B,)``."""
        return torch.ones_like(gain, dtype=torch.bool)


@dataclass(frozen=True)
class ActorMode(ModeSwitch):
    """Always Mode-1."""

    watchful: ClassVar[bool] = False

    def wants_plan(self, memory: WorkingMemory) -> Tensor:
        return torch.zeros_like(memory.steps, dtype=torch.bool)


@dataclass(frozen=True)
class PlannerMode(ModeSwitch):
    """Always Mode-2."""

    def wants_plan(self, memory: WorkingMemory) -> Tensor:
        return torch.ones_like(memory.steps, dtype=torch.bool)


@dataclass(frozen=True)
class EveryK(ModeSwitch):
    """Mode-2 on every k-th step of an episode, the first included; Mode-1 between."""

    k: int = 4

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")

    def wants_plan(self, memory: WorkingMemory) -> Tensor:
        return memory.steps % self.k == 0


@dataclass(frozen=True)
class AutoMode(ModeSwitch):
    """Search always; execute where the gain exceeds ``confidence`` standard deviations of it over the ensemble.

    The default asks for more than the policy's ``plan_pessimism``, which every plan has met already.
    """

    confidence: float = 6.0

    def wants_plan(self, memory: WorkingMemory) -> Tensor:
        return torch.ones_like(memory.steps, dtype=torch.bool)

    def accepts(self, gain: Tensor, disagreement: Tensor) -> Tensor:
        return gain > self.confidence * disagreement  # NaN compares as false: the actor acts


def make_mode_switch(mode: str | ModeSwitch) -> ModeSwitch:
    """A switch by name: ``actor``, ``planner``, ``auto``, ``every_k`` (k = 4), or ``every_2`` and so on; or as given."""
    if isinstance(mode, ModeSwitch):
        return mode
    simple = {"actor": ActorMode(), "planner": PlannerMode(), "auto": AutoMode(), "every_k": EveryK()}
    if mode in simple:
        return simple[mode]
    numbered = re.fullmatch(r"every_([1-9]\d*)", str(mode))
    if numbered:
        return EveryK(int(numbered[1]))
    raise ValueError(f"unknown mode {mode!r}: choose actor, planner, auto, or every_k with a number for k (every_4)")
