"""Settings and spaces as JSON and back. Nothing is looked up by name but classes known beforehand."""

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

_ROOMS = ("torch.nn", "torch.optim", "stable_baselines3.common.torch_layers")
_LARGEST_SPACE = 2**25  # numbers
_NOISE = {"mean": "_mu", "sigma": "_sigma", "theta": "_theta", "dt": "_dt", "base_noise": "_base_noise"}
_PARTS: tuple[type, ...] = (
    NormalActionNoise,
    OrnsteinUhlenbeckActionNoise,
    VectorizedActionNoise,
    ConstantSchedule,
    FloatSchedule,
    LinearSchedule,
)


def encode(value: Any, known: Iterable[type]) -> Any:
    """A setting as JSON.

    Args:
        value: Plain values, arrays, dataclasses of ours, SB3's schedules and noise, and classes of torch and SB3 are
            encoded. Anything else becomes ``{"custom": name}``, which the user must hand to ``load``.
        known: Dataclasses that may be named.
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
        return {"dict": {str(key): encode(item, known) for key, item in value.items()}}
    if is_dataclass(value) and type(value) in known:
        settings = {field.name: encode(getattr(value, field.name), known) for field in fields(value)}
        return {"dataclass": type(value).__name__, "settings": settings}
    if type(value) in _PARTS:
        names = [name for name in inspect.signature(type(value)).parameters if name != "dtype"]
        settings = {name: encode(getattr(value, _NOISE.get(name, name)), known) for name in names}
        return {"part": type(value).__name__, "settings": settings}
    name = getattr(value, "__qualname__", type(value).__qualname__)
    for room in _ROOMS:
        if isinstance(value, type) and getattr(importlib.import_module(room), name, None) is value:
            return {"class": f"{room}.{name}"}
    return {"custom": name}


def decode(value: Any, known: Iterable[type], name: str) -> Any:
    """The inverse of `encode`.

    Args:
        value: JSON.
        known: Dataclasses that may be named.
        name: Of the setting, for messages.

    Raises:
        ValueError: A class that is not known, or an object of the user's own, with how to hand it over.
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
    for kind, classes in (("dataclass", known), ("part", _PARTS)):
        if kind in value:
            found = {cls.__name__: cls for cls in classes}.get(value[kind])
            if found is None:
                raise ValueError(f"{name}: unknown settings class {value[kind]!r}")
            return found(**{key: decode(item, known, name) for key, item in value["settings"].items()})
    if "class" in value:
        room, _, attribute = str(value["class"]).rpartition(".")
        found = getattr(importlib.import_module(room), attribute, None) if room in _ROOMS else None
        if not (isinstance(found, type) and issubclass(found, (nn.Module, torch.optim.Optimizer))):
            raise ValueError(f"{name}: {value['class']!r} is not a module or optimizer of torch or Stable-Baselines3")
        return found
    raise ValueError(
        f"{name} was {value.get('custom', value)!r}, an object of your own, which is not stored: "
        f"hand it over as load(path, custom_objects={{{name.split('[')[0]!r}: ...}})"
    )


def encode_space(space: spaces.Space) -> dict[str, Any]:
    """A space as JSON; ``ValueError`` for a kind that is not known."""
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
    if isinstance(space, spaces.Dict):  # as pairs: the order of the keys is part of the space
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
    """The inverse of `encode_space`; ``ValueError`` for anything else, and for more numbers than any observation has: a few
    bytes of JSON must not fill the memory."""
    if (extent := _extent(data)) > _LARGEST_SPACE:
        raise ValueError(f"space {data['kind']}: expected at most {_LARGEST_SPACE:,} numbers, found {extent:,}")
    return _decode_space(data)


def _extent(data: Mapping[str, Any]) -> int:
    """How many numbers an observation of an encoded space has."""
    if data["kind"] == "Dict":
        return sum(_extent(part) for _, part in data["spaces"])
    if data["kind"] == "Sequence":
        return _extent(data["space"])
    if data["kind"] == "Tuple":
        return sum(map(_extent, data["spaces"]))
    sides = data["shape"] if data["kind"] == "Box" else data["n"] if data["kind"] == "MultiBinary" else 1
    return math.prod(sides if isinstance(sides, list) else [sides])


def _decode_space(data: Mapping[str, Any]) -> spaces.Space:
    kind = data["kind"]
    if kind == "Box":
        dtype = _number_type(data["dtype"])
        low, high = (np.broadcast_to(np.array(data[end], dtype), data["shape"]) for end in ("low", "high"))
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
    """A bound as one number where it is the same everywhere, as an image's is."""
    return values.flat[0].item() if values.size and (values == values.flat[0]).all() else values.tolist()


def _number_type(name: str) -> np.dtype:
    dtype = np.dtype(str(name))
    if dtype.kind not in "biuf":
        raise ValueError(f"{name!r} is not a type of numbers")
    return dtype
