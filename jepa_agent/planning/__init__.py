"""Planners that see only ``cost_fn(actions)``."""

from __future__ import annotations

from dataclasses import fields

from gymnasium import spaces

from jepa_agent.config import PlannerConfig, as_kwargs
from jepa_agent.planning.base import Planner
from jepa_agent.planning.discrete import ExhaustivePlanner, affordable_horizon
from jepa_agent.planning.gradient import GradientPlanner
from jepa_agent.planning.sampling import MPPI

PLANNERS: dict[str, type[Planner]] = {"mppi": MPPI, "gradient": GradientPlanner, "exhaustive": ExhaustivePlanner}
_FOR_BOX, _FOR_DISCRETE = ("mppi", "gradient"), ("exhaustive",)


def make_planner(config: PlannerConfig, action_space: spaces.Space) -> Planner:
    """The planner a configuration asks for; ``ValueError`` where it cannot handle the action space."""
    discrete = isinstance(action_space, spaces.Discrete)
    fitting = _FOR_DISCRETE if discrete else _FOR_BOX
    kind = fitting[0] if config.kind == "auto" else config.kind
    if kind not in fitting:
        raise ValueError(f"planner {kind!r} does not fit {action_space}: choose {' or '.join(fitting)} (or auto)")
    known = {field.name for field in fields(PLANNERS[kind])}  # type: ignore[arg-type]
    read = {*known, "kind", "max_sequences"} if discrete else {*known, "kind"}
    idle = [
        name for name, value in as_kwargs(config).items() if value != getattr(PlannerConfig(), name) and name not in read
    ]
    if idle:
        raise ValueError(f"planner {kind} has no {', '.join(idle)}: it takes {', '.join(sorted(known - {'num_actions'}))}")
    settings = as_kwargs(config)
    if not settings["num_iterations"]:
        del settings["num_iterations"]
    if isinstance(action_space, spaces.Discrete):
        settings["num_actions"] = int(action_space.n)
        settings["horizon"] = affordable_horizon(int(action_space.n), config.horizon, config.max_sequences)
    return PLANNERS[kind](**{name: value for name, value in settings.items() if name in known})


__all__ = [
    "MPPI",
    "PLANNERS",
    "ExhaustivePlanner",
    "GradientPlanner",
    "Planner",
    "make_planner",
]
