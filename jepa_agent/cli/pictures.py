"""Where the verbs that draw put their pictures."""

from __future__ import annotations

from pathlib import Path

from jepa_agent.cli.common import UsageError, writable_folder
from jepa_agent.experiments.figures import check_format


def picture_path(name: str) -> Path:
    """Where a picture goes, a PNG without a suffix; `UsageError` if it cannot be written, or in no format of that suffix."""
    path = Path(name) if Path(name).suffix else Path(f"{name}.png")
    try:
        check_format(path)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file for the picture")
    writable_folder(path.parent)
    return path
