"""Conversion of settings and spaces to JSON and back; only classes from fixed lists are looked up by name."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from torch import nn

# Modules whose classes may be named in a file. Nothing else is imported.
_MODULES = ("torch.nn", "torch.optim", "stable_baselines3.common.torch_layers")
_LARGEST_SPACE = 2**25  # numbers in one element
# SB3's noise keeps constructor arguments in private attributes of these names.
_NOISE = {"mean": "_mu", "sigma": "_sigma", "theta": "_theta", "dt": "_dt", "base_noise": "_base_noise"}
_SB3_CLASSES: tuple[type, ...] = (
    NormalActionNoise,
    OrnsteinUhlenbeckActionNoise,
    VectorizedActionNoise,
    ConstantSchedule,
    FloatSchedule,
    LinearSchedule,
)


def encode(value: Any, known: Iterable[type]) -> Any:
    """Convert a setting to JSON.

    Args:
        value: Plain values, arrays of numbers, instances of ``known`` dataclasses, SB3's schedules and action noise, and
            classes of torch and SB3 are encoded. Anything else becomes ``{"custom": name}``, and the user must pass it to
            ``load``.
        known: Dataclasses that may be named.

    Returns:
        Data that ``json`` can write and `decode` can read; tuples become lists.
    """
    known = tuple(known)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.integer, np.floating)):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [encode(item, known) for item in value]
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, dict):
        # Wrapped, so that a user's dictionary is not mistaken for one of the tagged forms below.
        return {"dict": {str(key): encode(item, known) for key, item in value.items()}}
    # The exact type: a subclass could not be built again from this name.
    if is_dataclass(value) and type(value) in known:
        settings = {field.name: encode(getattr(value, field.name), known) for field in fields(value)}
        return {"dataclass": type(value).__name__, "settings": settings}
    if type(value) in _SB3_CLASSES:
        names = [name for name in inspect.signature(type(value)).parameters if name != "dtype"]
        settings = {name: encode(getattr(value, _NOISE.get(name, name)), known) for name in names}
        return {"part": type(value).__name__, "settings": settings}
    name = getattr(value, "__qualname__", type(value).__qualname__)
    for room in _MODULES:
        # Compared by identity, since a user's class may have the same name.
        if isinstance(value, type) and getattr(importlib.import_module(room), name, None) is value:
            return {"class": f"{room}.{name}"}
    return {"custom": name}


def decode(value: Any, known: Iterable[type], name: str) -> Any:
    """Convert JSON back to a setting; the inverse of `encode`.

    Args:
        value: What `encode` returned.
        known: Dataclasses that may be named.
        name: Name of the setting, for messages.

    Returns:
        The setting.

    Raises:
        ValueError: A class is not known, or the value is a custom object; the message says how to pass it to ``load``.
    """
    known = tuple(known)
    if isinstance(value, list):
        return [decode(item, known, name) for item in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return np.array(value["array"], dtype=_number_type(value["dtype"]))
    if "dict" in value:
        return {key: decode(item, known, f"{name}[{key!r}]") for key, item in value["dict"].items()}
    for kind, classes in (("dataclass", known), ("part", _SB3_CLASSES)):
        if kind in value:
            found = {cls.__name__: cls for cls in classes}.get(value[kind])
            if found is None:
                raise ValueError(f"{name}: unknown settings class {value[kind]!r}")
            return found(**{key: decode(item, known, name) for key, item in value["settings"].items()})
    if "class" in value:
        room, _, attribute = str(value["class"]).rpartition(".")
        # The module is checked before it is imported: importing executes code.
        found = getattr(importlib.import_module(room), attribute, None) if room in _MODULES else None
        if not (isinstance(found, type) and issubclass(found, (nn.Module, torch.optim.Optimizer))):
            raise ValueError(f"{name}: {value['class']!r} is not a module or optimizer of torch or Stable-Baselines3")
        return found
    raise ValueError(
        f"{name} was {value.get('custom', value)!r}, an object of your own, which is not stored: "
        f"hand it over as load(path, custom_objects={{{name.split('[')[0]!r}: ...}})"
    )


def encode_space(space: spaces.Space) -> dict[str, Any]:
    """Convert a space to JSON.

    Args:
        space: A space of Gymnasium.

    Returns:
        A dictionary with the ``kind`` and the parameters of the space.

    Raises:
        ValueError: The kind of space is not supported.
    """
    if isinstance(space, spaces.Box):
        return {
            "kind": "Box",
            "low": _bound(space.low),
            "high": _bound(space.high),
            "shape": list(space.shape),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "kind": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "n": list(space.shape) if len(space.shape) > 1 else int(space.shape[0])}
    if isinstance(space, spaces.Dict):  # as pairs, because the order of the keys is part of the space
        return {"kind": "Dict", "spaces": [[key, encode_space(part)] for key, part in space.items()]}
    if isinstance(space, spaces.Tuple):
        return {"kind": "Tuple", "spaces": [encode_space(part) for part in space]}
    if isinstance(space, spaces.Sequence):
        return {"kind": "Sequence", "space": encode_space(space.feature_space), "stack": space.stack}
    if isinstance(space, spaces.Text):
        charset = "".join(sorted(space.character_set))
        return {"kind": "Text", "min_length": space.min_length, "max_length": space.max_length, "charset": charset}
    raise ValueError(f"space {space} cannot be saved: known are Box, Discrete, MultiDiscrete, MultiBinary and nests of them")


def decode_space(data: Mapping[str, Any]) -> spaces.Space:
    """Convert JSON back to a space; the inverse of `encode_space`.

    Args:
        data: What `encode_space` returned.

    Returns:
        The space.

    Raises:
        ValueError: The kind is unknown, a parameter is invalid, or an element has more than 2**25 numbers: a few bytes of
            JSON must not exhaust the memory.
    """
    if (extent := _element_count(data)) > _LARGEST_SPACE:
        raise ValueError(f"space {data['kind']}: expected at most {_LARGEST_SPACE:,} numbers, found {extent:,}")
    return _decode_space(data)


def _element_count(data: Mapping[str, Any]) -> int:
    """Return how many numbers an element of an encoded space has."""
    if data["kind"] == "Dict":
        return sum(_element_count(part) for _, part in data["spaces"])
    if data["kind"] == "Sequence":
        return _element_count(data["space"])
    if data["kind"] == "Tuple":
        return sum(map(_element_count, data["spaces"]))
    sides = data["shape"] if data["kind"] == "Box" else data["n"] if data["kind"] == "MultiBinary" else 1
    return math.prod(sides if isinstance(sides, list) else [sides])


def _decode_space(data: Mapping[str, Any]) -> spaces.Space:
    """Convert JSON whose size has been checked to a space."""
    kind = data["kind"]
    if kind == "Box":
        dtype = _number_type(data["dtype"])
        low, high = (np.broadcast_to(np.array(data[end], dtype), data["shape"]) for end in ("low", "high"))
        # Copies, because broadcast arrays are read-only views.
        return spaces.Box(low.copy(), high.copy(), dtype=dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(data["n"], start=data["start"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(data["nvec"], dtype=_number_type(data["dtype"]).type, start=data["start"])
    if kind == "MultiBinary":
        return spaces.MultiBinary(data["n"])
    if kind == "Dict":
        return spaces.Dict([(key, _decode_space(part)) for key, part in data["spaces"]])
    if kind == "Tuple":
        return spaces.Tuple([_decode_space(part) for part in data["spaces"]])
    if kind == "Sequence":
        return spaces.Sequence(_decode_space(data["space"]), stack=data["stack"])
    if kind == "Text":
        return spaces.Text(data["max_length"], min_length=data["min_length"], charset=data["charset"])
    raise ValueError(f"unknown kind of space {kind!r}")


def _bound(values: np.ndarray) -> Any:
    """Return a bound as one number if it is the same everywhere, as for images; else as nested lists."""
    return values.flat[0].item() if values.size and (values == values.flat[0]).all() else values.tolist()


def _number_type(name: str) -> np.dtype:
    """Return the dtype of a name; raise ``ValueError`` unless it is boolean, integer or float."""
    dtype = np.dtype(str(name))
    if dtype.kind not in "biuf":
        raise ValueError(f"{name!r} is not a type of numbers")
    return dtype
