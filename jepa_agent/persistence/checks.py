"""What this room needs of an agent, and what is checked of a file before anything is made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import psutil
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor

from jepa_agent.learning.replay_buffer import SequenceReplayBuffer, transition_bytes

_MOST_ENVS = 65_536


class Agent(Protocol):
    """An SB3 algorithm with our policy and buffer that declares what is saved of it."""

    saved_counters: ClassVar[tuple[str, ...]]  # attributes that are plain numbers
    saved_parts: ClassVar[tuple[str, ...]]  # attributes with `state_dict`, saved with a run
    saved_generators: ClassVar[tuple[str, ...]]  # random number generators, saved with a run
    policy: Any  # JEPAPolicy
    replay_buffer: SequenceReplayBuffer
    policy_class: Any
    policy_aliases: ClassVar[dict[str, Any]]
    observation_space: spaces.Space
    action_space: spaces.Space
    env: VecEnv | None
    n_envs: int
    device: torch.device
    verbose: int
    train_freq: Any
    action_noise: Any
    num_timesteps: int
    ep_info_buffer: Any
    ep_success_buffer: Any
    saved_at: Any  # `run_folder.SavedAt`, or None
    _vec_normalize_env: VecNormalize | None
    _stats_window_size: int
    _last_obs: Any

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]: ...
    def _setup_model(self) -> None: ...
    def _check_settings(self) -> None: ...
    def end_episodes(self) -> None: ...


def check_sizes(
    manifest: Mapping[str, Any],
    arguments: Mapping[str, Any],
    observation_space: spaces.Space,
    action_space: spaces.Space,
    tensors: Mapping[str, Tensor],
) -> None:
    """``ValueError`` if a file asks for larger networks than its tensors can fill, or for more memory than there is: nothing
    of that size is to be allocated."""
    largest = max((tensor.numel() for tensor in tensors.values()), default=0)
    chosen = arguments.get("policy_kwargs") or {}
    widths = [[chosen.get("latent_dim", 1), *chosen.get(name, ())] for name in ("net_arch", "head_arch")]
    asked = {f"policy_kwargs[{name!r}]": max(_whole_numbers(value), default=0) for name, value in chosen.items()}
    asked.update({"net_arch": max((a * b for own in widths for a, b in pairwise(own)), default=0)})
    for space in (observation_space, action_space):
        # One-hot vectors are as wide as there are options.
        asked[f"space {type(space).__name__}"] = max(_options(space), default=0)
    asked_layers = sum(len(chosen.get(name, ())) for name in ("net_arch", "head_arch"))
    if asked_layers > len(tensors):
        raise ValueError(
            f"net_arch and head_arch: {asked_layers:,} layers asked for, but the file holds {len(tensors):,} tensors"
        )
    for name, size in asked.items():
        if size > largest:
            raise ValueError(f"field {name}: expected at most {largest:,}, the size of the largest tensor, found {size:,}")
    n_envs, rows = int(manifest["n_envs"]), arguments.get("buffer_size") or 0
    if not 1 <= n_envs <= _MOST_ENVS:
        raise ValueError(f"field 'n_envs': expected 1 to {_MOST_ENVS:,}, found {n_envs:,}")
    need, there = rows * transition_bytes(observation_space, action_space), psutil.virtual_memory().total
    if need > there:
        raise ValueError(
            f"field 'buffer_size': {rows:,} transitions need {need / 1e9:,.0f} GB, but this machine has {there / 1e9:,.0f}: "
            "load with a smaller buffer_size"
        )


def _whole_numbers(value: Any) -> list[int]:
    """All whole numbers in plain data."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [number for part in value for number in _whole_numbers(part)]
    return [value] if isinstance(value, int) else []


def _options(space: spaces.Space) -> Iterator[int]:
    """How many options the choices in a space have."""
    if isinstance(space, spaces.Discrete):
        yield int(space.n)
    elif isinstance(space, spaces.MultiDiscrete):
        yield int(space.nvec.sum())
    elif isinstance(space, spaces.Dict):
        for part in space.values():
            yield from _options(part)


def check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """See that a file has the tensors that a model needs; others are passed over.

    Args:
        expected: Tensors of the model, by name.
        found: Tensors of the file.

    Raises:
        ValueError: Names the first tensor missing or of another shape or type.
    """
    for name, wanted in expected.items():
        if name not in found:
            raise ValueError(f"tensor {name!r}: expected {_form(wanted)}, found none")
        if _form(found[name]) != _form(wanted):
            raise ValueError(f"tensor {name!r}: expected {_form(wanted)}, found {_form(found[name])}")


def check_numbers(tensors: Mapping[str, Tensor]) -> None:
    """``ValueError`` that names the first tensor with NaN in it; infinities may be meant, as in the mask of an attention."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise ValueError(
                f"tensor {name!r}: {int(tensor.isnan().sum())} of {tensor.numel()} numbers are not finite (NaN)"
            )


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
