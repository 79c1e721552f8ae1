"""A folder of checkpoints that share the rows of one replay buffer.

Each save adds ``agent_*.zip`` and, in ``rows_*.zip``, only the rows that are new; names are never reused. ``index.zip``
lists which files belong to which checkpoint. It is replaced last, atomically: before that the folder is unchanged,
afterwards the save is complete. Files that it does not list, left by a killed save, are removed by the next save.
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
from jepa_agent.persistence.archive import CheckpointError, FormatError, as_checkpoint_error
from jepa_agent.persistence.replay_rows import bytes_per_row, read_all, read_rows, write_rows

CHECKPOINTS = "checkpoints"
"""The folder of checkpoints within a run folder of the command line."""
_INDEX = "index.zip"
_FILE_NAME = re.compile(r"(agent|rows)(_\d+)+_[0-9a-f]{8}\.zip")
_CHUNK_BYTES = 2**26


class Chunk(NamedTuple):
    """A file of consecutive rows.

    Args:
        file: Name of the file.
        first: Number of the first row, counted from the first row ever added to the buffer.
        last: Number after the last row.
    """

    file: str
    first: int
    last: int


class Entry(NamedTuple):
    """One checkpoint in the index.

    Args:
        num_timesteps: Environment steps at the checkpoint.
        agent: Name of the agent's file.
        history: Identifier of the replay buffer's content, `SequenceReplayBuffer.history`.
        added: Rows ever added to the buffer, including overwritten ones.
        chunks: Files of the buffer's rows, oldest first.
        logs: Sizes of the run's logs in bytes, by file name.
    """

    num_timesteps: int
    agent: str
    history: str
    added: int
    chunks: tuple[Chunk, ...]
    logs: dict[str, int]


def new_name(kind: str, *numbers: int) -> str:
    """Return a file name that has never been used: the kind, numbers, and a random part."""
    return "_".join([kind, *map(str, numbers), uuid4().hex[:8]]) + ".zip"


def entries(folder: Path) -> list[Entry]:
    """List the checkpoints in a folder.

    The index is read; if it is damaged or missing, the copies of its entries in the agents' files are used, with a warning.

    Args:
        folder: The folder of checkpoints.

    Returns:
        The checkpoints, oldest first; at least one.

    Raises:
        FileNotFoundError: There is no checkpoint.
        CheckpointError: The index is damaged and no agent's file is intact, or it names files outside the folder.
        FormatError: The index is of a version that cannot be read.
    """
    index = folder / _INDEX
    try:
        listed = archive.read(index, "index").manifest["checkpoints"]
    # Not damaged, but of another version: the fallback below would hide that.
    except FormatError:
        raise
    except (CheckpointError, OSError) as error:
        listed = _entries_from_agent_files(folder)
        if not listed and isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"no checkpoint in {folder}: expected {_INDEX}, as save_checkpoint writes it") from error
        if not listed:
            raise CheckpointError(str(error)) from error
        warnings.warn(f"{error}: going by what the checkpoints beside it say", stacklevel=2)
    with as_checkpoint_error(index):
        found = [_entry(**data) for data in listed]
        strange = next((name for name in sorted(_files(found)) if not _FILE_NAME.fullmatch(name)), None)
        # Names come from a file: a path that leads elsewhere must not be read, truncated or removed.
        if strange or not found:
            raise ValueError(f"field 'checkpoints': expected names of files in the folder, found {strange!r}")
        return found


def _entries_from_agent_files(folder: Path) -> list[dict[str, Any]]:
    """List, oldest first, the checkpoints of the run that saved last, as recorded in the agents' files."""
    found = []
    # By time of modification, since step counts of different runs cannot be compared.
    for file in sorted(folder.glob("agent_*.zip"), key=lambda file: file.stat().st_mtime_ns):
        with suppress(CheckpointError, OSError):
            told = archive.read(file, "agent").manifest.get("checkpoint")
            # A renamed file is not the one that its entry describes.
            found += [told] if told and told["agent"] == file.name else []
    own = [told for told in found if told["history"] == found[-1]["history"]]
    return sorted(own, key=lambda told: told["num_timesteps"])


def _files(listed: Iterable[Entry]) -> set[str]:
    """Return the names of all files that belong to checkpoints."""
    return {name for entry in listed for name in (entry.agent, *(chunk.file for chunk in entry.chunks))}


def _entry(chunks: list[list[Any]], **fields: Any) -> Entry:
    """Build an entry from its JSON form."""
    return Entry(chunks=tuple(Chunk(*chunk) for chunk in chunks), **fields)


@contextmanager
def all_or_nothing(folder: Path) -> Iterator[None]:
    """Remove the files written in the block if it raises: on a full disk they would make the next save fail too.

    Args:
        folder: The folder of checkpoints.
    """
    before = {file.name for file in folder.iterdir()}
    try:
        yield
    except BaseException:
        with suppress(OSError, CheckpointError):
            # The index may have been replaced already before the error; what it lists stays.
            listed = _files(entries(folder)) if (folder / _INDEX).is_file() else set()
            _remove(folder, keep=before | listed)
        raise


def _remove(folder: Path, keep: set[str]) -> None:
    """Remove the checkpoint files in a folder, except those to ``keep``."""
    for file in folder.iterdir():
        if _FILE_NAME.fullmatch(file.name) and file.name not in keep:
            with suppress(OSError):
                file.unlink()


def commit(folder: Path, entry: Entry, keep_last: int, after: str | None) -> None:
    """Make an entry, whose files have been written, the newest checkpoint, and remove files that are no longer needed.

    Args:
        folder: The folder of checkpoints.
        entry: The new checkpoint.
        keep_last: Number of checkpoints of the same history to keep.
        after: Agent's file of the checkpoint that the run continues from, if known. Newer checkpoints, which were damaged
            when the run was resumed, are dropped.
    """
    try:
        listed = archive.read(folder / _INDEX, "index").manifest["checkpoints"]
    except (OSError, CheckpointError):
        listed = _entries_from_agent_files(folder)
    there = [_entry(**data) for data in listed]
    # Checkpoints of another history belong to another run: a new run in the same folder replaces them.
    past = [old for old in there if old.history == entry.history and old.num_timesteps < entry.num_timesteps]
    names = [old.agent for old in past]
    if after in names:
        past = past[: names.index(after) + 1]
    kept = [*past, entry][-keep_last:]
    # The order matters: files are removed only after the new index no longer lists them.
    archive.write(folder / _INDEX, "index", {"checkpoints": [item._asdict() for item in kept]}, {})
    _remove(folder, keep=_files(kept))
    archive.remove_leftovers(folder, "*")


def append_rows(folder: Path, buffer: SequenceReplayBuffer, known: Iterable[Chunk]) -> tuple[Chunk, ...]:
    """Write the rows of a buffer that are not on disk yet.

    Args:
        folder: The folder of checkpoints.
        buffer: The replay buffer.
        known: Chunks written before, oldest first. If one of their files is missing, all rows are written again.

    Returns:
        The chunks that make up the buffer, oldest first.
    """
    # Rows keep their numbers when the ring buffer wraps, so chunks written earlier stay valid.
    oldest = buffer.added - buffer.size()
    chunks = [chunk for chunk in known if chunk.last > oldest]
    if not all((folder / chunk.file).is_file() for chunk in chunks):
        chunks = []
    begin = max(chunks[-1].last if chunks else 0, oldest)
    # In files of bounded size: saving needs little memory, and old chunks can be removed one by one.
    step = max(_CHUNK_BYTES // bytes_per_row(buffer), 1)
    for first in range(begin, buffer.added, step):
        last = min(first + step, buffer.added)
        chunk = Chunk(new_name("rows", first, last), first, last)
        write_rows(folder / chunk.file, buffer, first, last)
        chunks.append(chunk)
    return tuple(chunks)


def restore_rows(folder: Path, entry: Entry, buffer: SequenceReplayBuffer) -> None:
    """Fill a buffer with the rows it held at a checkpoint.

    Args:
        folder: The folder of checkpoints.
        entry: The checkpoint.
        buffer: The buffer to fill; its previous content is lost.

    Raises:
        CheckpointError: A row is missing or of another history, or does not fit the buffer.
    """
    buffer.reset()
    expected = max(entry.added - buffer.buffer_size, 0)
    for chunk in entry.chunks:
        with as_checkpoint_error(folder / chunk.file):
            # Chunks may overlap the part that the ring buffer has overwritten, but must leave no gap.
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


def experience_files(path: Path) -> list[Path]:
    """Return the files that a replay buffer's rows lie in, oldest first.

    Args:
        path: A run folder, or a folder of checkpoints, of which the newest is taken; or a file of rows.

    Raises:
        FileNotFoundError: The folder holds no checkpoint.
    """
    if not path.is_dir():
        return [path]
    folder = path / CHECKPOINTS if (path / CHECKPOINTS).is_dir() else path
    return [folder / chunk.file for chunk in entries(folder)[-1].chunks]


def read_experience(path: Path, buffer: SequenceReplayBuffer) -> None:
    """Replace the content of a buffer by the experience that `experience_files` finds, or by the newest rows that fit.

    Args:
        path: As for `experience_files`.
        buffer: The buffer to fill.

    Raises:
        FileNotFoundError: There is no such file, or no checkpoint in the folder.
        CheckpointError: Rows are damaged or missing, or do not fit the buffer.
    """
    if not path.is_dir():
        with as_checkpoint_error(path):
            return read_all(path, buffer)
    files = experience_files(path)
    if not files:
        raise CheckpointError(f"{path}: the newest checkpoint holds no experience")
    restore_rows(files[0].parent, entries(files[0].parent)[-1], buffer)
    buffer.history = uuid4().hex  # what is added from now on is no longer that run's


def log_sizes(logs: Iterable[Path]) -> dict[str, int]:
    """Return the sizes in bytes of those logs that exist, by file name."""
    return {log.name: log.stat().st_size for log in logs if log.is_file()}


def cut_logs(folder: Path, logs_folder: Path, num_timesteps: int) -> None:
    """Truncate a run's logs to their length at a checkpoint; the resumed run writes what followed again.

    Args:
        folder: The folder of checkpoints.
        logs_folder: The folder of the logs.
        num_timesteps: Environment steps at the checkpoint, which must be in the folder.

    Raises:
        CheckpointError: The checkpoint names a log outside ``logs_folder``, or a symbolic link.
    """
    entry = next((entry for entry in reversed(entries(folder)) if entry.num_timesteps == num_timesteps), None)
    if entry is None:
        raise CheckpointError(f"{folder / _INDEX}: field 'checkpoints': expected one of step {num_timesteps}, found none")
    for name, size in entry.logs.items():
        log = logs_folder / name
        # The names come from a file: nothing outside the folder may be truncated.
        if Path(name).name != name or log.is_symlink():
            raise CheckpointError(f"{folder / _INDEX}: field 'logs': expected names of files in the folder, found {name!r}")
        if log.is_file() and log.stat().st_size > size:
            os.truncate(log, size)
