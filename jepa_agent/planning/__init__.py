"""Planners that see only ``cost_fn(actions)``."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from gymnasium import spaces

from jepa_agent.config import PlannerConfig, as_kwargs, did_you_mean
from jepa_agent.planning.base import Planner
from jepa_agent.planning.discrete import CategoricalCEM, ExhaustivePlanner, RandomChoices, affordable_horizon
from jepa_agent.planning.gradient import GradientPlanner, HybridPlanner
from jepa_agent.planning.sampling import CEM, ICEM, MPPI, RandomShooting
from jepa_agent.spaces import num_choices

FOR_BOX: dict[str, type[Planner]] = {
    "mppi": MPPI,
    "cem": CEM,
    "icem": ICEM,
    "gradient": GradientPlanner,
    "hybrid": HybridPlanner,
    "random": RandomShooting,
}
FOR_CHOICES: dict[str, type[Planner]] = {
    "exhaustive": ExhaustivePlanner,
    "cem": CategoricalCEM,
    "random": RandomChoices,
}
"""Planners by the name that a `PlannerConfig` asks for; the first is what ``auto`` means. The command line's help, the
laboratory and error messages list what is here."""


def register_planner(kind: str, planner: type[Planner], choices: bool = False) -> None:
    """Let ``PlannerConfig(kind=...)`` and ``--planner.kind`` ask for a planner of one's own.

    Args:
        kind: Its name.
        planner: A dataclass that derives from `Planner`; its fields are filled from those of `PlannerConfig` of the same
            names. One for choices also has ``num_choices``, a tuple.
        choices: Whether it plans for choices, or else for Box actions.

    Raises:
        ValueError: The name is taken by another planner.
    """
    known = FOR_CHOICES if choices else FOR_BOX
    if kind == "auto" or known.get(kind, planner) is not planner:
        raise ValueError(f"planner {kind!r} is taken: choose a name other than {', '.join(['auto', *known])}")
    known[kind] = planner


def kinds() -> list[str]:
    """The names of all planners."""
    return ["auto", *dict.fromkeys([*FOR_BOX, *FOR_CHOICES])]


def check_planner(planner: Planner, action_space: spaces.Space) -> Planner:
    """The planner, if it can act in an action space. Planners of a user's own are trusted to.

    Raises:
        ValueError: It searches numbers where actions are choices, or the other way round, or follows a plan beyond its end.
    """
    choices, searched = num_choices(action_space), tuple(getattr(planner, "num_choices", ()))
    if type(planner) in (*FOR_BOX.values(), *FOR_CHOICES.values()) and searched != choices:
        found, wanted = (f"choices among {all_of}" if all_of else "numbers" for all_of in (searched, choices))
        raise ValueError(
            f"{type(planner).__name__} searches {found}, but actions of {action_space} are {wanted}: "
            "give a PlannerConfig, which finds the planner that fits"
        )
    if planner.replan_every > planner.horizon:
        raise ValueError(f"replan_every {planner.replan_every} exceeds the {planner.horizon} actions of a plan")
    return planner


def make_planner(config: PlannerConfig, action_space: spaces.Space) -> Planner:
    """The planner that a configuration asks for.

    Args:
        config: Kind and settings; those that the kind does not have must be left at their defaults.
        action_space: Box, Discrete, MultiDiscrete or MultiBinary.

    Raises:
        ValueError: The kind does not fit the action space, or has no such setting.
    """
    choices = num_choices(action_space)
    fitting = FOR_CHOICES if choices else FOR_BOX
    kind = next(iter(fitting)) if config.kind == "auto" else config.kind
    if kind == "exhaustive" and choices and math.prod(choices) > config.max_sequences:
        if config.kind != "auto":
            raise ValueError(
                f"planner exhaustive would score {math.prod(choices):,} actions of {action_space} at each step, but "
                f"max_sequences is {config.max_sequences:,}: choose cem (or auto), or raise max_sequences"
            )
        kind = "cem"
    if kind not in fitting:
        what = f"does not fit {action_space}" if kind in kinds() else f"is not known for {action_space}"
        raise ValueError(f"planner {kind!r} {what}{did_you_mean(kind, ['auto', *fitting])}")
    known = {field.name for field in fields(fitting[kind])}  # type: ignore[arg-type]
    read = {*known, "kind"} | ({"max_sequences"} if kind == "exhaustive" else set())
    standard = PlannerConfig()
    chosen = {name: value for name, value in as_kwargs(config).items() if value != getattr(standard, name)}
    idle = sorted(set(chosen) - read)
    if idle:
        raise ValueError(f"planner {kind} has no {', '.join(idle)}: it takes {', '.join(sorted(known - {'num_choices'}))}")
    settings: dict[str, Any] = {name: value for name, value in as_kwargs(config).items() if name in known}
    if not config.num_iterations:
        settings.pop("num_iterations", None)
    if choices:
        settings["num_choices"] = choices
        if kind == "exhaustive":
            settings["horizon"] = affordable_horizon(choices, config.horizon, config.max_sequences)
    planner = fitting[kind](**settings)
    if planner.replan_every > planner.horizon:
        raise ValueError(
            f"replan_every {planner.replan_every} exceeds the {planner.horizon} actions of a plan that max_sequences "
            f"{config.max_sequences} affords: raise max_sequences, or choose cem"
        )
    return planner


__all__ = [
    "CEM",
    "FOR_BOX",
    "FOR_CHOICES",
    "ICEM",
    "MPPI",
    "CategoricalCEM",
    "ExhaustivePlanner",
    "GradientPlanner",
    "HybridPlanner",
    "Planner",
    "RandomChoices",
    "RandomShooting",
    "check_planner",
    "kinds",
    "make_planner",
    "register_planner",
]
