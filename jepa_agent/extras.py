"""Packages that only some parts need, by the extra that brings them, and the one line that names the extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = {
    "cli": ("jsonargparse", "rich", "tqdm", "yaml", "psutil"),
    "compare": ("matplotlib", "scipy", "jinja2"),
    "video": ("moviepy", "pygame", "PIL"),
    "baselines": ("sb3_contrib",),
    "mujoco": ("mujoco",),
    "box2d": ("Box2D",),
    "popgym": ("popgym",),
    "minari": ("minari", "h5py"),
    "language": ("wordllama",),
    "ray": ("ray",),
    "zoo": ("rl_zoo3",),
}
"""Modules that each extra of setup.cfg brings; ``compare`` brings those of ``cli`` too."""


class MissingExtraError(ModuleNotFoundError):
    """An optional package is not installed; the message is one line that says how to install it."""


def pip_line(*extras: str) -> str:
    """Return the command that installs extras."""
    return f"pip install 'jepa_agent[{','.join(extras)}]'"


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Import packages of an extra; where one is missing, the error names the extra.

    ``with needs("compare"): import matplotlib``

    Args:
        extra: The extra, as in `EXTRAS`.

    Raises:
        MissingExtraError: A package imported within is not installed.
    """
    try:
        yield
    except MissingExtraError:
        raise  # an import further down knows its own extra
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("jepa_agent"):
            raise  # a mistake of ours, which no package mends
        raise MissingExtraError(f"this needs {error.name}: {pip_line(extra)}", name=error.name) from error
