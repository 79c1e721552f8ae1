"""A file format without pickle: a zip archive of one JSON manifest and safetensors; reading executes nothing from the file.

The manifest lists size and SHA-256 of every other member. The archive's comment is the SHA-256 of all bytes before it, so
that a flipped bit is detected even in the zip's own headers. A file is written next to its destination, flushed to disk
and renamed: if the writer is killed, the previous file is still intact.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import struct
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from jepa_agent._version import __version__
from jepa_agent.persistence.system import process_exists

FORMATS = {"agent": 6, "replay": 4, "index": 3}
"""The format that each kind of file is written in; those before it are migrated, step by step, where `_MIGRATIONS` can."""
_MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 2**26
_CHECKSUM_LENGTH = 64  # characters of a SHA-256 in hexadecimal
_READ_ERRORS = (
    zipfile.BadZipFile,
    SafetensorError,
    struct.error,
    ValueError,  # from JSON, text decoding, or seeking before the start
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    NotImplementedError,
    OverflowError,
    RuntimeError,  # also RecursionError, from deeply nested JSON
)


class CheckpointError(ValueError):
    """The file cannot be loaded here; the message names the file, what was expected and what was found."""


class FormatError(CheckpointError):
    """The file was written in another version of the format; it is not damaged."""


class Checkpoint(NamedTuple):
    """The content of a file.

    Args:
        manifest: The JSON manifest.
        members: The collections of tensors, by name; each maps the tensors' names to tensors.
    """

    manifest: dict[str, Any]
    members: dict[str, dict[str, Tensor]]


@contextmanager
def as_checkpoint_error(path: Any) -> Iterator[None]:
    """Turn any error about the content of a file, raised inside the block, into a `CheckpointError` that names the file.

    Args:
        path: The file, as it is named in the message.

    Raises:
        CheckpointError: The block raised one, or a ``KeyError`` (a missing field), ``ValueError``, ``TypeError``,
            ``AttributeError``, ``IndexError``, ``RuntimeError``, ``OverflowError`` or ``MemoryError``.
    """
    try:
        yield
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"{path}: field {error} is missing") from error
    except (ValueError, TypeError, AttributeError, IndexError, RuntimeError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"{path}: {error}") from error


# ---------------------------------------------------------------------- writing


def write(
    path: str | Path | BinaryIO, kind: str, manifest: Mapping[str, Any], members: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write a checkpoint; a file at the path is replaced atomically.

    Args:
        path: The destination, or a binary file object. A path without a suffix gets ``.zip``; missing folders are created.
        kind: What the file holds, a key of `FORMATS`.
        manifest: Fields of the manifest, JSON-serialisable.
        members: Collections of tensors; each is stored as ``<name>.safetensors``.

    Raises:
        OSError: The file cannot be written; the previous one is intact.
    """
    # Everything is encoded in memory first, so that an encoding error occurs before anything is written.
    blobs = {
        f"{name}.safetensors": tensors_to_bytes({k: t.detach().cpu().contiguous() for k, t in tensors.items()})
        for name, tensors in members.items()
    }
    listed = {name: {"size": len(blob), "sha256": hashlib.sha256(blob).hexdigest()} for name, blob in blobs.items()}
    content = {"format": FORMATS[kind], "kind": kind, "written_by": __version__, **manifest, "members": listed}
    blobs = {_MANIFEST: json.dumps(content, indent=1).encode(), **blobs}
    if isinstance(path, (str, Path)):
        with replacing(with_suffix(path)) as file:
            _write_archive(file, blobs)
    else:
        buffer = io.BytesIO()
        _write_archive(buffer, blobs)
        path.write(buffer.getvalue())


def _write_archive(file: IO[bytes], blobs: Mapping[str, bytes]) -> None:
    """Write the members as an uncompressed zip archive and put the checksum into its comment."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, blob in blobs.items():
            archive.writestr(zipfile.ZipInfo(name), blob)  # without a date: equal content makes equal files
        archive.comment = b"0" * _CHECKSUM_LENGTH  # placeholder: the digest covers this record's length field too
    seal = _digest_before_checksum(file)
    file.seek(-_CHECKSUM_LENGTH, os.SEEK_END)
    file.write(seal)


def _digest_before_checksum(file: IO[bytes]) -> bytes:
    """Return the SHA-256, in hexadecimal, of all bytes but the last ``_CHECKSUM_LENGTH``."""
    left = file.seek(0, os.SEEK_END) - _CHECKSUM_LENGTH
    file.seek(0)
    digest = hashlib.sha256()
    while left > 0:
        block = file.read(min(left, 2**20))
        digest.update(block)
        left -= len(block)
    return digest.hexdigest().encode()


@contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file for writing that replaces ``target`` atomically at the end of the block.

    If the block raises, ``target`` is unchanged and the temporary file is removed. Missing folders are created.

    Args:
        target: The file to create or replace.

    Yields:
        The temporary file, open for reading and writing in binary mode.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # A killed writer could not remove its temporary file, and on a full disk that space is needed now.
    remove_leftovers(target.parent, target.name)
    # In the same folder, because a rename is atomic only within one file system. The process id in the name tells
    # `remove_leftovers` whether the writer still runs.
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.{os.getpid()}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            # Before the rename: otherwise a power failure may leave an empty file under the final name.
            os.fsync(file.fileno())
        # The umask can only be read by setting it.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp creates files readable by the owner only
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove temporary files of `replacing` whose writer was killed.

    Args:
        folder: The folder to clean.
        name: The name of the file that was to be replaced, or a glob pattern.
    """
    for leftover in folder.glob(f".{name}.*.tmp"):
        owner = leftover.name.split(".")[-3]
        if not (owner.isdigit() and process_exists(int(owner))):
            leftover.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that renames and removals in it survive a power failure; no effect outside POSIX."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def with_suffix(path: str | Path) -> Path:
    """Return the path that a checkpoint is written to: ``.zip`` is added if there is no suffix."""
    path = Path(path)
    return path if path.suffix else path.with_name(path.name + ".zip")


# ---------------------------------------------------------------------- reading


def read(path: str | Path | BinaryIO, kind: str) -> Checkpoint:
    """Read and verify a checkpoint.

    Args:
        path: The file, with or without ``.zip``, or a seekable binary file object.
        kind: What the file must hold, a key of `FORMATS`.

    Returns:
        The content, migrated to the current format.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is damaged, of another kind, or not a checkpoint of this package.
        FormatError: The file's format is too new or too old.
    """
    if not isinstance(path, (str, Path)):
        return _read(path, kind, "the given file object")
    found = Path(path) if Path(path).exists() else with_suffix(path)
    if not found.is_file():
        inside = next((file for file in ("best_model.zip", "last_model.zip") if (found / file).is_file()), None)
        raise FileNotFoundError(f"no checkpoint at {path}" + (f"; did you mean {found / inside}?" if inside else ""))
    with found.open("rb") as file:
        return _read(file, kind, str(found))


def _read(file: IO[bytes], kind: str, name: str) -> Checkpoint:
    """Read and verify a checkpoint from an open file; ``name`` is what messages call it."""
    try:
        length = file.seek(0, os.SEEK_END)
        with zipfile.ZipFile(file) as archive:
            # Before any member is read, so that declared sizes cannot exhaust the memory.
            _check_directory(archive, length, name)
            manifest = json.loads(archive.read(_MANIFEST))
            if manifest.get("kind") != kind:
                raise CheckpointError(f"{name}: field 'kind': expected {kind!r}, found {manifest.get('kind')!r}")
            # Before the checksum: a file of another version is reported as such, not as damaged.
            _check_format(manifest, kind, name)
            if _digest_before_checksum(file) != archive.comment:
                raise CheckpointError(f"{name} does not match its checksum; the file is damaged")
            members = {}
            for member, listed in _listed_members(archive, manifest, name).items():
                blob = archive.read(member)
                found = hashlib.sha256(blob).hexdigest()
                if found != listed["sha256"]:
                    raise CheckpointError(f"{name}: {member}: expected sha256 {listed['sha256']}, found {found}")
                members[member.removesuffix(".safetensors")] = tensors_from_bytes(blob)
        return _migrated(Checkpoint(manifest, members), kind, name)
    except CheckpointError:
        raise
    except MemoryError as error:
        raise CheckpointError(f"{name} does not fit into memory") from error
    except _READ_ERRORS as error:
        raise CheckpointError(f"{name} is not a readable jepa_agent checkpoint: {error}") from error


def _check_format(manifest: Mapping[str, Any], kind: str, name: str) -> None:
    """Raise `FormatError`, which names the version that wrote the file, if its format cannot be read."""
    found, ours = manifest.get("format"), FORMATS[kind]
    author = manifest.get("written_by") or (manifest.get("versions") or {}).get("jepa_agent") or "of an unknown version"
    told = f"{name}: field 'format': expected {ours}, found {found!r}, written by jepa_agent {author}"
    if type(found) is not int or found < 1:
        raise CheckpointError(told)
    if found > ours:
        raise FormatError(f"{told}, this is {__version__}: upgrade, pip install -U jepa_agent")
    if any((kind, step) not in _MIGRATIONS for step in range(found, ours)):
        raise FormatError(f"{told}, which this version, {__version__}, cannot migrate: load it with that version")


def _migrated(content: Checkpoint, kind: str, name: str) -> Checkpoint:
    """Return the content in the current format, migrated one format at a time."""
    for step in range(content.manifest["format"], FORMATS[kind]):
        try:
            content = _MIGRATIONS[kind, step](content)
        except FormatError as error:
            raise FormatError(f"{name}: {error}") from error
    return content


def _agent_3(content: Checkpoint) -> Checkpoint:
    """Convert running counts, which were floats in format 3, to integers."""
    counts = ("norm.count", "cost_module.cost_count")
    tensors = {name: t.long() if name.endswith(counts) else t for name, t in content.members["tensors"].items()}
    return Checkpoint(content.manifest, {**content.members, "tensors": tensors})


def _agent_4(content: Checkpoint) -> Checkpoint:
    """Drop the working memory, which runs held in format 4: it is empty at a checkpoint, where episodes begin."""
    run = {name: tensor for name, tensor in content.members.get("run", {}).items() if not name.startswith("memory/")}
    return Checkpoint(content.manifest, {**content.members, **({"run": run} if "run" in content.members else {})})


def _agent_5(content: Checkpoint) -> Checkpoint:
    """Drop the arguments of exploration noise and set where costs-to-go begin to 0.

    Raises:
        FormatError: The agent is for Box actions; its networks were different.
    """
    if content.manifest["action_space"]["kind"] == "Box":
        author = content.manifest["versions"]["jepa_agent"]
        raise FormatError(
            f"an agent for Box actions written by jepa_agent {author} has other networks than those of this version, "
            f"{__version__}: load it with that version, or train it anew"
        )
    arguments = dict(content.manifest["arguments"])
    for name in ("exploration_std", "target_noise"):
        arguments.pop(name, None)
    tensors = dict(content.members["tensors"])
    for model in ("world_model", "world_model_target"):
        for name in ("cost_mean", "value_offset"):  # costs-to-go began at 0
            tensors.setdefault(f"policy/{model}.cost_module.{name}", torch.zeros(()))
    return Checkpoint({**content.manifest, "arguments": arguments}, {**content.members, "tensors": tensors})


def _replay_3(content: Checkpoint) -> Checkpoint:
    """Replace the plan's spread, negative where no plan acted in format 3, by the flag ``planned``."""
    rows = dict(content.members["rows"])
    rows["planned"] = rows.pop("plan_std")[..., 0] >= 0
    return Checkpoint(content.manifest, {**content.members, "rows": rows})


_MIGRATIONS: dict[tuple[str, int], Callable[[Checkpoint], Checkpoint]] = {
    ("agent", 3): _agent_3,
    ("agent", 4): _agent_4,
    ("agent", 5): _agent_5,
    ("replay", 3): _replay_3,
}
"""By kind and format, what makes the next format of a file's content."""


def _check_directory(archive: zipfile.ZipFile, length: int, name: str) -> None:
    """Check the archive's table of contents before any member is read."""
    infos = archive.infolist()
    names = [info.filename for info in infos]
    doubled = next((member for member, times in Counter(names).items() if times > 1), None)
    strange = next((member for member in names if not re.fullmatch(r"[a-z_]+\.(json|safetensors)", member)), None)
    # Members of SB3's own zip files.
    if {"data", "policy.pth"} & set(names):
        raise CheckpointError(
            f"{name} is a file of Stable-Baselines3, whose content is pickled and is not read here: "
            f"it holds {names[:3]}, expected {_MANIFEST} and safetensors"
        )
    if strange or doubled or _MANIFEST not in names:
        what = f"member {(strange or doubled)!r}" + (" twice" if doubled and not strange else "")
        found = what if strange or doubled else f"{names[:5]}"
        raise CheckpointError(
            f"{name} is not a jepa_agent checkpoint: it holds {found}, expected {_MANIFEST} and safetensors once each"
        )
    for info in infos:
        # Stored sizes are real sizes: without compression a small file cannot expand to a huge one.
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise CheckpointError(f"{name}: {info.filename} is compressed or encrypted; expected plain storage")
    # Members whose byte ranges overlap would declare more than the file holds.
    total = sum(info.file_size for info in infos)
    if total > length:
        raise CheckpointError(f"{name}: its members declare {total} bytes, but the whole file has {length}")
    if archive.getinfo(_MANIFEST).file_size > _LARGEST_MANIFEST:
        size = archive.getinfo(_MANIFEST).file_size
        raise CheckpointError(f"{name}: {_MANIFEST} has {size} bytes, expected at most {_LARGEST_MANIFEST}")


def _listed_members(archive: zipfile.ZipFile, manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the manifest's list of members; raise `CheckpointError` if it differs from the archive's."""
    listed = dict(manifest["members"])
    there = {info.filename: info.file_size for info in archive.infolist() if info.filename != _MANIFEST}
    if set(listed) != set(there):
        raise CheckpointError(f"{name}: field 'members': expected {sorted(listed)}, found {sorted(there)}")
    for member, size in there.items():
        if size != listed[member]["size"]:
            raise CheckpointError(f"{name}: {member}: expected {listed[member]['size']} bytes, found {size}")
    return listed
