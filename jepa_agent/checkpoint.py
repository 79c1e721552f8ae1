"""Saving without pickle: a zip of one JSON manifest and one safetensors file. Loading runs nothing from the file.

The archive is written beside its destination, flushed to disk and renamed, so that a crash leaves the previous file whole.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

FORMAT = 2
_MANIFEST, _TENSORS = "manifest.json", "tensors.safetensors"
_TORCH_ROOMS = ("torch.nn", "torch.optim")


class CheckpointError(ValueError):
    """The file is not a checkpoint that can be loaded here; the message names the file, what was expected and found."""


class Checkpoint(NamedTuple):
    """What a file holds."""

    manifest: dict[str, Any]
    tensors: dict[str, Tensor]


# ---------------------------------------------------------------------- the file


def write(path: str | Path | BinaryIO, manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint; a path without a suffix gets ``.zip``, missing folders are made. A path is replaced as a whole."""
    blob = tensors_to_bytes({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    content = {**manifest, "format": FORMAT, "sha256": hashlib.sha256(blob).hexdigest(), "size": len(blob)}
    text = json.dumps(content, indent=1, allow_nan=True)
    if not isinstance(path, (str, Path)):
        _write_zip(path, text, blob)
        return
    target = with_suffix(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _write_zip(file, text, blob)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp's are private
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _write_zip(file: BinaryIO, text: str, blob: bytes) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_MANIFEST, text)
        archive.writestr(_TENSORS, blob)


def read(path: str | Path | BinaryIO) -> Checkpoint:
    """Read a checkpoint; `CheckpointError` if anything about the file is not as it was written."""
    name = path if isinstance(path, (str, Path)) else "the given file object"
    if isinstance(path, (str, Path)):
        path = Path(path) if Path(path).exists() else with_suffix(path)
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint at {name}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(archive.namelist())
            if members != [_MANIFEST, _TENSORS]:
                raise CheckpointError(
                    f"{name} is not a jepa_agent checkpoint: it holds {members[:5]}, expected {[_MANIFEST, _TENSORS]}"
                )
            manifest = json.loads(archive.read(_MANIFEST))
            if manifest.get("format") != FORMAT:
                raise CheckpointError(f"{name} has format {manifest.get('format')!r}, this version reads {FORMAT}")
            if archive.getinfo(_TENSORS).file_size != manifest["size"]:
                size = archive.getinfo(_TENSORS).file_size
                raise CheckpointError(f"{name}: {_TENSORS} has {size} bytes, the manifest says {manifest['size']}")
            blob = archive.read(_TENSORS)
        if hashlib.sha256(blob).hexdigest() != manifest["sha256"]:
            raise CheckpointError(f"{name}: {_TENSORS} does not match its checksum; the file is damaged")
        return Checkpoint(manifest, tensors_from_bytes(blob))
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError, KeyError, EOFError, SafetensorError) as error:
        raise CheckpointError(f"{name} is not a readable jepa_agent checkpoint: {error}") from error


def with_suffix(path: str | Path) -> Path:
    """The path a checkpoint is written to: ``.zip`` is added where there is no suffix."""
    path = Path(path)
    return path if path.suffix else path.with_name(path.name + ".zip")


# ---------------------------------------------------------------------- settings as JSON


def encode(value: Any, known: Iterable[type]) -> Any:
    """A setting as JSON; what is neither plain, nor of a ``known`` dataclass, nor a class of torch becomes a
    ``{"custom": name}`` that the user must hand to ``load``."""
    known = tuple(known)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.integer, np.floating)):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [encode(item, known) for item in value]
    if isinstance(value, dict):
        return {"dict": {str(key): encode(item, known) for key, item in value.items()}}
    if is_dataclass(value) and type(value) in known:
        settings = {field.name: encode(getattr(value, field.name), known) for field in fields(value)}
        return {"dataclass": type(value).__name__, "settings": settings}
    if isinstance(value, type):
        name = value.__name__
        for room in _TORCH_ROOMS:
            if getattr(importlib.import_module(room), name, None) is value:
                return {"torch": f"{room}.{name}"}
    return {"custom": getattr(value, "__qualname__", type(value).__qualname__)}


def decode(value: Any, known: Iterable[type], name: str) -> Any:
    """The inverse of `encode`; `CheckpointError` for a custom object, saying how to hand it over."""
    known = tuple(known)
    if isinstance(value, list):
        return [decode(item, known, name) for item in value]
    if not isinstance(value, dict):
        return value
    if "dict" in value:
        return {key: decode(item, known, f"{name}[{key!r}]") for key, item in value["dict"].items()}
    if "dataclass" in value:
        kind = {cls.__name__: cls for cls in known}.get(value["dataclass"])
        if kind is None:
            raise CheckpointError(f"{name}: unknown settings class {value['dataclass']!r}")
        return kind(**{key: decode(item, known, name) for key, item in value["settings"].items()})
    if "torch" in value:
        room, _, attribute = value["torch"].rpartition(".")
        found = getattr(importlib.import_module(room), attribute, None) if room in _TORCH_ROOMS else None
        if not (isinstance(found, type) and issubclass(found, (nn.Module, torch.optim.Optimizer))):
            raise CheckpointError(f"{name}: {value['torch']!r} is not a module or optimizer of torch")
        return found
    raise CheckpointError(
        f"{name} was {value.get('custom', value)!r}, an object of your own, which is not stored: "
        f"hand it over as load(path, custom_objects={{{name.split('[')[0]!r}: ...}})"
    )


def encode_space(space: spaces.Space) -> dict[str, Any]:
    """A vector space as JSON."""
    if isinstance(space, spaces.Box):
        low, high = space.low.tolist(), space.high.tolist()
        return {"kind": "Box", "low": low, "high": high, "shape": list(space.shape), "dtype": str(space.dtype)}
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "n": list(space.shape) if len(space.shape) > 1 else int(space.shape[0])}
    raise CheckpointError(f"space {space} cannot be saved")


def decode_space(data: Mapping[str, Any]) -> spaces.Space:
    """The inverse of `encode_space`."""
    if data["kind"] == "Box":
        dtype = np.dtype(data["dtype"])
        low, high = (np.array(data[end], dtype=dtype).reshape(data["shape"]) for end in ("low", "high"))
        return spaces.Box(low, high, dtype=dtype.type)
    if data["kind"] == "Discrete":
        return spaces.Discrete(data["n"], start=data["start"])
    if data["kind"] == "MultiDiscrete":
        return spaces.MultiDiscrete(data["nvec"], start=data["start"])
    return spaces.MultiBinary(data["n"])


# ---------------------------------------------------------------------- optimisers as tensors


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimiser's state as tensors named ``index/field``, and its groups' plain settings."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}/{field}": torch.as_tensor(value)
        for index, entry in state["state"].items()
        for field, value in entry.items()
    }
    plain = (bool, int, float, str, list, tuple, type(None))
    groups = [{key: value for key, value in group.items() if isinstance(value, plain)} for group in state["param_groups"]]
    return tensors, groups


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]) -> None:
    """Restore what `pack_optimizer` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, field = name.partition("/")
        state.setdefault(int(index), {})[field] = tensor
    merged = [{**now, **then} for now, then in zip(optimizer.state_dict()["param_groups"], groups, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": merged})
