"""What a new run begins with: the weights and settings of a saved agent, for ``train --from``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from jsonargparse import Namespace
from stable_baselines3.common.vec_env import VecEnv

from jepa_agent.agent import JEPA
from jepa_agent.cli import trained
from jepa_agent.cli.common import UsageError, chosen_terms
from jepa_agent.config import AgentConfig, ModelConfig, PlannerConfig, as_kwargs
from jepa_agent.learning.terms import TERMS
from jepa_agent.persistence import archive
from jepa_agent.persistence.archive import CheckpointError

_COUNTED_ON = ("_n_updates", "_n_representation_updates")  # by which learning knows that values have begun


def with_settings_of_agent(argv: Sequence[str]) -> list[str]:
    """Put the settings of the agent that ``--from`` names before those that are given, which go first.

    Args:
        argv: Of ``train``.

    Raises:
        UsageError: No agent is there, or it has a part that no flag can ask for.
    """
    flag = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flag.add_argument("--from", nargs="?", dest="source")
    flag.add_argument("--env")
    asked, _ = flag.parse_known_args(list(argv))
    if asked.source is None:
        return list(argv)
    path = trained.find_model(asked.source)
    trained.refuse_normalised(path)
    env, kwargs = trained.env_of(path, asked.env, None)
    try:
        manifest = archive.read(path, "agent").manifest
    except (CheckpointError, OSError) as error:
        raise UsageError(str(error)) from error
    if manifest.get("normalized"):
        raise UsageError(f"{path} was trained under VecNormalize, whose statistics it does not hold: go on in Python")
    try:
        words = _as_words(manifest["arguments"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"--from {path}: {error}; go on in Python, by JEPA.load") from error
    return [*trained.env_flags(env, kwargs), *words, *argv]


def agent_from(options: Namespace, env: VecEnv) -> JEPA:
    """The agent that ``--from`` names, with the settings asked for and its steps counted anew.

    Args:
        options: Parsed flags.
        env: The environments to learn in.

    Raises:
        ValueError: Its networks are of other sizes, or its spaces are not the environment's.
    """
    path = trained.find_model(options["from"])
    given = {"seed": options.seed, "mode": options.mode, "planner": options.planner, "verbose": options.verbose}
    terms = {"representation": chosen_terms(options.terms), **as_kwargs(options.agent)}
    model = JEPA.load(path, env=env, device=options.device, **given, **terms)
    if model.policy.sizes != options.model:
        raise ValueError(f"the networks of {path} have {model.policy.sizes}: leave --model.* out")
    for name in {*model.saved_counters} - {*_COUNTED_ON}:
        setattr(model, name, 0)
    model._current_progress_remaining = 1.0
    return model


def _as_words(arguments: Mapping[str, Any]) -> list[str]:
    """Saved arguments as flags of ``train``; ``ValueError`` for a part that no flag can ask for."""
    words = [f"--mode={_plain('mode', arguments.get('mode', 'auto'))}"]
    sizes = (arguments.get("policy_kwargs") or {}).get("dict", {})
    planner = arguments.get("planner")
    if planner is not None:
        if planner.get("dataclass") != PlannerConfig.__name__:
            raise ValueError("the planner is an object that no flag can ask for")
        words += _flags("planner", PlannerConfig, planner["settings"])
    every = arguments.get("train_freq", [1, "step"])
    if every[1] != "step":
        raise ValueError("train_freq is in episodes, which no flag can ask for")
    words += _flags("agent", AgentConfig, {**arguments, "train_freq": every[0]}) + _flags("model", ModelConfig, sizes)
    terms = arguments.get("representation")
    return [*words, "--terms", *map(_term, terms)] if terms else words


def _flags(group: str, config: type, settings: Mapping[str, Any]) -> list[str]:
    """Settings as flags of a group, as far as it has them."""
    known = [field.name for field in fields(config) if field.name in settings]
    return [f"--{group}.{name}={_plain(name, settings[name])}" for name in known]


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, dict) or value is None:
        raise ValueError(f"{name} is an object that no flag can ask for")
    return value


def _term(saved: Any) -> str:
    """A saved term as `chosen_terms` reads it."""
    known = {term.__name__: term for term in TERMS}
    if saved.get("dataclass") not in known:
        raise ValueError(f"the representation has a term of your own, {saved.get('custom')}")
    term = known[saved["dataclass"]](**saved["settings"])
    if term != type(term)(term.weight):
        raise ValueError(f"the representation has {term}, of which no flag can ask for more than the weight")
    return f"{term.name}:{term.weight}"
