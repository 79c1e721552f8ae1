"""A folder of checkpoints that share the rows of one replay buffer.

Each save adds ``agent_*.zip`` and, in ``rows_*.zip``, only the rows that are new; names are never used twice.
``index.zip``, replaced last, lists what belongs to which checkpoint: until then the folder is as it was, from then on the
save has happened. Files that it does not list, as a killed save leaves them, are removed by the next one.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from jepa_agent.learning.replay_buffer import SequenceReplayBuffer
from jepa_agent.persistence import archive
from jepa_agent.persistence.archive import CheckpointError, FormatError, told_of
from jepa_agent.persistence.replay_rows import bytes_per_row, read_rows, write_rows

_INDEX = "index.zip"
_OURS = re.compile(r"(agent|rows)(_\d+)+_[0-9a-f]{8}\.zip")
_CHUNK_BYTES = 2**26


class Chunk(NamedTuple):
    """Rows ``first`` to ``last``, the latter not included, and the file that holds them."""

    file: str
    first: int
    last: int


class Entry(NamedTuple):
    """One checkpoint: its files, and how long the run's logs were then."""

    num_timesteps: int
    agent: str
    history: str
    added: int
    chunks: tuple[Chunk, ...]
    logs: dict[str, int]


def new_name(kind: str, *numbers: int) -> str:
    """A file name that was never used."""
    return "_".join([kind, *map(str, numbers), uuid4().hex[:8]]) + ".zip"


def entries(folder: Path) -> list[Entry]:
    """The checkpoints in a folder, oldest first, as the index lists them; if it is damaged or missing, as the agents' own
    files say.

    Raises:
        FileNotFoundError: There is none.
        CheckpointError: The index names files outside the folder, or it is damaged and no agent's file is whole.
    """
    index = folder / _INDEX
    try:
        listed = archive.read(index, "index").manifest["checkpoints"]
    except FormatError:
        raise
    except (CheckpointError, OSError) as error:
        listed = _told_by_agents(folder)
        if not listed and isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"no checkpoint in {folder}: expected {_INDEX}, as save_checkpoint writes it") from error
        if not listed:
            raise CheckpointError(str(error)) from error
        warnings.warn(f"{error}: going by what the checkpoints beside it say", stacklevel=2)
    with told_of(index):
        found = [_entry(**data) for data in listed]
        strange = next((name for name in sorted(_files(found)) if not _OURS.fullmatch(name)), None)
        if strange or not found:
            raise ValueError(f"field 'checkpoints': expected names of files in the folder, found {strange!r}")
        return found


def _told_by_agents(folder: Path) -> list[dict[str, Any]]:
    """What the index would list of the run that saved last, as the agents' own files say, oldest first."""
    found = []
    for file in sorted(folder.glob("agent_*.zip"), key=lambda file: file.stat().st_mtime_ns):
        with suppress(CheckpointError, OSError):
            told = archive.read(file, "agent").manifest.get("checkpoint")
            found += [told] if told and told["agent"] == file.name else []
    own = [told for told in found if told["history"] == found[-1]["history"]]
    return sorted(own, key=lambda told: told["num_timesteps"])


def _files(listed: Iterable[Entry]) -> set[str]:
    """Names of all files that belong to checkpoints."""
    return {name for entry in listed for name in (entry.agent, *(chunk.file for chunk in entry.chunks))}


def _entry(chunks: list[list[Any]], **fields: Any) -> Entry:
    return Entry(chunks=tuple(Chunk(*chunk) for chunk in chunks), **fields)


@contextmanager
def all_or_nothing(folder: Path) -> Iterator[None]:
    """Remove the files that a save has written if it fails: on a full disk they would keep the next one from succeeding.

    Args:
        folder: Of the checkpoints.
    """
    before = {file.name for file in folder.iterdir()}
    try:
        yield
    except BaseException:
        with suppress(OSError, CheckpointError):
            listed = _files(entries(folder)) if (folder / _INDEX).is_file() else set()
            _remove(folder, keep=before | listed)
        raise


def _remove(folder: Path, keep: set[str]) -> None:
    for file in folder.iterdir():
        if _OURS.fullmatch(file.name) and file.name not in keep:
            with suppress(OSError):
                file.unlink()


def commit(folder: Path, entry: Entry, keep_last: int, after: str | None) -> None:
    """Make an entry, whose files are written, the newest checkpoint, and remove those no longer kept.

    Args:
        folder: Of the checkpoints.
        entry: The new one.
        keep_last: How many of its history to keep.
        after: The agent's file of the checkpoint that the run was resumed from, if known. Newer ones, which were
            damaged, are dropped.
    """
    try:
        listed = archive.read(folder / _INDEX, "index").manifest["checkpoints"]
    except (OSError, CheckpointError):
        listed = _told_by_agents(folder)
    there = [_entry(**data) for data in listed]
    # Another history is that of another buffer: a run begun anew in the same folder replaces what was there.
    past = [old for old in there if old.history == entry.history and old.num_timesteps < entry.num_timesteps]
    names = [old.agent for old in past]
    if after in names:
        past = past[: names.index(after) + 1]
    kept = [*past, entry][-keep_last:]
    archive.write(folder / _INDEX, "index", {"checkpoints": [item._asdict() for item in kept]}, {})
    _remove(folder, keep=_files(kept))
    archive.remove_leftovers(folder, "*")


def append_rows(folder: Path, buffer: SequenceReplayBuffer, known: Iterable[Chunk]) -> tuple[Chunk, ...]:
    """Write the rows of a buffer that chunks on disk lack.

    Args:
        folder: Of the checkpoints.
        buffer: Whose rows are written.
        known: Chunks written before, oldest first. If a file is missing, all rows are written anew.

    Returns:
        The chunks that make up the buffer, oldest first.
    """
    # Rows are numbered from the first that was ever added, so that chunks stay valid as the buffer wraps round.
    oldest = buffer.added - buffer.size()
    chunks = [chunk for chunk in known if chunk.last > oldest]
    if not all((folder / chunk.file).is_file() for chunk in chunks):
        chunks = []
    begin = max(chunks[-1].last if chunks else 0, oldest)
    step = max(_CHUNK_BYTES // bytes_per_row(buffer), 1)
    for first in range(begin, buffer.added, step):
        last = min(first + step, buffer.added)
        chunk = Chunk(new_name("rows", first, last), first, last)
        write_rows(folder / chunk.file, buffer, first, last)
        chunks.append(chunk)
    return tuple(chunks)


def restore_rows(folder: Path, entry: Entry, buffer: SequenceReplayBuffer) -> None:
    """Fill a buffer as it was at a checkpoint.

    Args:
        folder: Of the checkpoints.
        entry: The checkpoint.
        buffer: To be filled.

    Raises:
        CheckpointError: A row is missing or of another history.
    """
    buffer.reset()
    expected = max(entry.added - buffer.buffer_size, 0)
    for chunk in entry.chunks:
        with told_of(folder / chunk.file):
            if chunk.first > expected:
                raise ValueError(f"field 'first': expected {expected}, found {chunk.first}")
            manifest = read_rows(folder / chunk.file, buffer)
            for field, wanted in (("history", entry.history), ("first", chunk.first), ("last", chunk.last)):
                if manifest[field] != wanted:
                    raise ValueError(f"field {field!r}: expected {wanted}, found {manifest[field]}")
            expected = chunk.last
    if entry.chunks and expected != entry.added:
        raise CheckpointError(f"{folder / _INDEX}: field 'added': expected {expected}, found {entry.added}")
    buffer.rewind(entry.added)
    buffer.history = entry.history


def log_sizes(logs: Iterable[Path]) -> dict[str, int]:
    """How long files that grow with the run are now."""
    return {log.name: log.stat().st_size for log in logs if log.is_file()}


def cut_logs(folder: Path, logs_folder: Path, num_timesteps: int) -> None:
    """Shorten the run's logs to what they held at a checkpoint; what came after will be written again.

    Args:
        folder: Of the checkpoints.
        logs_folder: Of the logs.
        num_timesteps: Step of the checkpoint.

    Raises:
        CheckpointError: The index names a file outside the folder.
    """
    entry = next(entry for entry in reversed(entries(folder)) if entry.num_timesteps == num_timesteps)
    for name, size in entry.logs.items():
        log = logs_folder / name
        if Path(name).name != name or log.is_symlink():
            raise CheckpointError(f"{folder / _INDEX}: field 'logs': expected names of files in the folder, found {name!r}")
        if log.is_file() and log.stat().st_size > size:
            os.truncate(log, size)
