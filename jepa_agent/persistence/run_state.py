"""What a run is beside its agent: random numbers, normalisation, the record of episodes. Working memory is not part of it:
episodes end at a checkpoint."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import Tensor

from jepa_agent.persistence.checks import Agent, check_numbers, check_tensors


def gather(model: Agent) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The state of a run as JSON and as tensors: of what the agent declares, and of what every algorithm has."""
    _, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    version, integers, gauss = random.getstate()
    tensors = {"numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)), "torch": torch.get_rng_state()}
    if model.device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(model.device)
    tensors.update({f"generator/{name}": generator.get_state() for name, generator in _generators(model).items()})
    tensors.update({f"{owner}/{name}": value for owner, name, value in _kept(model)})
    for name, moments in _running_moments(model).items():
        tensors.update(
            {f"{name}/{k}": torch.as_tensor(v, dtype=torch.float64) for k, v in vars(moments).items() if k != "epsilon"}
        )
    data = {
        "python": [version, list(integers), gauss],
        "numpy": rest,
        "action_space": [space.np_random.bit_generator.state for space in _parts(model.action_space)],
        "normalized": sorted(_running_moments(model)),
        "episodes": _plain_episodes(model.ep_info_buffer),
        "successes": None if model.ep_success_buffer is None else [float(value) for value in model.ep_success_buffer],
    }
    return data, tensors


def restore(model: Agent, data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Put back what `gather` took; ``ValueError`` if the algorithm is not of the same make."""
    moments = _running_moments(model)
    if data["normalized"] != sorted(moments):
        raise ValueError(
            f"field 'normalized': expected {data['normalized']}, found {sorted(moments)}: "
            "wrap the environment in VecNormalize as it was when saved"
        )
    fresh = gather(model)[1]
    check_tensors({name: value for name, value in fresh.items() if not name.startswith("cuda")}, tensors)
    check_numbers(tensors)
    for name, running in moments.items():
        for key in ("mean", "var"):
            setattr(running, key, tensors[f"{name}/{key}"].numpy().copy())
        running.count = float(tensors[f"{name}/count"])
    size = model._stats_window_size
    for attribute, values in (("ep_info_buffer", data["episodes"]), ("ep_success_buffer", data["successes"])):
        setattr(model, attribute, None if values is None else deque(values, maxlen=size))
    for owner in model.saved_parts:
        mine = {k.removeprefix(f"{owner}/"): v.clone() for k, v in tensors.items() if k.startswith(f"{owner}/")}
        getattr(model, owner).load_state_dict(mine)
    for space, state in zip(_parts(model.action_space), data["action_space"], strict=True):
        space.np_random.bit_generator.state = state
    for name, generator in _generators(model).items():
        generator.set_state(tensors[f"generator/{name}"].clone())
    version, integers, gauss = data["python"]
    random.setstate((version, tuple(integers), gauss))
    position, has_gauss, cached = data["numpy"]
    np.random.set_state(("MT19937", tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    if model.device.type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"].clone(), model.device)
    torch.set_rng_state(tensors["torch"].clone())


def _generators(model: Agent) -> dict[str, torch.Generator]:
    return {name: attrgetter(name)(model) for name in model.saved_generators}


def _kept(model: Agent) -> Iterator[tuple[str, str, Tensor]]:
    """What the parts declared have to keep: attribute, name, tensor."""
    for owner in model.saved_parts:
        yield from ((owner, name, value) for name, value in getattr(model, owner).state_dict().items())


def _running_moments(model: Agent) -> dict[str, RunningMeanStd]:
    normalizer = model._vec_normalize_env
    if normalizer is None:
        return {}
    seen = getattr(normalizer, "obs_rms", {})
    seen = {f"observation/{key}": value for key, value in seen.items()} if isinstance(seen, dict) else {"observation": seen}
    return {**seen, "return": normalizer.ret_rms}


def _parts(space: spaces.Space) -> Iterator[spaces.Space]:
    """A space and all it is made of: each draws by a generator of its own."""
    yield space
    children = getattr(space, "spaces", ())
    for child in children.values() if isinstance(children, Mapping) else children:
        yield from _parts(child)


def _plain_episodes(episodes: Any) -> list[dict[str, Any]] | None:
    if episodes is None:
        return None
    plain = [{k: v.item() if isinstance(v, np.generic) else v for k, v in episode.items()} for episode in episodes]
    return [{k: v for k, v in episode.items() if isinstance(v, (bool, int, float, str))} for episode in plain]
