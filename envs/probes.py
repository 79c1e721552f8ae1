"""Probe environments: tasks of one or two steps whose true values are known, each needing one more faculty than the last.

When an agent fails, the first probe it fails tells which part is broken.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Probe(gym.Env[Any, Any]):
    """A task of ``length`` steps around one hidden number, ``value``.

    Observations: the number, ``Box(-1, 1, (1,))``. Actions: ``Discrete(2)``, read as -1 and 1, or ``Box(-1, 1, (1,))``.
    The episode terminates after ``length`` steps. Subclasses say what the number is and what is rewarded.

    Args:
        continuous: Whether actions are numbers.
    """

    length = 1

    def __init__(self, continuous: bool = False):
        self.observation_space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32) if continuous else spaces.Discrete(2)
        self.continuous = continuous
        self.steps = 0
        self.value = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode with the number of `first`."""
        super().reset(seed=seed)
        self.steps = 0
        self.value = self.first()
        return self.observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Reward the action, then change the number as `then` says."""
        reward = self.reward(self.read(action))
        self.steps += 1
        self.value = self.then()
        return self.observation(), reward, self.steps >= self.length, False, {}

    def read(self, action: Any) -> Any:
        """An action of either kind, in [-1, 1]."""
        return float(np.asarray(action).reshape(-1)[0]) if self.continuous else 2.0 * int(action) - 1.0

    def observation(self) -> Any:
        """What is seen of the hidden number: ``(1,)``."""
        return np.array([self.value], dtype=np.float32)

    def first(self) -> float:
        """Value at reset."""
        return 0.0

    def then(self) -> float:
        """Value after a step."""
        return self.value

    def reward(self, action: Any) -> float:
        """Reward of an action.

        Args:
            action: As `read` returned it.
        """
        raise NotImplementedError


class ConstantReward(Probe):
    """One step, reward 1: the cost-to-go is -1 whatever is seen or done."""

    def reward(self, action: float) -> float:
        return 1.0


class ObservationIsValue(Probe):
    """One step, observation -1 or 1 at random, which is also the reward."""

    def first(self) -> float:
        return float(self.np_random.choice([-1.0, 1.0]))

    def reward(self, action: float) -> float:
        return self.value


class Discounting(Probe):
    """Two steps, observations 0 and 1, reward 1 after the second: the cost-to-go of the first is -gamma."""

    length = 2

    def then(self) -> float:
        return 1.0

    def reward(self, action: float) -> float:
        return float(self.steps == 1)


class ActionMatters(Probe):
    """One step, the reward is the action in [-1, 1]."""

    def reward(self, action: float) -> float:
        return action


class ActionFollowsObservation(ObservationIsValue):
    """One step, observation -1 or 1 at random; the reward is their product, 1 when the action follows it."""

    def reward(self, action: float) -> float:
        return self.value * action


class ChoicesTogether(ObservationIsValue):
    """One step, two choices that are rewarded together only.

    Observations: -1 or 1 at random. Actions: ``MultiDiscrete([3, 4])``, which count from 1 and 0. Reward: 1 for (1, 3) after
    -1 and for (3, 0) after 1, else 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.MultiDiscrete([3, 4], start=[1, 0])

    def read(self, action: Any) -> Any:
        assert self.action_space.contains(np.asarray(action)), f"{action!r} is not in {self.action_space}"
        return np.asarray(action)

    def reward(self, action: Any) -> float:
        return float(action.tolist() == ([3, 0] if self.value > 0 else [1, 3]))


class BitsDiffer(ChoicesTogether):
    """One step, three bits, of which the first two are worth nothing alone.

    Observations: -1 or 1 at random. Actions: ``MultiBinary(3)``. Reward: 1 if the first two bits differ and the third is the
    observation's sign, else 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.MultiBinary(3)

    def reward(self, action: Any) -> float:
        return float(action[0] != action[1] and action[2] == (self.value > 0))


class BrightOrDark(ActionFollowsObservation):
    """`ActionFollowsObservation` as a picture of noise: bright for 1, dark for -1.

    Observations: ``Box(0, 255, (side, side, 3), uint8)``.

    Args:
        continuous: Whether actions are numbers.
        side: Pixels.
    """

    def __init__(self, continuous: bool = False, side: int = 16):
        super().__init__(continuous)
        self.side = side
        self.observation_space = spaces.Box(0, 255, (side, side, 3), np.uint8)

    def observation(self) -> Any:
        low, high = (128, 256) if self.value > 0 else (0, 128)
        return self.np_random.integers(low, high, (self.side, self.side, 3)).astype(np.uint8)


class PictureAndNumber(BrightOrDark):
    """The picture of `BrightOrDark` beside a number, -1 or 1 at random. The right action is the product of what both say.

    Observations: ``Dict`` of ``picture`` and ``number``.

    Args:
        continuous: Whether actions are numbers.
    """

    def __init__(self, continuous: bool = False):
        super().__init__(continuous)
        number = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = spaces.Dict({"number": number, "picture": self.observation_space})
        self.number = 1.0

    def first(self) -> float:
        self.number = float(self.np_random.choice([-1.0, 1.0]))
        return super().first()

    def observation(self) -> Any:
        return {"number": np.array([self.number], dtype=np.float32), "picture": super().observation()}

    def reward(self, action: Any) -> float:
        return self.number * super().reward(action)


class CueAtFirst(Probe):
    """A cue that must be remembered: -1 or 1 at the first of ``delay + 1`` steps, 0 after.

    Reward: at the last step the cue times the action, 0 before.

    Args:
        continuous: Whether actions are numbers.
        delay: Steps between the cue and the rewarded action.
    """

    def __init__(self, continuous: bool = False, delay: int = 3):
        super().__init__(continuous)
        self.length = delay + 1
        self.cue = 0.0

    def first(self) -> float:
        self.cue = float(self.np_random.choice([-1.0, 1.0]))
        return self.cue

    def then(self) -> float:
        return 0.0

    def reward(self, action: float) -> float:
        return self.cue * action if self.steps == self.length - 1 else 0.0
