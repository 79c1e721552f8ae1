"""What `mkdocs build` does first: `envs/` is installed as `jepa_agent.envs`, and the reference is made of that layout."""

import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LAYOUT = ROOT / "build" / "layout_docs"


def on_startup(**_: Any) -> None:
    """Make the folder, which mkdocstrings looks for when it is configured."""
    LAYOUT.mkdir(parents=True, exist_ok=True)


def on_pre_build(**_: Any) -> None:
    """Copy the package as it is installed, for mkdocstrings to read; nothing of it is imported."""
    shutil.rmtree(LAYOUT, ignore_errors=True)
    left_out = shutil.ignore_patterns("__pycache__", "cli", "zoo")
    shutil.copytree(ROOT / "jepa_agent", LAYOUT / "jepa_agent", ignore=left_out)
    shutil.copytree(ROOT / "envs", LAYOUT / "jepa_agent" / "envs", ignore=left_out)
