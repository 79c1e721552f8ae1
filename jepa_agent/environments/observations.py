"""What can be learned from and acted on: observations that have the form their space promises, and finite numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, maybe_transpose

BAD_OBSERVATION = "bad_observation"  # key of an info: the step was not finite, and is no step to learn from
RESTARTED = "environment_restarted"  # key of an info: the environment failed in the step, which is none to learn from
_SHOWN = 100  # characters of a value in a message


def check_form(
    obs: Any, space: spaces.Space, lead: tuple[int, ...] = (), name: str = "the environment's observation"
) -> None:
    """See that observations are what their space promises, but for the bounds of a Box, which many environments overstep.

    Args:
        obs: ``(*lead, *obs_shape)``, by name for a Dict space.
        space: Of one observation.
        lead: Leading axes.
        name: What is checked, for the message.

    Raises:
        ValueError: For another shape, other parts, what is no number, and choices that the space has not.
    """
    if isinstance(space, spaces.Dict):
        if not isinstance(obs, Mapping) or set(obs) != set(space.spaces):
            found = sorted(map(str, obs)) if isinstance(obs, Mapping) else type(obs).__name__
            raise ValueError(f"{name} must have the parts {sorted(space.spaces)}, found {found}")
        for key, part in space.spaces.items():
            check_form(obs[key], part, lead, f"{name} {key!r}")
        return
    values = as_array(obs)
    wanted = (*lead, *(space.shape or ()))
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold numbers, found {shown(obs)}")
    if values.shape != wanted:
        raise ValueError(f"{name} must have the shape {wanted}, found {values.shape}: {shown(obs)}")
    if not has_choices(space, values):
        raise ValueError(f"{name} must be of {space}, found {shown(obs)}")


def check_given(obs: Any, space: spaces.Space, name: str) -> None:
    """See that what a user gave is one observation of a space or several, and finite.

    Args:
        obs: ``(*obs_shape)`` or ``(n, *obs_shape)``, by name for a Dict space. Images may have their channels at the
            other end, as for SB3.
        space: Of one observation.
        name: What is checked, for the message.

    Raises:
        ValueError: Anything else.
    """
    if isinstance(space, spaces.Dict):
        named = (
            {key: _as_seen(part, space.spaces.get(key)) for key, part in obs.items()} if isinstance(obs, Mapping) else obs
        )
        parts = [(named[key], part) for key, part in space.spaces.items() if isinstance(named, dict) and key in named]
    else:
        named = _as_seen(obs, space)
        parts = [(named, space)]
    several = [np.shape(values)[:1] for values, part in parts if np.ndim(values) == len(part.shape or ()) + 1]
    check_form(named, space, several[0] if several else (), name)
    if not is_finite(named):
        raise ValueError(f"{name} is not finite: {shown(obs)}")


def has_choices(space: spaces.Space, values: np.ndarray) -> bool:
    """Whether values are among the options of a space; numbers always are.

    Args:
        space: Of one value.
        values: ``(..., *shape)``.
    """
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        first, count = space.start, space.n if isinstance(space, spaces.Discrete) else space.nvec
    elif isinstance(space, spaces.MultiBinary):
        first, count = 0, 2
    else:
        return True
    index = values - first
    return bool(((index >= 0) & (index < count) & (index == np.rint(index))).all())


def is_finite(values: Any) -> bool:
    """Whether an observation, or each part of it, holds finite numbers only."""
    if isinstance(values, Mapping):
        return all(is_finite(part) for part in values.values())
    numbers = as_array(values)
    return numbers.dtype.kind not in "fc" or bool(np.isfinite(numbers).all())


def is_finite_reward(reward: Any) -> bool:
    """Whether a reward is a number still once it is stored, as float32."""
    with np.errstate(over="ignore"):
        return is_finite(np.asarray(reward, np.float32))


def first_not_finite(values: Any, name: str) -> tuple[int, str] | None:
    """The first environment that gave something not finite.

    Args:
        values: ``(n_envs, ...)``, or a dict of them.
        name: What was given, for the message.

    Returns:
        Index of the environment, and a sentence; None if all is finite.
    """
    if isinstance(values, Mapping):
        found = (first_not_finite(part, f"{name} {key!r}") for key, part in values.items())
        return next((bad for bad in found if bad is not None), None)
    if is_finite(values):
        return None
    bad = next(index for index, row in enumerate(values) if not is_finite(row))
    return bad, f"the {name} is not finite: {shown(values[bad])}"


def as_array(values: Any) -> np.ndarray:
    """As a numpy array; of objects, where it is ragged or no array at all."""
    try:
        return np.asarray(values)
    except ValueError:
        return np.array(None)


def shown(value: Any) -> str:
    """A value on one line, cut where it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _as_seen(values: Any, space: spaces.Space | None) -> Any:
    """Images with their channels where the space has them, if they can be brought there."""
    array = as_array(values)
    if space is not None and array.ndim in (3, 4) and is_image_space(space):
        return maybe_transpose(array, space)
    return values if array.dtype.kind == "O" else array
