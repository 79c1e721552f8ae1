"""The interface of an agent that can be saved, and the checks of a file before an agent is made from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor

from jepa_agent.config import AgentConfig
from jepa_agent.learning.replay_buffer import SequenceReplayBuffer, transition_bytes
from jepa_agent.persistence.system import total_memory

_MAX_ENVS = 65_536
# Names of tensors that belong to a term of the representation; the energy is a head of the cost module.
_OF_A_TERM = re.compile(r"policy/world_model(?:_target)?\.(?:term_networks\.(\w+)|cost_module\.energy_net)\.")


class Agent(Protocol):
    """An SB3 algorithm with this package's policy and replay buffer that declares which attributes are saved."""

    saved_counters: ClassVar[tuple[str, ...]]  # attributes that are plain numbers
    saved_parts: ClassVar[tuple[str, ...]]  # attributes with `state_dict`, saved with a run
    saved_generators: ClassVar[tuple[str, ...]]  # random number generators, saved with a run
    saved_terms: ClassVar[tuple[type, ...]]  # classes of representation terms, dataclasses whose fields are plain values
    settings: AgentConfig
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
    def end_episodes(self) -> None:
        """End the episodes under way, as by a time limit."""
        ...


def check_sizes(
    manifest: Mapping[str, Any],
    arguments: Mapping[str, Any],
    observation_space: spaces.Space,
    action_space: spaces.Space,
    tensors: Mapping[str, Tensor],
) -> None:
    """Check, before anything is allocated, that a file asks for no more memory than its content justifies.

    A file of a few bytes could otherwise request networks or a replay buffer that exhaust the memory.

    Args:
        manifest: The file's manifest, of which ``n_envs`` is checked.
        arguments: Constructor arguments, of which ``policy_kwargs`` and ``buffer_size`` are checked.
        observation_space: The saved observation space.
        action_space: The saved action space.
        tensors: The file's tensors, by name.

    Raises:
        ValueError: Networks are wider or deeper than the tensors can fill, ``n_envs`` is out of range, or the replay buffer
            is larger than the machine's memory.
    """
    largest = max((tensor.numel() for tensor in tensors.values()), default=0)
    chosen = arguments.get("policy_kwargs") or {}
    # A layer between widths a and b has a weight of a * b numbers, which must be among the file's tensors.
    widths = [[chosen.get("latent_dim", 1), *chosen.get(name, ())] for name in ("net_arch", "head_arch")]
    asked = {f"policy_kwargs[{name!r}]": max(_whole_numbers(value), default=0) for name, value in chosen.items()}
    asked.update({"net_arch": max((a * b for own in widths for a, b in pairwise(own)), default=0)})
    for space in (observation_space, action_space):
        # One-hot vectors are as wide as there are options.
        asked[f"space {type(space).__name__}"] = max(_options(space), default=0)
    # Many narrow layers pass the comparison of sizes; each has at least one tensor of its own.
    asked_layers = sum(len(chosen.get(name, ())) for name in ("net_arch", "head_arch"))
    if asked_layers > len(tensors):
        raise ValueError(
            f"net_arch and head_arch: {asked_layers:,} layers asked for, but the file holds {len(tensors):,} tensors"
        )
    for name, size in asked.items():
        if size > largest:
            raise ValueError(f"field {name}: expected at most {largest:,}, the size of the largest tensor, found {size:,}")
    n_envs, rows = int(manifest["n_envs"]), arguments.get("buffer_size") or 0
    if not 1 <= n_envs <= _MAX_ENVS:
        raise ValueError(f"field 'n_envs': expected 1 to {_MAX_ENVS:,}, found {n_envs:,}")
    # The buffer's content is in other files, so its size is compared with the machine's memory.
    need, there = rows * transition_bytes(observation_space, action_space), total_memory()
    if need > there:
        raise ValueError(
            f"field 'buffer_size': {rows:,} transitions need {need / 1e9:,.0f} GB, but this machine has {there / 1e9:,.0f}: "
            "load with a smaller buffer_size"
        )


def _whole_numbers(value: Any) -> list[int]:
    """Return all integers in plain data, at any depth."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [number for part in value for number in _whole_numbers(part)]
    return [value] if isinstance(value, int) else []


def _options(space: spaces.Space) -> Iterator[int]:
    """Yield the number of options of every discrete space within a space."""
    if isinstance(space, spaces.Discrete):
        yield int(space.n)
    elif isinstance(space, spaces.MultiDiscrete):
        yield int(space.nvec.sum())
    elif isinstance(space, spaces.Dict):
        for part in space.values():
            yield from _options(part)


def check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Check that a file has the tensors that a model needs; further tensors are ignored.

    Args:
        expected: The model's tensors, by name.
        found: The file's tensors, by name.

    Raises:
        ValueError: A tensor is missing or has another shape or dtype; the message names the first one. Or the file has
            networks of other representation terms.
    """
    _check_term_networks(expected, found)
    for name, wanted in expected.items():
        if name not in found:
            raise ValueError(f"tensor {name!r}: expected {_dtype_and_shape(wanted)}, found none")
        if _dtype_and_shape(found[name]) != _dtype_and_shape(wanted):
            raise ValueError(f"tensor {name!r}: expected {_dtype_and_shape(wanted)}, found {_dtype_and_shape(found[name])}")


def term_networks(names: Iterable[str]) -> set[str]:
    """Return the representation terms that tensors of these names are networks of."""
    found = map(_OF_A_TERM.match, names)
    return {match[1] or "energy" for match in found if match}


def _check_term_networks(expected: Iterable[str], found: Iterable[str]) -> None:
    """Raise ``ValueError`` unless the tensors of these names are of networks of the same representation terms."""
    mine, theirs = (sorted(term_networks(names)) for names in (expected, found))
    if mine != theirs:
        raise ValueError(
            f"field 'representation': the file holds networks of the terms {theirs}, but those it names have networks {mine}"
        )


def check_numbers(tensors: Mapping[str, Tensor]) -> None:
    """Check that tensors hold no NaN; infinities are allowed, as in an attention mask.

    Args:
        tensors: The tensors, by name.

    Raises:
        ValueError: A tensor holds NaN; the message names the first one.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise ValueError(
                f"tensor {name!r}: {int(tensor.isnan().sum())} of {tensor.numel()} numbers are not finite (NaN)"
            )


def _dtype_and_shape(tensor: Tensor) -> str:
    """Describe dtype and shape of a tensor."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
