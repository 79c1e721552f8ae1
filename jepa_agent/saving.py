"""Saving and loading the agent: SB3's calls, `jepa_agent.checkpoint`'s file."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import gymnasium
import numpy as np
import psutil
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, TensorDict, TrainFreq
from stable_baselines3.common.utils import get_system_info
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import Tensor
from typing_extensions import Self

from jepa_agent import checkpoint, replay_archive
from jepa_agent._version import __version__
from jepa_agent.checkpoint import Checkpoint, told_of
from jepa_agent.codec import decode, decode_space, encode, encode_space
from jepa_agent.config import PlannerConfig
from jepa_agent.mode_switch import ModeSwitch
from jepa_agent.planning import Planner
from jepa_agent.policy import JEPAPolicy
from jepa_agent.replay_buffer import SequenceReplayBuffer, buffer_for, reward_unit, transition_bytes
from jepa_agent.working_memory import PackedMemory

_MOST_ENVS = 65_536
_NOT_SAVED = {"policy", "env", "device", "_init_setup_model"}


class SavableAlgorithm(OffPolicyAlgorithm):
    """What of an off-policy algorithm goes to disk: constructor arguments, spaces, weights, optimisers, counters.

    What is saved is declared: a subclass names its own beside those of its base, tensors and optimisers in
    ``_get_torch_save_params`` as for SB3, the rest in the tuples below. What else hangs on the algorithm is left alone."""

    saved_counters: ClassVar[tuple[str, ...]] = (
        "num_timesteps",
        "_total_timesteps",
        "_num_timesteps_at_start",
        "_episode_num",
        "_n_updates",
        "_current_progress_remaining",
        "_skipped_updates",
        "_bad_observations",
    )
    # Of these only checkpoints of a whole run know: parts with a state_dict, and generators, by dotted name.
    saved_parts: ClassVar[tuple[str, ...]] = ()
    saved_generators: ClassVar[tuple[str, ...]] = ("policy.generator",)
    policy: JEPAPolicy
    replay_buffer: SequenceReplayBuffer
    _state: PackedMemory | None = None  # working memory, from step to step

    def save(  # type: ignore[override]
        self,
        path: str | Path | BinaryIO,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Write weights, optimisers, settings and counters, without pickle and all or nothing; ``.zip`` is added to a path
        without suffix. ``exclude`` names settings to leave out. Objects of your own are named, not stored: `load` says how
        to hand them over. The replay buffer is saved by `save_replay_buffer`, everything at once by `save_checkpoint`."""
        if include:
            raise ValueError(f"nothing but settings, weights and counters can be saved, got include={list(include)}")
        manifest, tensors = self._content(set(exclude or ()))
        checkpoint.write(path, "agent", manifest, {"tensors": tensors})

    def _content(self, exclude: set[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What `save` writes: the manifest and the tensors."""
        tensors = {f"policy/{name}": value for name, value in self.policy.state_dict().items()}
        tensors.update({f"algorithm/{name}": value for name, value in self._own_tensors().items()})
        groups = {}
        for name, optimizer in self._optimizers().items():
            packed, groups[name] = pack_optimizer(optimizer)
            tensors.update({f"{name}/{key}": value for key, value in packed.items()})
        manifest = {
            "class": type(self).__name__,
            "versions": versions(),
            "arguments": {k: encode(v, _settings()) for k, v in self._arguments().items() if k not in exclude},
            "observation_space": encode_space(self.observation_space),
            "action_space": encode_space(self.action_space),
            "n_envs": self.n_envs,
            "normalized": self._vec_normalize_env is not None and self._vec_normalize_env.norm_obs,
            "counters": self._counters(),
            "optimizers": groups,
        }
        return manifest, tensors

    def _arguments(self) -> dict[str, Any]:
        """The constructor's arguments as they stand now."""
        names = [name for name in constructor_parameters(type(self)) if name not in _NOT_SAVED]
        given = {name: getattr(self, name) for name in names if hasattr(self, name)}
        given["stats_window_size"] = self._stats_window_size
        aliases = {policy_class: name for name, policy_class in reversed(self.policy_aliases.items())}
        given["policy_class"] = aliases.get(self.policy_class, self.policy_class)
        assert isinstance(self.train_freq, TrainFreq)
        given["train_freq"] = [self.train_freq.frequency, self.train_freq.unit.value]
        if given.get("replay_buffer_class") is buffer_for(self.observation_space):
            given["replay_buffer_class"] = None
        return given

    def _counters(self) -> dict[str, float]:
        """The plain numbers that are no arguments."""
        return {name: getattr(self, name) for name in self.saved_counters if hasattr(self, name)}

    def _take_counters(self, found: Mapping[str, Any]) -> None:
        """Set the counters of a file; numbers that are none, which older files held too, are passed over."""
        for name, value in found.items():
            if type(value) not in (int, float) or not isinstance(getattr(self, name, 0), (int, float, type(None))):
                raise ValueError(f"field 'counters': expected some of {sorted(self.saved_counters)}, found {name!r}")
            if name in self.saved_counters:
                setattr(self, name, value)

    def _own_tensors(self) -> dict[str, Tensor]:
        _, tensors = self._get_torch_save_params()
        return {name: attrgetter(name)(self) for name in tensors}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        parts, _ = self._get_torch_save_params()
        return {name: attrgetter(name)(self) for name in parts if name != "policy"}

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: str | Path | BinaryIO,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """An agent from a file; nothing in the file is run. ``custom_objects`` and ``kwargs`` replace saved settings.

        Raises `CheckpointError` (a ``ValueError``) for a file that is not whole, and for an environment with other spaces
        or other ``policy_kwargs`` than were saved.
        """
        if print_system_info:
            get_system_info()
        content = checkpoint.read(path, "agent")
        with told_of(path):
            asked, saved = kwargs.get("policy_kwargs"), content.manifest["arguments"].get("policy_kwargs")
            if asked is not None and encode(asked, _settings()) != saved:
                raise ValueError(f"field 'policy_kwargs': expected {saved}, found {encode(asked, _settings())}")
            model = cls._from_content(content, env, device, {**(custom_objects or {}), **kwargs})
        if force_reset:
            model._last_obs = None
        return model

    @classmethod
    def _from_content(
        cls, content: Checkpoint, env: GymEnv | None, device: torch.device | str, given: Mapping[str, Any]
    ) -> Self:
        """The agent that a file describes, ``given`` settings going before the saved."""
        manifest = content.manifest
        if manifest["class"] not in {base.__name__ for base in cls.__mro__}:
            raise ValueError(f"field 'class': expected {cls.__name__}, found {manifest['class']!r}: call its load")
        arguments = {k: decode(v, _settings(), k) for k, v in manifest["arguments"].items() if k not in given}
        arguments.update(given)
        policy_class = arguments.pop("policy_class", None) or JEPAPolicy
        if isinstance(arguments.get("train_freq"), list):
            arguments["train_freq"] = tuple(arguments["train_freq"])
        observation_space = decode_space(manifest["observation_space"])
        action_space = decode_space(manifest["action_space"])
        check_sizes(manifest, arguments, observation_space, action_space, content.members["tensors"])
        model, surplus = cls._constructed(policy_class, device, arguments)
        model.observation_space, model.action_space = observation_space, action_space
        model.n_envs = int(manifest["n_envs"])
        if env is not None:
            model._take_env(cls._wrap_env(maybe_make_env(env, model.verbose), model.verbose))
        model._setup_model()
        model._take_counters(manifest["counters"])
        for name, value in surplus.items():
            setattr(model, name, value)
        model._restore(content.members["tensors"], manifest["optimizers"])
        return model

    @classmethod
    def _constructed(
        cls, policy_class: str | type[JEPAPolicy], device: torch.device | str, arguments: Mapping[str, Any]
    ) -> tuple[Self, dict[str, Any]]:
        """An agent without an environment and not set up, by its constructor, and those arguments that are none of its.

        It is handed what it names itself and what subclasses between it and ours name. Arguments of ours that are passed on
        by ``**kwargs`` are set afterwards, as SB3's `load` sets everything: the subclass may have fixed them.
        """
        own, known = inspect.signature(cls.__init__).parameters, constructor_parameters(cls)
        library = next(base for base in cls.__mro__ if base.__module__.startswith("jepa_agent."))
        ours = inspect.signature(library.__init__).parameters  # type: ignore[misc]
        kinds = {parameter.kind for parameter in own.values()}
        make: Callable[..., Any] = cls
        first = [policy_class] if "policy" in own or inspect.Parameter.VAR_POSITIONAL in kinds else []
        handed = own.keys() | (known.keys() - ours.keys())
        named = {name: value for name, value in arguments.items() if name in handed}
        try:
            model = make(*first, env=None, device=device, **named, _init_setup_model=False)
        except TypeError as error:
            raise ValueError(
                f"{cls.__name__} could not be made again: {error}; its __init__ must hand env, device and _init_setup_model "
                f"on to {cls.__bases__[0].__name__}'s, as by **kwargs, and what it stores under another name than the "
                "argument's must be given to load by name"
            ) from error
        model.policy_class = model._get_policy_from_name(policy_class) if isinstance(policy_class, str) else policy_class
        surplus = {}
        for name, value in arguments.items():
            if name == "stats_window_size":
                model._stats_window_size = value
            elif name in known and name not in handed:
                setattr(model, name, value)
            elif name not in known:
                surplus[name] = value
        model._check_settings()
        return model, surplus

    def _check_settings(self) -> None:
        """``ValueError`` that names a setting out of range."""

    def _take_env(self, env: VecEnv) -> None:
        for name in ("observation_space", "action_space"):
            expected, found = getattr(self, name), getattr(env, name)
            if expected != found:
                raise ValueError(
                    f"field {name!r}: expected {expected}, found {found} in the environment: spaces do not match"
                )
            setattr(self, name, found)
        self.env, self.n_envs, self._vec_normalize_env = env, env.num_envs, unwrap_vec_normalize(env)

    def _restore(self, tensors: Mapping[str, Tensor], groups: Mapping[str, list[dict[str, Any]]]) -> None:
        owned, own = self.policy.state_dict(), self._own_tensors()
        check_tensors({f"policy/{k}": v for k, v in owned.items()} | {f"algorithm/{k}": v for k, v in own.items()}, tensors)
        check_numbers(tensors)
        self.policy.load_state_dict({name: tensors[f"policy/{name}"] for name in owned})
        for name, value in own.items():
            value.copy_(tensors[f"algorithm/{name}"])
        for name, state in optimizer_states(self._optimizers(), tensors, groups).items():
            self._optimizers()[name].load_state_dict(state)

    def set_parameters(  # type: ignore[override]
        self,
        load_path_or_dict: str | Path | BinaryIO | TensorDict,
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Weights and optimisers from `get_parameters` or from a file of `save`; with ``exact_match`` all of them."""
        if isinstance(load_path_or_dict, dict):
            return super().set_parameters(load_path_or_dict, exact_match, device)
        content = checkpoint.read(load_path_or_dict, "agent")
        with told_of(load_path_or_dict):
            tensors = content.members["tensors"]
            weights = {k.removeprefix("policy/"): v for k, v in tensors.items() if k.startswith("policy/")}
            optimizers = optimizer_states(self._optimizers(), tensors, content.manifest["optimizers"])
            parameters: dict[str, Any] = {"policy": weights, **optimizers}
            super().set_parameters(parameters, exact_match, device)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []

    def save_replay_buffer(self, path: str | Path | BinaryIO) -> None:  # type: ignore[override]
        """Write what the buffer holds, without pickle; ``.zip`` is added to a path without suffix."""
        last = self.replay_buffer.added
        replay_archive.write_rows(path, self.replay_buffer, last - self.replay_buffer.size(), last)

    def load_replay_buffer(  # type: ignore[override]
        self, path: str | Path | BinaryIO, truncate_last_traj: bool = True
    ) -> None:
        """Fill the buffer from a file of `save_replay_buffer`, with the newest if it held more; with
        ``truncate_last_traj``, what is stored next does not follow the last of it. Raises `CheckpointError` for any other
        file, pickled ones first of all, which are not run.

        An agent that has seen nothing yet takes the running scales of observations and costs from what it is given, as if it
        had collected it."""
        buffer = self.replay_buffer
        with told_of(path):
            replay_archive.read_all(path, buffer)
        if truncate_last_traj:
            buffer.cut()
        if not self.policy.world_model.has_observed:
            for obs, reward in buffer.in_blocks(self._vec_normalize_env):
                self.policy.observe_scales(obs, reward, reward_unit(self._vec_normalize_env))


def constructor_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """What a constructor takes by name, that of the base classes included as far as each hands ``**kwargs`` on."""
    found: dict[str, inspect.Parameter] = {}
    for base in (base for base in cls.__mro__ if "__init__" in vars(base)):
        own = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        found.update({name: parameter for name, parameter in own.items() if name not in found})
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in own.values()):
            break
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: p for name, p in found.items() if name != "self" and p.kind not in variadic}


def versions() -> dict[str, str]:
    """What a file was written by."""
    modules = {"torch": torch, "numpy": np, "gymnasium": gymnasium, "stable_baselines3": stable_baselines3}
    found = {name: str(module.__version__) for name, module in modules.items()}
    return {"jepa_agent": __version__, "python": platform.python_version(), **found}


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
        raise ValueError(f"net_arch, head_arch: expected at most {len(tensors):,} layers, found {asked_layers:,}")
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
    """``ValueError`` that names the first tensor missing or of another shape or type than expected."""
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


def _settings() -> tuple[type, ...]:
    """The settings classes that files may name: ours, and no subclass of the user's."""

    def below(cls: type) -> Iterator[type]:
        child: type
        for child in cls.__subclasses__():
            yield from (child, *below(child))

    found = dict.fromkeys([*below(Planner), *below(ModeSwitch)])
    return (PlannerConfig, *(cls for cls in found if cls.__module__.startswith("jepa_agent.")))


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


def optimizer_states(
    optimizers: Mapping[str, torch.optim.Optimizer],
    tensors: Mapping[str, Tensor],
    groups: Mapping[str, list[dict[str, Any]]],
) -> dict[str, dict[str, Any]]:
    """State dictionaries from what `pack_optimizer` took; ``ValueError`` for moments of other sizes than the weights'."""
    states = {}
    for name, optimizer in optimizers.items():
        now = optimizer.state_dict()["param_groups"]
        if len(now) != len(groups[name]):
            raise ValueError(f"field 'optimizers': expected {len(now)} groups of {name}, found {len(groups[name])}")
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        entries: dict[int, dict[str, Tensor]] = {}
        for key in (key for key in tensors if key.startswith(f"{name}/")):
            index, _, field = key.removeprefix(f"{name}/").partition("/")
            weight, moment = weights[int(index)], tensors[key]
            if moment.dim() and moment.shape != weight.shape:
                raise ValueError(f"tensor {key!r}: expected {tuple(weight.shape)}, found {tuple(moment.shape)}")
            entries.setdefault(int(index), {})[field] = moment.clone()
        param_groups = []
        for fresh, then in zip(now, groups[name], strict=True):
            if fresh["params"] != then["params"]:
                raise ValueError(f"field 'optimizers': expected {len(fresh['params'])} weights, found {len(then['params'])}")
            param_groups.append({**fresh, **then})
        states[name] = {"state": entries, "param_groups": param_groups}
    return states
