"""Rows of the replay buffer in files.

A row is one step of all environments. Rows are numbered from the first one ever added, so that a number identifies a row
even after the ring buffer has wrapped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from gymnasium import spaces

from jepa_agent.environments.observations import has_choices, is_finite
from jepa_agent.learning.replay_buffer import SequenceReplayBuffer
from jepa_agent.persistence import archive
from jepa_agent.persistence.codec import encode_space
from jepa_agent.spaces import stored_actions

_KIND, _ROWS = "replay", "rows"


def arrays(buffer: SequenceReplayBuffer) -> dict[str, np.ndarray]:
    """Return all columns of a buffer without copying them.

    Args:
        buffer: The replay buffer.

    Returns:
        Arrays ``(buffer_size, n_envs, ...)`` by name; the entries of a dictionary column are named ``column/key``.
    """
    found: dict[str, np.ndarray] = {}
    for name in buffer.columns:
        column = getattr(buffer, name)
        found.update({f"{name}/{key}": part for key, part in column.items()} if isinstance(column, dict) else {name: column})
    return found


def bytes_per_row(buffer: SequenceReplayBuffer) -> int:
    """Return the size in bytes of one row of all columns."""
    return sum(array[0].nbytes for array in arrays(buffer).values())


def write_rows(path: str | Path | BinaryIO, buffer: SequenceReplayBuffer, first: int, last: int) -> None:
    """Write consecutive rows of a buffer to a file.

    Args:
        path: The file, or a binary file object.
        buffer: The replay buffer, which must still hold the rows.
        first: Number of the first row.
        last: Number after the last row.
    """
    # Row number n is in slot n % buffer_size of the ring.
    slots = np.arange(first, last) % buffer.buffer_size
    rows = {name: torch.from_numpy(array[slots]) for name, array in arrays(buffer).items()}
    manifest = {**_spaces(buffer), "history": buffer.history, "first": first, "last": last}
    archive.write(path, _KIND, manifest, {_ROWS: rows})


def read_rows(path: str | Path | BinaryIO, buffer: SequenceReplayBuffer) -> dict[str, Any]:
    """Read the rows of a file into their places in a buffer, as far as its capacity reaches back.

    The buffer's counters are not changed.

    Args:
        path: A file of `write_rows`, or a binary file object.
        buffer: The replay buffer to fill.

    Returns:
        The file's manifest.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged (`CheckpointError`), or its rows have other spaces, shapes or dtypes than the buffer,
            are not finite, or hold values outside a discrete space.
    """
    manifest, rows = _fitting_rows(path, buffer)
    _place(buffer, rows, manifest["first"], manifest["last"])
    return manifest


def read_all(path: str | Path | BinaryIO, buffer: SequenceReplayBuffer) -> None:
    """Replace the content of a buffer by the rows of a file, or by the newest that fit.

    Args:
        path: A file of `write_rows`, or a binary file object.
        buffer: The replay buffer to fill.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As for `read_rows`; the buffer is unchanged then.
    """
    manifest, rows = _fitting_rows(path, buffer)
    buffer.reset()
    _place(buffer, rows, 0, manifest["last"] - manifest["first"])
    buffer.rewind(manifest["last"] - manifest["first"])


def _place(buffer: SequenceReplayBuffer, rows: dict[str, np.ndarray], first: int, last: int) -> None:
    """Copy rows ``first`` to ``last``, or the newest that fit, into their slots of the ring buffer."""
    # Rows that newer ones of the same file would overwrite are skipped.
    reach = max(first, last - buffer.buffer_size)
    slots = np.arange(reach, last) % buffer.buffer_size
    for name, array in arrays(buffer).items():
        array[slots] = rows[name][reach - first :]


def _fitting_rows(path: str | Path | BinaryIO, buffer: SequenceReplayBuffer) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a file and return its manifest and rows, checked against the buffer."""
    manifest, members = archive.read(path, _KIND)
    for field, expected in _spaces(buffer).items():
        if manifest[field] != expected:
            raise ValueError(f"field {field!r}: expected {expected}, found {manifest[field]}")
    length = int(manifest["last"]) - int(manifest["first"])
    rows = {name: tensor.numpy() for name, tensor in members[_ROWS].items()}
    for name, array in arrays(buffer).items():
        wanted = f"{array.dtype} {(length, *array.shape[1:])}"
        found = f"{rows[name].dtype} {rows[name].shape}" if name in rows else "none"
        if found != wanted:
            raise ValueError(f"rows {name!r}: expected {wanted}, found {found}")
        if not is_finite(rows[name]):
            raise ValueError(f"rows {name!r}: {int((~np.isfinite(rows[name])).sum())} numbers are not finite")
    for name, space in _choices(buffer).items():
        if not has_choices(space, rows[name]):
            raise ValueError(f"rows {name!r}: expected options of {space}, found {rows[name].min()} to {rows[name].max()}")
    return manifest, rows


def _choices(buffer: SequenceReplayBuffer) -> dict[str, spaces.Space]:
    """Return the spaces of actions and observations, by column."""
    seen, found = buffer.observation_space, {"actions": stored_actions(buffer.action_space)}
    for name in ("observations", "next_observations"):
        parts = {f"{name}/{key}": part for key, part in seen.items()} if isinstance(seen, spaces.Dict) else {name: seen}
        found.update(parts)
    return found


def _spaces(buffer: SequenceReplayBuffer) -> dict[str, Any]:
    """Return the manifest's fields that must be equal in file and buffer."""
    return {
        "observation_space": encode_space(buffer.observation_space),
        "action_space": encode_space(buffer.action_space),
        "n_envs": buffer.n_envs,
    }
