"""Two rooms and a door between them: a task whose goals lie many steps off and often behind a wall."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

STEP = 0.05
"""How far a point comes in one step along each axis, in sides of the square, for an action of 1."""
DOOR = 0.1
"""Half the width of the door."""
CLEARANCE = 0.01
"""Least distance of the point from the wall: which side of it the point is on can be seen."""
REACHED = 0.05
"""Distance from the goal at which it is reached."""
WALLS, DOORS = (0.3, 0.7), (0.15, 0.85)
"""Where the wall and the middle of the door may lie."""
PIXELS = 48
_WALL, _POINT, _GOAL = 0, 1, 2  # channels
_BLOB = 0.03
_ENLARGED = 8


class TwoRooms(gym.Env[np.ndarray, np.ndarray]):
    """A point in the unit square, which a wall from bottom to top divides; the wall has a door. ``JEPA/TwoRooms-v0``.

    Observations: ``Box(0, 1, (4,))``: the point's x and y, the wall's x, and the y of the door's middle. Wall and door are
    drawn anew at each episode.
    Actions: ``Box(-1, 1, (2,))``, a displacement in units of `STEP`. The wall and the square's edges stop the part of it
    that is at right angles to them; the rest is carried out.
    Reward: 0; with a goal, 1 for the step that comes within `REACHED` of it, which ends the episode.

    Args:
        goal: ``(x, y)`` for every episode that `reset` gives none; without, there is nothing to reach.
        render_mode: ``"rgb_array"`` or None.

    Raises:
        ValueError: The goal lies outside the square, or the render mode is another.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, goal: Any = None, render_mode: str | None = None):
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.render_mode = render_mode
        self.observation_space: spaces.Space[Any] = spaces.Box(0.0, 1.0, (4,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.usual_goal = None if goal is None else _numbers("goal", goal, 2)
        self.goal = self.usual_goal
        self.position, self.wall, self.door = np.array([0.25, 0.5]), 0.5, 0.5

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Of wall, door and start.
            options: ``state``, four numbers as a vector observation has them, in place of what is drawn; ``goal``, two.

        Raises:
            ValueError: An option of another name or form, or outside the square.
        """
        super().reset(seed=seed)
        given = options or {}
        if unknown := sorted(given.keys() - {"state", "goal"}):
            raise ValueError(f"reset knows the options state and goal, got {', '.join(unknown)}")
        # Drawn in any case, so that options do not change what later episodes draw.
        state = np.array([*self.np_random.random(2), self.np_random.uniform(*WALLS), self.np_random.uniform(*DOORS)])
        state = state if given.get("state") is None else _numbers("state", given["state"], 4)
        if not CLEARANCE <= state[2] <= 1.0 - CLEARANCE:
            raise ValueError(f"state's third number, the wall, must leave room on both sides, got {state[2]:g}")
        self.goal = self.usual_goal if given.get("goal") is None else _numbers("goal", given["goal"], 2)
        self.wall, self.door = float(state[2]), float(state[3])
        self.position = self._clear(state[:2], bool(state[0] < self.wall))
        return self.observation(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move as far as wall and edges let; the episode terminates at the goal, if there is one."""
        self.position = self._moved(STEP * np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0))
        reached = self.goal is not None and math.dist(self.position, self.goal) <= REACHED
        return self.observation(), float(reached), reached, False, {}

    def _moved(self, by: np.ndarray) -> np.ndarray:
        """Where a displacement ``(2,)`` leads: the line is cut with the wall's, however far it goes."""
        start, end = self.position, self.position + by
        left, stopped = end[0] < self.wall, False
        if (start[0] < self.wall) != left:
            # On the way the square's edges have held y already.
            height = np.clip(start[1] + (self.wall - start[0]) / by[0] * by[1], 0.0, 1.0)
            stopped = not self._in_door(height)
        return self._clear(np.clip(end, 0.0, 1.0), left != stopped, stopped)

    def _in_door(self, height: float) -> bool:
        return abs(height - self.door) < DOOR

    def _clear(self, position: np.ndarray, left: bool, stopped: bool = False) -> np.ndarray:
        """A position ``(2,)`` on its side of the wall: clear of it, or in the door unless it was stopped beside that."""
        x, y = position
        if stopped or not self._in_door(y):
            x = min(x, self.wall - CLEARANCE) if left else max(x, self.wall + CLEARANCE)
        return np.array([x, y])

    def observation(self, position: Any = None) -> Any:
        """What would be seen with the point at ``position`` ``(2,)``, by default where it is: a goal to plan for."""
        x, y = self.position if position is None else _numbers("position", position, 2)
        return np.array([x, y, self.wall, self.door], dtype=np.float32)

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The square as an image ``(384, 384, 3)``, y upwards: the wall red, the point green, the goal blue."""
        if self.render_mode is None:
            return None
        image = self.picture(self.position, self.goal)
        return image.repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1)

    def picture(self, position: np.ndarray, goal: np.ndarray | None = None) -> np.ndarray:
        """The square as an image ``(48, 48, 3)`` of bytes, y upwards, by channel: wall, point, goal."""
        middle = (np.arange(PIXELS) + 0.5) / PIXELS
        image = np.zeros((PIXELS, PIXELS, 3))
        beside = np.abs(middle - self.door)[:, None] >= DOOR
        image[..., _WALL] = beside & (np.abs(middle - self.wall) <= 1.0 / PIXELS)
        for channel, at in ((_POINT, position), (_GOAL, goal)):
            if at is not None:
                across, up = (np.exp(-0.5 * ((middle - coordinate) / _BLOB) ** 2) for coordinate in at)
                image[..., channel] = np.outer(up, across)
        return np.round(255.0 * image[::-1]).astype(np.uint8)


class TwoRoomsPixels(TwoRooms):
    """`TwoRooms` seen from above, as a picture ``Box(0, 255, (48, 48, 3), uint8)``: ``JEPA/TwoRoomsPixels-v0``.

    The wall lies in the first channel, the point, a blob, in the second. The goal is not shown.

    Args:
        goal: As of `TwoRooms`.
        render_mode: As of `TwoRooms`.
    """

    def __init__(self, goal: Any = None, render_mode: str | None = None):
        super().__init__(goal, render_mode)
        self.observation_space = spaces.Box(0, 255, (PIXELS, PIXELS, 3), np.uint8)

    def observation(self, position: Any = None) -> Any:
        return self.picture(self.position if position is None else _numbers("position", position, 2))


def _numbers(name: str, given: Any, count: int) -> np.ndarray:
    """``count`` numbers in [0, 1] as an array, or a ``ValueError``."""
    try:
        numbers = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (count,) or not np.all((numbers >= 0.0) & (numbers <= 1.0)):
        raise ValueError(f"{name} must be {count} numbers between 0 and 1, got {given!r}")
    return numbers
