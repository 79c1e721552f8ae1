"""Reading untrusted YAML as plain data of bounded size; nothing in it is called or imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jepa_agent.extras import needs
from jepa_agent.persistence.plain_data import refuse_classes

with needs("cli"):
    import yaml

_MOST_TEXT = 2**20  # bytes; the longest study in this repository has a hundredth of that


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases, a few of which can expand to any amount of data."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node as PyYAML does, but raise ``ConstructorError`` for an alias."""
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not read", self.peek_event().start_mark)
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> Any:
    """Read a YAML file as mappings, lists, strings, numbers and dates.

    Args:
        path: The file.

    Returns:
        The content.

    Raises:
        ValueError: The file cannot be read, is too large, is not YAML, holds aliases, or names a class to be built.
    """
    try:
        if path.stat().st_size > _MOST_TEXT:
            raise ValueError(f"{path} has {path.stat().st_size:,} bytes, expected at most {_MOST_TEXT:,}")
        content = yaml.load(path.read_text(), _PlainLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {getattr(error, 'strerror', None) or 'is no text'}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    refuse_classes(content, str(path))
    return content
