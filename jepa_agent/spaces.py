"""What an environment's spaces mean here: which are taken, and how the networks' actions become the environment's."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from torch import Tensor

from jepa_agent.tensor_ops import one_hot_blocks, to_blocks

_WIDEST = 100_000  # of one-hot vectors side by side


def num_choices(action_space: spaces.Space) -> tuple[int, ...]:
    """How many options each choice of an action has; empty for a Box, whose actions are numbers."""
    if isinstance(action_space, spaces.Discrete):
        return (int(action_space.n),)
    if isinstance(action_space, spaces.MultiDiscrete):
        return tuple(action_space.nvec.ravel().tolist())
    if isinstance(action_space, spaces.MultiBinary):
        return (2,) * math.prod(action_space.shape)
    return ()


def policy_name(space: spaces.Space) -> str:
    """SB3's name of the policy for an observation space."""
    if isinstance(space, spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if is_image_space(space) else "MlpPolicy"


# ---------------------------------------------------------------------- what is taken


def check_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """Raise a ``ValueError`` that says what to do about a space this agent cannot handle."""
    check_observation_space(observation_space)
    check_action_space(action_space)


def check_observation_space(space: spaces.Space) -> None:
    """`check_spaces` for observations."""
    named = f"observation space {space} is not supported:"
    if not isinstance(space, spaces.Dict):
        _check_observation_part(space, named)
        return
    if not space.spaces:
        raise ValueError(f"{named} it is empty; add what the agent is to see by gymnasium.wrappers.TransformObservation")
    for key, part in space.spaces.items():
        if isinstance(part, (spaces.Dict, spaces.Tuple)):
            raise ValueError(
                f"{named} {key!r} is nested, which SB3's environments cannot hold; wrap the environment in "
                "gymnasium.wrappers.FlattenObservation, or in a TransformObservation that gives one Dict without nests"
            )
        _check_observation_part(part, named, f"{key!r}: ")


def _check_observation_part(space: spaces.Space, named: str, where: str = "") -> None:
    if not isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        remedy = {
            spaces.Tuple: "gymnasium.wrappers.FlattenObservation, or a TransformObservation that names its parts in a Dict",
            spaces.Text: "a gymnasium.wrappers.TransformObservation that gives an embedding or codes of fixed length",
            spaces.Sequence: "a gymnasium.wrappers.TransformObservation that pads it to a fixed length",
            spaces.Graph: "a gymnasium.wrappers.TransformObservation that gives features of fixed size",
        }.get(type(space), "a gymnasium.wrappers.TransformObservation that gives one of these")
        raise ValueError(
            f"{named} {where}JEPA takes Box, Discrete, MultiDiscrete, MultiBinary and a Dict of these; wrap the environment "
            f"in {remedy}"
        )
    if not math.prod(space.shape or ()):
        raise ValueError(f"{named} {where}it holds no number; leave it out by gymnasium.wrappers.TransformObservation")
    if isinstance(space, spaces.Box) and space.dtype.kind not in "fiub":
        raise ValueError(
            f"{named} {where}{space.dtype} numbers mean nothing to the networks; give their real and imaginary parts side "
            "by side by gymnasium.wrappers.TransformObservation"
        )
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) > 1:
        raise ValueError(
            f"{named} {where}SB3 knows MultiDiscrete observations of one axis only; wrap the environment in "
            "gymnasium.wrappers.FlattenObservation"
        )
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) and sum(num_choices(space)) > _WIDEST:
        raise ValueError(
            f"{named} {where}one-hot vectors of {sum(num_choices(space)):,} are too wide (at most {_WIDEST:,}); give the "
            "number itself as a Box by gymnasium.wrappers.TransformObservation"
        )


def check_action_space(space: spaces.Space) -> None:
    """`check_spaces` for actions."""
    named = f"action space {space} is not supported:"
    if isinstance(space, spaces.Box):
        _check_action_box(space, named)
        return
    if not isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        raise ValueError(
            f"{named} JEPA takes Box, Discrete, MultiDiscrete and MultiBinary actions; write a gymnasium.ActionWrapper "
            "whose action_space is one of these and whose action() makes of it what the environment takes"
        )
    width = sum(num_choices(space))
    if not 0 < width <= _WIDEST:
        raise ValueError(
            f"{named} its choices have {width:,} options in all, which are one-hot vectors to the networks (1 to "
            f"{_WIDEST:,} will do); write a gymnasium.ActionWrapper that takes a few numbers instead and rounds them"
        )


def _check_action_box(space: spaces.Box, named: str) -> None:
    if not math.prod(space.shape):
        raise ValueError(f"{named} it holds no number; nothing can be decided there")
    if not np.all(np.isfinite(space.low) & np.isfinite(space.high)):
        raise ValueError(
            f"{named} it is unbounded, and planning needs finite bounds; "
            "wrap the environment in gymnasium.wrappers.TransformAction with a bounded Box"
        )
    if not np.all(space.low < space.high):
        raise ValueError(
            f"{named} it has a dimension without extent; leave that out by gymnasium.wrappers.TransformAction, "
            "which puts the constant back"
        )
    with np.errstate(over="ignore"):
        if not np.all(np.isfinite(space.high.astype(np.float64) - space.low.astype(np.float64))):
            raise ValueError(
                f"{named} it is wider than a float can say; wrap the environment in gymnasium.wrappers.RescaleAction"
            )


# ---------------------------------------------------------------------- coordinates of actions


class ActionCode(ABC):
    """Actions as the networks see them, ``(B, A)``, and as the environment takes them, ``(B, *action_shape)``."""

    dim: int

    @abstractmethod
    def to_env(self, action: Tensor) -> np.ndarray:
        """As the environment takes them."""

    @abstractmethod
    def from_env(self, action: np.ndarray) -> Tensor:
        """The inverse of `to_env`, on the CPU."""


class BoxCode(ActionCode):
    """Numbers within bounds, of any shape and dtype; the networks see them in [-1, 1]. Integers are rounded to."""

    def __init__(self, space: spaces.Box):
        self.space, self.dim = space, math.prod(space.shape)
        self.rounds = not np.issubdtype(space.dtype, np.floating)
        self.low, self.high = space.low, space.high
        with np.errstate(over="ignore"):
            narrow = np.dtype(space.dtype).itemsize < 4 or not np.all(np.isfinite(self.high - self.low))
        if self.rounds or narrow:  # the extent may not fit into the space's own dtype
            self.low, self.high = self.low.astype(np.float64), self.high.astype(np.float64)

    def scale(self, action: np.ndarray) -> np.ndarray:
        """``(B, *action_shape)`` within the bounds to [-1, 1]."""
        return 2.0 * ((action - self.low) / (self.high - self.low)) - 1.0

    def unscale(self, action: np.ndarray) -> np.ndarray:
        """The inverse of `scale`."""
        return self.low + (0.5 * (action + 1.0) * (self.high - self.low))

    def to_env(self, action: Tensor) -> np.ndarray:
        return self.within(self.unscale(_finite(action).float().cpu().numpy().reshape(-1, *self.space.shape)))

    def within(self, found: np.ndarray) -> np.ndarray:
        """Numbers ``(B, *action_shape)`` as members of the space."""
        if self.rounds:
            # The largest integers are no floats: the one next below rounds to the same wherever the bound itself is one.
            found = np.rint(np.clip(found, self.low, np.nextafter(self.high, self.low)))
        # Rounding may carry an action at its bound one digit past it.
        return np.clip(found, self.low, self.high).astype(self.space.dtype)

    def from_env(self, action: np.ndarray) -> Tensor:
        return torch.as_tensor(self.scale(action).reshape(len(action), -1), dtype=torch.float32)


class ChoiceCode(ActionCode):
    """One choice or several; the networks see one-hot vectors side by side."""

    def __init__(self, space: spaces.Space):
        self.space, self.num_choices = space, num_choices(space)
        self.dim, self.shape = sum(self.num_choices), tuple(space.shape or ())
        self.start = np.asarray(getattr(space, "start", 0))
        self._first = torch.as_tensor(np.broadcast_to(self.start, self.shape).reshape(-1).copy())
        self._last = torch.tensor(self.num_choices) - 1

    def to_env(self, action: Tensor) -> np.ndarray:
        index = to_blocks(_finite(action), self.num_choices, fill=-torch.inf).argmax(-1).cpu().numpy()
        return (index.reshape(-1, *self.shape) + self.start).astype(self.space.dtype)

    def from_env(self, action: np.ndarray) -> Tensor:
        return self.vectors(torch.as_tensor(np.asarray(action).reshape(len(action), -1)))

    def vectors(self, choices: Tensor) -> Tensor:
        """The environment's choices laid flat, ``(..., K)``, as the networks see them, ``(..., A)``."""
        # A replay buffer's slots never written hold 0, which may be no choice; they are masked, but must not break here.
        index = choices.long() - self._first.to(choices.device)
        return one_hot_blocks(index.clamp(min=0).minimum(self._last.to(choices.device)), self.num_choices)


def _finite(action: Tensor) -> Tensor:
    """Actions as they are; ``ValueError`` if any is not finite: neither a clip nor an argmax would tell."""
    if not action.isfinite().all():
        raise ValueError("an action is not finite: weights of the networks, action noise or a planner's plan are not")
    return action


def action_code(space: spaces.Space) -> ActionCode:
    """The code for an action space that `check_action_space` lets pass."""
    return BoxCode(space) if isinstance(space, spaces.Box) else ChoiceCode(space)


def stored_actions(space: spaces.Space) -> spaces.Space:
    """What SB3's buffers keep of an action: Box actions scaled to [-1, 1], choices as they are; all of them laid flat."""
    if isinstance(space, spaces.Box):
        return spaces.Box(-1.0, 1.0, (math.prod(space.shape),), np.float32)
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec.ravel(), dtype=space.dtype.type, start=space.start.ravel())
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiBinary(math.prod(space.shape))
    return space
