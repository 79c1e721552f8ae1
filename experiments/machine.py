"""The processor and the versions of packages, stored with every result."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from jepa_agent._version import __version__

_PACKAGES = ("stable_baselines3", "sb3_contrib", "gymnasium", "mujoco", "Box2D", "numpy", "scipy")


def cpu_model() -> str:
    """Return the processor's name as the operating system reports it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    # ARM kernels and systems other than Linux give no model name in /proc/cpuinfo.
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of Python and of all installed packages that can change a result, by name."""
    others = {name: version(name) for name in _PACKAGES if _installed(name)}
    return {"python": platform.python_version(), "torch": torch.__version__, **others, "jepa_agent": __version__}


def _installed(package: str) -> bool:
    """Return whether a distribution is installed."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
