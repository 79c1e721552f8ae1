"""Checks of observations and rewards: the form that their space requires, and finite numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, maybe_transpose

BAD_OBSERVATION = "bad_observation"  # key of an info: the step was not finite and must not be learned from
RESTARTED = "environment_restarted"  # key of an info: the environment failed in the step, which must not be learned from
_SHOWN = 100  # characters of a value in a message


def check_form(
    obs: Any, space: spaces.Space, lead: tuple[int, ...] = (), name: str = "the environment's observation"
) -> None:
    """Check that observations have the form of their space.

    The bounds of a Box are not checked, because many environments exceed them.

    Args:
        obs: Observations ``(*lead, *obs_shape)``; a mapping of them for a Dict space.
        space: The space of one observation.
        lead: Leading axes, such as ``(n_envs,)``.
        name: What is checked, for the message.

    Raises:
        ValueError: The shape or the keys differ, a value is not a number, or a discrete value is not in the space.
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
    """Check that a user passed one finite observation of a space, or a batch of them.

    Args:
        obs: Observations ``(*obs_shape)`` or ``(n, *obs_shape)``; a mapping of them for a Dict space. Images may be
            channel-first or channel-last, as in SB3.
        space: The space of one observation.
        name: What is checked, for the message.

    Raises:
        ValueError: The form is another, or a number is not finite.
    """
    if isinstance(space, spaces.Dict):
        named = (
            {key: _transposed_if_image(part, space.spaces.get(key)) for key, part in obs.items()}
            if isinstance(obs, Mapping)
            else obs
        )
        parts = [(named[key], part) for key, part in space.spaces.items() if isinstance(named, dict) and key in named]
    else:
        named = _transposed_if_image(obs, space)
        parts = [(named, space)]
    # The first value with one axis more than its space determines the batch size; `check_form` compares the rest.
    several = [np.shape(values)[:1] for values, part in parts if np.ndim(values) == len(part.shape or ()) + 1]
    check_form(named, space, several[0] if several else (), name)
    if not is_finite(named):
        raise ValueError(f"{name} is not finite: {shown(obs)}")


def has_choices(space: spaces.Space, values: np.ndarray) -> bool:
    """Return whether discrete values are members of a space.

    Args:
        space: The space of one value; if it is not discrete, the result is True.
        values: Values ``(..., *shape)``.
    """
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        first, count = space.start, space.n if isinstance(space, spaces.Discrete) else space.nvec
    elif isinstance(space, spaces.MultiBinary):
        first, count = 0, 2
    else:
        return True
    # Equal to its rounded value: environments may return options as floats.
    index = values - first
    return bool(((index >= 0) & (index < count) & (index == np.rint(index))).all())


def is_finite(values: Any) -> bool:
    """Return whether all numbers are finite.

    Args:
        values: An observation, a reward, or a mapping of them. Values that are not floats count as finite.
    """
    if isinstance(values, Mapping):
        return all(is_finite(part) for part in values.values())
    numbers = as_array(values)
    return numbers.dtype.kind not in "fc" or bool(np.isfinite(numbers).all())


def is_finite_reward(reward: Any) -> bool:
    """Return whether a reward is finite once it is stored as float32."""
    # The replay buffer stores float32, in which a large finite float64 becomes infinite.
    with np.errstate(over="ignore"):
        return is_finite(np.asarray(reward, np.float32))


def first_not_finite(values: Any, name: str) -> tuple[int, str] | None:
    """Find the first environment that returned a number that is not finite.

    Args:
        values: Array ``(n_envs, ...)``, or a mapping of such arrays.
        name: What the values are, for the message.

    Returns:
        The environment's index and a message; None if all numbers are finite.
    """
    if isinstance(values, Mapping):
        found = (first_not_finite(part, f"{name} {key!r}") for key, part in values.items())
        return next((bad for bad in found if bad is not None), None)
    if is_finite(values):
        return None
    bad = next(index for index, row in enumerate(values) if not is_finite(row))
    return bad, f"the {name} is not finite: {shown(values[bad])}"


def as_array(values: Any) -> np.ndarray:
    """Convert a value to a numpy array; a ragged nesting, which has no shape, becomes an array of the object None."""
    try:
        return np.asarray(values)
    except ValueError:
        return np.array(None)


def shown(value: Any) -> str:
    """Return a value as text on one line, at most 100 characters long."""
    text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _transposed_if_image(values: Any, space: spaces.Space | None) -> Any:
    """Return images with their channels where the space has them, if they can be transposed; other values as arrays."""
    array = as_array(values)
    if space is not None and array.ndim in (3, 4) and is_image_space(space):
        return maybe_transpose(array, space)
    # A ragged value stays as it was given, so that an error message can show it.
    return values if array.dtype.kind == "O" else array
