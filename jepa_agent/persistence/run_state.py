"""The state of a run apart from its agent: random number generators, normalisation and episode statistics.

The agent's working memory is not part of it, because episodes end at a checkpoint.
"""

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
    """Collect the state of a run.

    Args:
        model: The agent, which declares its own parts and generators.

    Returns:
        The state as JSON data, and as tensors by name.
    """
    # SB3's buffers draw from numpy's global generator.
    _, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    version, integers, gauss = random.getstate()
    tensors = {"numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)), "torch": torch.get_rng_state()}
    if model.device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(model.device)
    tensors.update({f"generator/{name}": generator.get_state() for name, generator in _generators(model).items()})
    tensors.update({f"{owner}/{name}": value for owner, name, value in _part_tensors(model)})
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
    """Restore the state that `gather` returned, including the global generators of Python, numpy and torch.

    Args:
        model: The agent, built and wrapped as when the state was gathered.
        data: The JSON data.
        tensors: The tensors.

    Raises:
        ValueError: The environment's normalisation differs, or a tensor is missing, has another form, or holds NaN.
    """
    moments = _running_moments(model)
    if data["normalized"] != sorted(moments):
        raise ValueError(
            f"field 'normalized': expected {data['normalized']}, found {sorted(moments)}: "
            "wrap the environment in VecNormalize as it was when saved"
        )
    # A newly gathered state shows which names and shapes to expect.
    fresh = gather(model)[1]
    # Without CUDA's state: a run may be resumed on another device.
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
    # Random actions are sampled from the action space, which has random number generators of its own.
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
    """Return the generators that the agent declares, by name."""
    return {name: attrgetter(name)(model) for name in model.saved_generators}


def _part_tensors(model: Agent) -> Iterator[tuple[str, str, Tensor]]:
    """Yield the tensors of the parts that the agent declares, as attribute, name and tensor."""
    for owner in model.saved_parts:
        yield from ((owner, name, value) for name, value in getattr(model, owner).state_dict().items())


def _running_moments(model: Agent) -> dict[str, RunningMeanStd]:
    """Return the running means and variances of `VecNormalize`, by name; none without it."""
    normalizer = model._vec_normalize_env
    if normalizer is None:
        return {}
    seen = getattr(normalizer, "obs_rms", {})
    seen = {f"observation/{key}": value for key, value in seen.items()} if isinstance(seen, dict) else {"observation": seen}
    return {**seen, "return": normalizer.ret_rms}


def _parts(space: spaces.Space) -> Iterator[spaces.Space]:
    """Yield a space and all spaces within it, each of which has a random number generator of its own."""
    yield space
    children = getattr(space, "spaces", ())
    for child in children.values() if isinstance(children, Mapping) else children:
        yield from _parts(child)


def _plain_episodes(episodes: Any) -> list[dict[str, Any]] | None:
    """Return SB3's statistics of recent episodes as plain data; values of other types are left out."""
    if episodes is None:
        return None
    plain = [{k: v.item() if isinstance(v, np.generic) else v for k, v in episode.items()} for episode in episodes]
    return [{k: v for k, v in episode.items() if isinstance(v, (bool, int, float, str))} for episode in plain]
