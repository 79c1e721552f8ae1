"""The processor and the versions of packages, stored with every result."""

from __future__ import annotations

import os
import platform
import subprocess
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
    own = {"jepa_agent": __version__, "instructions": torch.backends.cpu.get_cpu_capability()}
    return {"python": platform.python_version(), "torch": torch.__version__, **others, **own, **_commit()}


def pinned_instructions() -> dict[str, str]:
    """Return the environment variables that let torch compute with AVX2 on any x86 processor that has it.

    Sums are rounded in the order of the vector's width, and a trajectory follows from the last bit: results of processors
    with wider instructions would be others. What the user has set stays.
    """
    info = Path("/proc/cpuinfo")
    if not info.exists() or " avx2 " not in info.read_text():
        return {}
    wanted = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def _commit() -> dict[str, str]:
    """Return the commit of the checkout that the package runs from, marked where files differ from it; nothing elsewhere."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": found} if found else {}


def _installed(package: str) -> bool:
    """Return whether a distribution is installed."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
