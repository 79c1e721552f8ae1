"""A joint embedding predictive agent for Gymnasium, with the face of Stable-Baselines3.

What is exported here is imported when it is first asked for: torch takes seconds, and a question for the version should not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import jepa_agent.envs  # noqa: F401  (registers our environments)
from jepa_agent._version import __version__

if TYPE_CHECKING:
    from jepa_agent.acting.mode_switch import ModeSwitch, make_mode_switch
    from jepa_agent.agent import JEPA
    from jepa_agent.config import AgentConfig, ModelConfig, PlannerConfig
    from jepa_agent.learning.representation import RepresentationTerm
    from jepa_agent.model.memory import MemoryNetwork
    from jepa_agent.model.world_model import WorldModel
    from jepa_agent.objectives.costs import Cost, FeatureCost, GoalCost, LatentCost, LearnedCost
    from jepa_agent.planning import Planner, make_planner
    from jepa_agent.policy import JEPAPolicy

_ROOMS = {
    "acting.mode_switch": ("ModeSwitch", "make_mode_switch"),
    "agent": ("JEPA",),
    "config": ("AgentConfig", "ModelConfig", "PlannerConfig"),
    "learning.representation": ("RepresentationTerm",),
    "model.memory": ("MemoryNetwork",),
    "model.world_model": ("WorldModel",),
    "objectives.costs": ("Cost", "FeatureCost", "GoalCost", "LatentCost", "LearnedCost"),
    "planning": ("Planner", "make_planner"),
    "policy": ("JEPAPolicy",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "JEPA",
    "AgentConfig",
    "Cost",
    "FeatureCost",
    "GoalCost",
    "JEPAPolicy",
    "LatentCost",
    "LearnedCost",
    "MemoryNetwork",
    "ModeSwitch",
    "ModelConfig",
    "Planner",
    "PlannerConfig",
    "RepresentationTerm",
    "WorldModel",
    "__version__",
    "make_mode_switch",
    "make_planner",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
