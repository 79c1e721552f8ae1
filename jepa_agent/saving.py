"""Saving and loading the agent: SB3's calls, `jepa_agent.checkpoint`'s file."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, TrainFreq
from stable_baselines3.common.utils import check_for_correct_spaces, get_system_info
from stable_baselines3.common.vec_env import unwrap_vec_normalize
from torch import Tensor
from typing_extensions import Self

from jepa_agent import checkpoint
from jepa_agent._version import __version__
from jepa_agent.config import PlannerConfig
from jepa_agent.mode_switch import ActorMode, AutoMode, EveryK, PlannerMode
from jepa_agent.planning import PLANNERS
from jepa_agent.policy import JEPAPolicy
from jepa_agent.replay_buffer import SequenceReplayBuffer

_OPTIMIZERS = ("optimizer",)
_COUNTERS = ("num_timesteps", "_total_timesteps", "_n_updates", "_episode_num", "_num_timesteps_at_start")
_SETTINGS: tuple[type, ...] = (PlannerConfig, *PLANNERS, ActorMode, PlannerMode, EveryK, AutoMode)


class SavableAlgorithm(OffPolicyAlgorithm):
    """What of an off-policy algorithm goes to disk: constructor arguments, spaces, weights, optimisers, counters."""

    value_spread: Tensor

    def save(  # type: ignore[override]
        self,
        path: str | Path | BinaryIO,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Write weights, optimisers, settings and counters, without pickle and all or nothing; ``.zip`` is added to a path
        without suffix. ``exclude`` names settings to leave out. Objects of your own are named, not stored: `load` says how
        to hand them over. The replay buffer is saved by `save_replay_buffer`."""
        if include:
            raise ValueError(f"nothing but settings, weights and counters can be saved, got include={list(include)}")
        left_out = {"policy", "env", "device", "_init_setup_model", *(exclude or ())}
        names = inspect.signature(type(self).__init__).parameters
        given = {name: getattr(self, name) for name in names if hasattr(self, name)}
        given["stats_window_size"] = self._stats_window_size
        given["policy_class"] = None if self.policy_class is JEPAPolicy else self.policy_class
        assert isinstance(self.train_freq, TrainFreq)
        given["train_freq"] = [self.train_freq.frequency, self.train_freq.unit.value]
        if given["replay_buffer_class"] is SequenceReplayBuffer:
            given["replay_buffer_class"] = None
        tensors, groups = dict(self.policy.state_dict()), {}
        tensors["value_spread"] = self.value_spread
        for name in _OPTIMIZERS:
            packed, groups[name] = checkpoint.pack_optimizer(getattr(self.policy, name))
            tensors.update({f"{name}/{key}": tensor for key, tensor in packed.items()})
        manifest = {
            "class": type(self).__name__,
            "versions": {"jepa_agent": __version__, "torch": torch.__version__},
            "arguments": {k: checkpoint.encode(v, _SETTINGS) for k, v in given.items() if k not in left_out},
            "observation_space": checkpoint.encode_space(self.observation_space),
            "action_space": checkpoint.encode_space(self.action_space),
            "n_envs": self.n_envs,
            "counters": {name: getattr(self, name) for name in _COUNTERS},
            "optimizers": groups,
        }
        checkpoint.write(path, manifest, tensors)

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

        Raises `CheckpointError` (a ``ValueError``) for a file that is not whole, and ``ValueError`` for an environment with
        other spaces or other ``policy_kwargs`` than were saved.
        """
        if print_system_info:
            get_system_info()
        manifest, tensors = checkpoint.read(path)
        given = {**(custom_objects or {}), **kwargs}
        saved = manifest["arguments"]
        arguments = {k: checkpoint.decode(v, _SETTINGS, k) for k, v in saved.items() if k not in given}
        asked, found = (checkpoint.encode(kwargs.get("policy_kwargs"), _SETTINGS), saved.get("policy_kwargs"))
        if asked is not None and found is not None and asked != found:
            raise ValueError(f"policy_kwargs {kwargs['policy_kwargs']} differ from the saved {found}")
        arguments.update(given)
        policy_class = arguments.pop("policy_class", None) or JEPAPolicy
        accepted = inspect.signature(cls.__init__).parameters
        surplus = {key: arguments.pop(key) for key in list(arguments) if key not in accepted}
        if isinstance(arguments.get("train_freq"), list):
            arguments["train_freq"] = tuple(arguments["train_freq"])
        model = cls(policy_class, None, device=device, **arguments, _init_setup_model=False)  # type: ignore
        model.observation_space = checkpoint.decode_space(manifest["observation_space"])
        model.action_space = checkpoint.decode_space(manifest["action_space"])
        model.n_envs = manifest["n_envs"]
        if env is not None:
            wrapped = cls._wrap_env(env, model.verbose)
            check_for_correct_spaces(wrapped, model.observation_space, model.action_space)
            model.env, model.n_envs, model._vec_normalize_env = wrapped, wrapped.num_envs, unwrap_vec_normalize(wrapped)
        model._setup_model()
        for name, value in {**manifest["counters"], **surplus}.items():
            setattr(model, name, value)
        if force_reset:
            model._last_obs = None
        model._restore(tensors, manifest["optimizers"])
        return model

    def _restore(self, tensors: dict[str, Tensor], groups: dict[str, list[dict[str, Any]]]) -> None:
        owned = self.policy.state_dict()
        try:
            self.policy.load_state_dict({name: tensors[name] for name in owned})
        except (KeyError, RuntimeError) as error:
            raise checkpoint.CheckpointError(f"weights do not fit the saved settings: {error}") from error
        self.value_spread.copy_(tensors["value_spread"])
        for name in _OPTIMIZERS:
            packed = {k.removeprefix(f"{name}/"): v for k, v in tensors.items() if k.startswith(f"{name}/")}
            checkpoint.unpack_optimizer(getattr(self.policy, name), packed, groups[name])

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", *(f"policy.{name}" for name in _OPTIMIZERS)], ["value_spread"]
