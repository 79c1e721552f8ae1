"""One colour and one mark per algorithm, the same in every picture and told apart with any kind of colour vision."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from jepa_agent.extras import needs


class Look(NamedTuple):
    """How a line or a mark is drawn, in matplotlib's words."""

    colour: str
    marker: str
    line: Any  # a dash pattern
    fill: str = "full"  # of the marker

    def line_style(self, count: int) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot` for a line of ``count`` points, about eight of which get a marker."""
        return {
            "color": self.colour,
            "linestyle": self.line,
            "marker": self.marker,
            "fillstyle": self.fill,
            "markersize": 5,
            "markevery": max(1, count // 8),
            "linewidth": 1.7,
        }


# Okabe and Ito's palette; algorithms that are often compared with one another have colours far apart.
LOOKS = {
    "JEPA": Look("#0072B2", "o", "-"),
    "SAC": Look("#D55E00", "s", "--"),
    "PPO": Look("#009E73", "^", "-."),
    "DQN": Look("#E69F00", "D", (0, (1, 1.5))),
    "TQC": Look("#CC79A7", "v", (0, (6, 1.5, 1, 1.5, 1, 1.5))),
    "CrossQ": Look("#000000", "P", (0, (3, 1))),
    "A2C": Look("#56B4E9", "<", (0, (4, 1, 1, 1))),
    "TD3": Look("#882255", ">", (0, (5, 3))),
    "QRDQN": Look("#7F7F7F", "p", (0, (2, 2))),
    "best baseline": Look("#555555", "s", "--"),
    # Modes of one agent beside one another.
    "actor": Look("#0072B2", "o", "-"),
    "planner": Look("#D55E00", "s", "--"),
    "auto": Look("#009E73", "^", "-."),
    "auto_0.25": Look("#CC79A7", "D", (0, (1, 1.5))),
    "random_0.25": Look("#E69F00", "v", (0, (3, 1))),
    "surprise_0.25": Look("#56B4E9", "P", (0, (4, 1, 1, 1))),
    "disagreement_0.25": Look("#000000", "X", (0, (5, 3))),
    "every_4": Look("#7F7F7F", "p", (0, (2, 2))),
    # Planners beside one another.
    "mppi": Look("#0072B2", "o", "-"),
    "cem": Look("#D55E00", "s", "--"),
    "icem": Look("#E69F00", "D", (0, (1, 1.5))),
    "gradient": Look("#009E73", "^", "-."),
    "hybrid": Look("#CC79A7", "v", (0, (6, 1.5, 1, 1.5, 1, 1.5))),
    "random": Look("#7F7F7F", "p", (0, (2, 2))),
    "exhaustive": Look("#000000", "P", (0, (3, 1))),
}
# JEPA's modes share its colour and mark: the line and what fills the mark differ.
MODES = {"actor": ("-", "full"), "planner": ("--", "none"), "auto": ((0, (1, 1.5)), "left")}
_OTHER_MODES = list(product(("-.", (0, (6, 2)), (0, (3, 1, 1, 1))), ("right", "top", "bottom")))
# For what is not in the table. Tol's "muted" colours.
_SPARE = [
    Look(colour, marker, line)
    for (colour, line), marker in product(
        [
            ("#332288", "-"),
            ("#117733", "--"),
            ("#AA4499", "-."),
            ("#999933", (0, (1, 1.5))),
            ("#44AA99", (0, (6, 1.5, 1, 1.5))),
            ("#AA3311", (0, (3, 1))),
        ],
        ("X", "*", "h", "d", "8", "H", "o"),
    )
]


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Give every agent of a picture its look.

    An algorithm of the table has that look everywhere. Another has the look that its name picks, so it is the same from
    picture to picture; only where two of one picture would be alike, one of them takes the next that is free.

    Args:
        names: Names of agents as tables show them: an algorithm, in brackets its mode if it has several.

    Returns:
        Looks by name.
    """
    parts = {name: _parts(name) for name in names}
    free = dict(enumerate(_SPARE))
    found = {}
    for algorithm in sorted({algorithm for algorithm, _ in parts.values()}):
        found[algorithm] = LOOKS.get(algorithm) or free.pop(_nearest(free, crc32(algorithm.encode()) % len(_SPARE)))
        free = free or dict(enumerate(_SPARE))  # more agents than looks: they repeat
    return {name: _in_mode(found[algorithm], mode) for name, (algorithm, mode) in parts.items()}


def _parts(name: str) -> tuple[str, str | None]:
    """Return algorithm and mode of an agent's name; None for a mode that is not named."""
    found = re.fullmatch(r"(.+) \((\w+)\)", name)
    return (found[1], found[2]) if found else (name, None)


def _nearest(free: dict[int, Look], wanted: int) -> int:
    """Return the first free place from ``wanted`` on, going round at the end."""
    return min(free, key=lambda place: (place - wanted) % len(_SPARE))


def _in_mode(look: Look, mode: str | None) -> Look:
    """Return the look of a mode; of an unknown one the line and filling that its name picks."""
    if mode is None:
        return look
    line, fill = MODES.get(mode) or _OTHER_MODES[crc32(mode.encode()) % len(_OTHER_MODES)]
    return look._replace(line=line, fill=fill)


def as_pixels(figure: Any, dpi: int = 100) -> np.ndarray:
    """Draw a figure of matplotlib's.

    Args:
        figure: The figure.
        dpi: Pixels per inch.

    Returns:
        RGB pixels ``(height, width, 3)``, 0 to 255.
    """
    with needs("compare"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
