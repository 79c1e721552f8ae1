"""The file of an agent: weights, optimisers, arguments, spaces and counters, written and read without pickle.

The agent's class (`Agent`) declares what is saved; the object is not searched for it. Other attributes are not saved, and
every file that can be written can be read.
"""

from __future__ import annotations

import inspect
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import gymnasium
import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, TrainFreq
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import Tensor

from jepa_agent._version import __version__
from jepa_agent.acting.mode_switch import ModeSwitch
from jepa_agent.config import PlannerConfig, as_kwargs
from jepa_agent.learning.replay_buffer import buffer_for
from jepa_agent.persistence import archive
from jepa_agent.persistence.archive import Checkpoint, as_checkpoint_error
from jepa_agent.persistence.checks import Agent, check_numbers, check_sizes, check_tensors, term_networks
from jepa_agent.persistence.codec import decode, decode_space, encode, encode_space
from jepa_agent.planning import Planner
from jepa_agent.policy import JEPAPolicy

_NOT_SAVED = {"policy", "env", "device", "_init_setup_model"}


# ---------------------------------------------------------------------- writing


def contents(model: Agent, exclude: set[str] | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what is written of an agent.

    Args:
        model: The agent.
        exclude: Names of constructor arguments to leave out.

    Returns:
        The manifest, and the tensors by name: ``policy/...``, ``algorithm/...`` and ``policy.optimizer/...``.
    """
    tensors = {f"policy/{name}": value for name, value in model.policy.state_dict().items()}
    tensors.update({f"algorithm/{name}": value for name, value in _own_tensors(model).items()})
    groups = {}
    for name, optimizer in optimizers(model).items():
        packed, groups[name] = pack_optimizer(optimizer)
        tensors.update({f"{name}/{key}": value for key, value in packed.items()})
    normalizer = model._vec_normalize_env
    manifest = {
        "class": type(model).__name__,
        "versions": versions(),
        "arguments": {
            k: encode(v, _settings(type(model))) for k, v in _arguments(model).items() if k not in (exclude or ())
        },
        "observation_space": encode_space(model.observation_space),
        "action_space": encode_space(model.action_space),
        "n_envs": model.n_envs,
        "normalized": normalizer is not None and normalizer.norm_obs,
        "counters": {name: getattr(model, name) for name in model.saved_counters if hasattr(model, name)},
        "optimizers": groups,
    }
    return manifest, tensors


def _arguments(model: Agent) -> dict[str, Any]:
    """Return the constructor's arguments with their present values."""
    names = [name for name in constructor_parameters(type(model)) if name not in _NOT_SAVED]
    given = {name: getattr(model, name) for name in names if hasattr(model, name)}
    given.update({name: value for name, value in as_kwargs(model.settings).items() if name in names and name not in given})
    given["stats_window_size"] = model._stats_window_size
    # Reversed, so that of several aliases for one class the first is stored.
    aliases = {policy_class: name for name, policy_class in reversed(model.policy_aliases.items())}
    given["policy_class"] = aliases.get(model.policy_class, model.policy_class)
    assert isinstance(model.train_freq, TrainFreq)
    given["train_freq"] = [model.train_freq.frequency, model.train_freq.unit.value]
    # The default is stored as None: it is chosen by the observation space when loading.
    if given.get("replay_buffer_class") is buffer_for(model.observation_space):
        given["replay_buffer_class"] = None
    return given


def _own_tensors(model: Agent) -> dict[str, Tensor]:
    """Return the tensors of the agent that belong neither to the policy nor to an optimiser, by attribute."""
    _, tensors = model._get_torch_save_params()
    return {name: attrgetter(name)(model) for name in tensors}


def optimizers(model: Agent) -> dict[str, torch.optim.Optimizer]:
    """Return the agent's optimisers by the names they are saved under, such as ``policy.optimizer``."""
    parts, _ = model._get_torch_save_params()
    return {name: attrgetter(name)(model) for name in parts if name != "policy"}


# ---------------------------------------------------------------------- reading


def load(
    cls: type[OffPolicyAlgorithm],
    path: str | Path | BinaryIO,
    env: GymEnv | None,
    device: torch.device | str,
    given: Mapping[str, Any],
) -> Any:
    """Load an agent from a file; nothing in the file is executed.

    Args:
        cls: The class to create: the saved one or a subclass of it.
        path: The file, or a binary file object.
        env: The environment to train in, if any; its spaces must equal the saved ones.
        device: The device of the weights.
        given: Constructor arguments that override the saved ones.

    Returns:
        The agent, an instance of ``cls``.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is damaged, requires more memory than its content justifies, or contradicts the arguments.
    """
    content = archive.read(path, "agent")
    with as_checkpoint_error(path):
        asked, saved = given.get("policy_kwargs"), content.manifest["arguments"].get("policy_kwargs")
        if asked is not None and encode(asked, _settings(cls)) != saved:
            raise ValueError(f"field 'policy_kwargs': expected {saved}, found {encode(asked, _settings(cls))}")
        return build_agent(cls, content, env, device, given)


def build_agent(
    cls: type[OffPolicyAlgorithm],
    content: Checkpoint,
    env: GymEnv | None,
    device: torch.device | str,
    given: Mapping[str, Any],
) -> Any:
    """Create the agent that the content of a file describes; see `load` for the arguments.

    Raises:
        ValueError: A field of the manifest is wrong; the message names it.
        KeyError: A field is missing; `archive.as_checkpoint_error` turns it into a `CheckpointError`.
    """
    manifest = content.manifest
    if manifest["class"] not in {base.__name__ for base in cls.__mro__}:
        raise ValueError(f"field 'class': expected {cls.__name__}, found {manifest['class']!r}: call its load")
    arguments = {k: decode(v, _settings(cls), k) for k, v in manifest["arguments"].items() if k not in given}
    arguments.update(given)
    policy_class = arguments.pop("policy_class", None) or JEPAPolicy
    # JSON has no tuples, and SB3 accepts no list here.
    if isinstance(arguments.get("train_freq"), list):
        arguments["train_freq"] = tuple(arguments["train_freq"])
    observation_space = decode_space(manifest["observation_space"])
    action_space = decode_space(manifest["action_space"])
    # Before anything is allocated by the sizes in the file.
    check_sizes(manifest, arguments, observation_space, action_space, content.members["tensors"])
    model, surplus = _constructed(cls, policy_class, device, arguments)
    # Before `_setup_model`, which builds the networks and the replay buffer by them.
    model.observation_space, model.action_space = observation_space, action_space
    model.n_envs = int(manifest["n_envs"])
    if env is not None:
        _set_env(model, cls._wrap_env(maybe_make_env(env, model.verbose), model.verbose))
        if manifest.get("normalized") and model._vec_normalize_env is None:
            warnings.warn(
                "the agent was trained under VecNormalize, but the environment given to load has none: it will see other "
                "numbers than it learned from; wrap the environment as in training, by VecNormalize.load",
                stacklevel=2,
            )
    model._setup_model()
    _load_counters(model, manifest["counters"])
    for name, value in surplus.items():
        setattr(model, name, value)
    tensors, groups = content.members["tensors"], manifest["optimizers"]
    if {"representation", "energy_coef"} & given.keys():
        tensors, groups = _fitted_to_terms(model, tensors, groups)
    _load_tensors(model, tensors, groups)
    return model


def _constructed(
    cls: type[OffPolicyAlgorithm],
    policy_class: str | type[JEPAPolicy],
    device: torch.device | str,
    arguments: Mapping[str, Any],
) -> tuple[Any, dict[str, Any]]:
    """Construct an agent without an environment and without `_setup_model`.

    The constructor gets the arguments that it names itself and those named by subclasses between it and our class. Arguments
    of our class that a subclass passes on by ``**kwargs`` are set afterwards, as in SB3's `load`, because the subclass may
    have fixed them.

    Returns:
        The agent, and the arguments that no constructor knows.
    """
    own, known = inspect.signature(cls.__init__).parameters, constructor_parameters(cls)
    # The first class of this package among cls and its bases.
    library = next(base for base in cls.__mro__ if base.__module__.startswith("jepa_agent."))
    ours = inspect.signature(library.__init__).parameters  # type: ignore[misc]
    kinds = {parameter.kind for parameter in own.values()}
    make: Callable[..., Any] = cls
    # A subclass may fix the policy, and then takes none.
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
    surplus, settings = {}, {}
    for name, value in arguments.items():
        if name == "stats_window_size":
            model._stats_window_size = value
        elif name not in known:
            surplus[name] = value
        elif name not in handed and hasattr(model, name):
            setattr(model, name, value)
        elif name not in handed:
            settings[name] = value
    model.settings = replace(model.settings, **settings)
    model._check_settings()
    return model, surplus


def _set_env(model: Agent, env: VecEnv) -> None:
    """Give the agent its environment; raise ``ValueError`` if the spaces differ from the saved ones."""
    for name in ("observation_space", "action_space"):
        expected, found = getattr(model, name), getattr(env, name)
        if expected != found:
            raise ValueError(f"field {name!r}: expected {expected}, found {found} in the environment: spaces do not match")
        setattr(model, name, found)
    model.env, model.n_envs, model._vec_normalize_env = env, env.num_envs, unwrap_vec_normalize(env)


def _load_counters(model: Agent, found: Mapping[str, Any]) -> None:
    """Set the counters of a file; other numbers, which older files also hold, are ignored."""
    for name, value in found.items():
        # A name whose attribute is no number, as ``policy``, must not be overwritten by a file.
        if type(value) not in (int, float) or not isinstance(getattr(model, name, 0), (int, float, type(None))):
            raise ValueError(f"field 'counters': expected some of {sorted(model.saved_counters)}, found {name!r}")
        if name in model.saved_counters:
            setattr(model, name, value)


def _fitted_to_terms(
    model: Agent, tensors: Mapping[str, Tensor], groups: Mapping[str, list[dict[str, Any]]]
) -> tuple[Mapping[str, Tensor], Mapping[str, list[dict[str, Any]]]]:
    """Fit a file's content to an agent that was asked for with other representation terms.

    Networks of terms that are left out are dropped, those of terms that are new stay as they were made, and a warning says
    which. The optimisers then begin anew: the file tells their moments apart by the order of all weights, which has changed.

    Returns:
        Tensors and parameter groups as `_load_tensors` takes them; unchanged where the networks are the same.
    """
    fresh = {f"policy/{name}": value for name, value in model.policy.state_dict().items()}
    asked, saved = term_networks(fresh), term_networks(tensors)
    if asked == saved:
        return tensors, groups
    told = [
        f"{verb}: {', '.join(sorted(names))}"
        for verb, names in (("dropped", saved - asked), ("new", asked - saved))
        if names
    ]
    warnings.warn(f"networks of representation terms {'; '.join(told)}; the optimizer begins anew", stacklevel=2)
    weights = {name: value for name, value in tensors.items() if name.startswith(("policy/", "algorithm/"))}
    kept = {name: value for name, value in weights.items() if term_networks([name]) <= asked}
    new = {name: value for name, value in fresh.items() if term_networks([name]) - saved}
    return {**kept, **new}, {name: pack_optimizer(optimizer)[1] for name, optimizer in optimizers(model).items()}


def _load_tensors(model: Agent, tensors: Mapping[str, Tensor], groups: Mapping[str, list[dict[str, Any]]]) -> None:
    """Load the weights, the agent's own tensors and the optimisers' state, all checked first."""
    owned, own = model.policy.state_dict(), _own_tensors(model)
    check_tensors({f"policy/{k}": v for k, v in owned.items()} | {f"algorithm/{k}": v for k, v in own.items()}, tensors)
    check_numbers(tensors)
    model.policy.load_state_dict({name: tensors[f"policy/{name}"] for name in owned})
    for name, value in own.items():
        value.copy_(tensors[f"algorithm/{name}"])
    for name, state in optimizer_states(optimizers(model), tensors, groups).items():
        optimizers(model)[name].load_state_dict(state)


def parameters_from(model: Agent, path: str | Path | BinaryIO) -> dict[str, Any]:
    """Read weights and optimisers of a file, in the form of SB3's ``set_parameters``.

    Args:
        model: The agent that is to take them; it determines which optimisers are read.
        path: A file of `contents`, or a binary file object.

    Returns:
        State dictionaries by name: ``policy``, and one for each optimiser.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is damaged, or its optimisers do not fit the agent.
    """
    content = archive.read(path, "agent")
    with as_checkpoint_error(path):
        tensors = content.members["tensors"]
        weights = {k.removeprefix("policy/"): v for k, v in tensors.items() if k.startswith("policy/")}
        return {"policy": weights, **optimizer_states(optimizers(model), tensors, content.manifest["optimizers"])}


def constructor_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Return the named parameters of a constructor, including those of base classes that it reaches by ``**kwargs``.

    Args:
        cls: The class.

    Returns:
        Parameters by name, without ``self`` and the variadic ones.
    """
    found: dict[str, inspect.Parameter] = {}
    for base in (base for base in cls.__mro__ if "__init__" in vars(base)):
        own = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        found.update({name: parameter for name, parameter in own.items() if name not in found})
        # Without **kwargs, nothing is passed on to the bases above.
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in own.values()):
            break
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: p for name, p in found.items() if name != "self" and p.kind not in variadic}


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and its main dependencies, by name."""
    modules = {"torch": torch, "numpy": np, "gymnasium": gymnasium, "stable_baselines3": stable_baselines3}
    found = {name: str(module.__version__) for name, module in modules.items()}
    return {"jepa_agent": __version__, "python": platform.python_version(), **found}


def _settings(agent: Any) -> tuple[type, ...]:
    """Return the settings classes that a file of a class of agents may name: the terms that it declares, and planners and
    mode switches of this package, not a user's subclasses."""

    def below(cls: type) -> Iterator[type]:
        """Yield all subclasses of a class, at any depth."""
        child: type
        for child in cls.__subclasses__():
            yield from (child, *below(child))

    # A dict as an ordered set: a class with two bases occurs twice.
    found = dict.fromkeys([*below(Planner), *below(ModeSwitch)])
    return (PlannerConfig, *agent.saved_terms, *(cls for cls in found if cls.__module__.startswith("jepa_agent.")))


# ---------------------------------------------------------------------- optimisers as tensors


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Convert the state of an optimiser to tensors and plain data.

    Args:
        optimizer: The optimiser.

    Returns:
        Tensors named ``index/field``, where ``index`` counts the weights, and the plain settings of each parameter group.
    """
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
    """Build state dictionaries of optimisers from what `pack_optimizer` returned; the inverse of it.

    Args:
        optimizers: The optimisers of the model, by name.
        tensors: Tensors of the file, named ``name/index/field``.
        groups: Plain settings of the file's parameter groups, by name of the optimiser.

    Returns:
        For each optimiser a dictionary for its ``load_state_dict``.

    Raises:
        ValueError: The file has moments of other shapes, or another number of parameter groups or weights.
    """
    states = {}
    for name, optimizer in optimizers.items():
        now = optimizer.state_dict()["param_groups"]
        if len(now) != len(groups[name]):
            raise ValueError(f"field 'optimizers': expected {len(now)} groups of {name}, found {len(groups[name])}")
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        entries: dict[int, dict[str, Tensor]] = {}
        for key in (key for key in tensors if key.startswith(f"{name}/")):
            index, _, field = key.removeprefix(f"{name}/").partition("/")
            if not index.isdigit() or int(index) >= len(weights):
                raise ValueError(f"tensor {key!r}: expected an index below {len(weights)}, the number of weights")
            weight, moment = weights[int(index)], tensors[key]
            # A scalar is Adam's step counter; moments have the shape of their weight.
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
