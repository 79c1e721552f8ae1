"""Where numbers come from: processor and versions, to stand beside every result."""

from __future__ import annotations

import platform
from pathlib import Path

import gymnasium
import numpy as np
import stable_baselines3
import torch

from jepa_agent._version import __version__


def cpu_model() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of everything that could change a number."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "stable_baselines3": stable_baselines3.__version__,
        "gymnasium": gymnasium.__version__,
        "numpy": np.__version__,
        "jepa_agent": __version__,
    }
