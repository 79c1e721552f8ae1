"""What the verbs share that take a trained agent: which one, where, and by which planner."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
from jsonargparse import Namespace
from stable_baselines3.common.base_class import BaseAlgorithm

from jepa_agent.agent import JEPA
from jepa_agent.cli.common import CONFIG, UsageError, check_device, check_mode, first_line, make_env
from jepa_agent.cli.parser import Parser
from jepa_agent.config import PlannerConfig
from jepa_agent.experiments.baselines import BASELINES, make_baseline
from jepa_agent.experiments.records import SPEC, is_agent, read_spec
from jepa_agent.persistence import archive
from jepa_agent.persistence.archive import CheckpointError
from jepa_agent.persistence.plain_data import check_import
from jepa_agent.persistence.yaml_file import read_yaml


class Trained(NamedTuple):
    """A trained agent, where it lies, and an environment for it, which whoever loads it closes."""

    model: JEPA
    path: Path
    env: gym.Env
    env_id: str
    env_kwargs: dict[str, Any]


class Playable(NamedTuple):
    """As `Trained`, for an agent of any algorithm."""

    model: BaseAlgorithm
    path: Path
    env: gym.Env
    env_id: str
    env_kwargs: dict[str, Any]


def parse(parser: Parser, argv: Sequence[str]) -> Any:
    """Parse the flags of a verb for trained agents; of the planner's settings, only those that were given are kept.

    Args:
        parser: Of a verb that takes a trained agent.
        argv: Of the verb.
    """
    options = parser.parse(argv)
    options.planner = vars(parser.given(argv).get("planner", Namespace()))
    return options


def load(options: Any, **more: Any) -> Trained:
    """The agent of `parse`, searching as told; ``more`` goes to the environment. `UsageError` for what cannot be."""
    check_device(options.device)
    trained = load_as_trained(options.model, options.env, options.env_kwargs, options.device, **more)
    with ExitStack() as opened:
        opened.callback(trained.env.close)
        _choose_planner(trained.model, options.planner)
        opened.pop_all()
    return trained


def load_any(options: Any, **more: Any) -> Trained | Playable:
    """As `load`, but also one of the baselines of a comparison, from the folder of its run.

    Only the file's weights are read, not what SB3 pickles: the algorithm is built anew from the run's spec.

    Args:
        options: Parsed flags.
        more: Arguments of ours for the environment, as ``render_mode``.

    Raises:
        UsageError: As for `load`; also for a baseline that cannot be built or was trained on normalised observations, whose
            statistics are not kept.
    """
    path = find_model(options.model)
    try:
        spec = read_spec(path.parent / SPEC) if (path.parent / SPEC).is_file() else None
    except ValueError as error:
        raise UsageError(str(error)) from error
    if spec is None or is_agent(spec.algorithm):
        return load(options, **more)
    if ":" in spec.algorithm:
        raise UsageError(f"{path} is of {spec.algorithm}: only agents of JEPA and of {', '.join(BASELINES)} can be loaded")
    if options.planner:
        raise UsageError(f"{path} is of {spec.algorithm}, which does not plan: leave --planner.* out")
    check_device(options.device)
    env_id, kwargs = env_of(path, options.env, options.env_kwargs)
    with ExitStack() as opened:
        env = make_env(env_id, kwargs, **more)
        opened.callback(env.close)
        try:
            model = make_baseline(spec.algorithm, env_id, spec.seed, kwargs, spec.overrides)
            own = model.get_env()
            assert own is not None
            opened.callback(own.close)
            normalizer = model.get_vec_normalize_env()
            if normalizer is None or not normalizer.norm_obs:
                model.set_parameters(str(path), device=options.device)
        except Exception as error:  # SB3 raises many kinds for a file that is damaged or does not fit
            raise UsageError(f"{path} cannot be read as {spec.algorithm} in {env_id}: {first_line(error)}") from error
        if normalizer is not None and normalizer.norm_obs:
            raise UsageError(f"{path} was trained on normalised observations, whose statistics are not kept")
        own.close()
        opened.pop_all()
    return Playable(model, path, env, env_id, kwargs)


def load_as_trained(target: str, env: str | None, env_kwargs: dict[str, Any] | None, device: str, **more: Any) -> Trained:
    """An agent as it was saved, in the environment it was trained in unless another is named.

    Args:
        target: A run folder or a file.
        env: Another environment's id; None is the run's.
        env_kwargs: Its arguments; None are the run's.
        device: Where the networks go.
        more: Arguments of ours for the environment, as ``render_mode``.

    Raises:
        UsageError: There is no agent, it does not fit the environment, or was trained in a wrapped one.
    """
    path = find_model(target)
    refuse_normalised(path)
    env_id, kwargs = env_of(path, env, env_kwargs)
    made = make_env(env_id, kwargs, **more)
    with ExitStack() as opened:
        opened.callback(made.close)
        model = _load(path, made, device)
        opened.pop_all()
    return Trained(model, path, made, env_id, kwargs)


def find_model(target: str) -> Path:
    """The model file of a run folder (its best, else its last), or the file itself; `UsageError` if there is none."""
    path = Path(target)
    choices = [path / "best_model.zip", path / "last_model.zip"] if path.is_dir() else [path, Path(f"{target}.zip")]
    for choice in choices:
        if choice.is_file():
            return choice
    raise UsageError(f"no model at {target}: expected a run folder with best_model.zip or last_model.zip, or a .zip file")


@contextmanager
def playing(agent: Trained | Playable) -> Iterator[None]:
    """While an agent plays: `UsageError` for an environment that gives what cannot be acted on. It is closed at the end."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"environment {agent.env_id!r}: {first_line(error)}") from error
    finally:
        agent.env.close()


def check_modes(agent: Trained | Playable, *modes: str) -> None:
    """`UsageError` if a mode does not exist, now that the environment's module may have registered some; the environment
    is closed then."""
    try:
        check_mode(*modes)
    except UsageError:
        agent.env.close()
        raise


def refuse_normalised(path: Path) -> None:
    """`UsageError` for an agent that rl_zoo3 trained in a wrapped environment: raw observations make it another agent."""
    for statistics in sorted(path.parent.glob("*/vecnormalize.pkl")):
        raise UsageError(
            f"{path} was trained on normalised observations, whose statistics are in {statistics}, a pickle, which is not "
            "read here: use python -m jepa_agent.zoo enjoy --no-render, or evaluate_policy under VecNormalize.load in Python"
        )
    for config in sorted(path.parent.glob("*/config.yml")):
        text = config.read_text(errors="replace")
        found = [name for name in ("frame_stack", "env_wrapper", "vec_env_wrapper") if re.search(rf"\b{name}\b", text)]
        if re.search(r"normalize\W+(true|\{|dict)", text, re.IGNORECASE) or found:
            what = ", ".join(found) or "normalize"
            raise UsageError(
                f"{path} was trained in an environment wrapped by rl_zoo3 ({what} in {config}), which is not done here: use "
                "python -m jepa_agent.zoo enjoy --no-render"
            )


def env_of(model_path: Path, env_id: str | None, env_kwargs: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """The environment a model was trained on, read from its run folder unless given; so are its arguments, if it is that."""
    # A run of `train` has a config file, one of `compare` a spec; JSON is YAML, too.
    recorded_in = SPEC if (model_path.parent / SPEC).is_file() else CONFIG
    config = model_path.parent / recorded_in
    try:
        found = read_yaml(config) if config.is_file() else {}
        recorded = found if isinstance(found, dict) and isinstance(found.get("env"), str) else {}
        if not env_id and recorded:
            check_import(recorded["env"], str(config), "--env")
    except ValueError as error:
        if env_id:
            return env_id, env_kwargs or {}  # what is beside the model need not be of its training
        raise UsageError(str(error)) from error
    if not env_id and not recorded:
        raise UsageError(f"{config} does not say which environment {model_path.name} was trained on: name it with --env")
    same = recorded and (not env_id or _unqualified(env_id) == _unqualified(recorded["env"]))
    return env_id or recorded["env"], env_kwargs or (recorded.get("env_kwargs") if same else None) or {}


def env_flags(env_id: str, env_kwargs: dict[str, Any]) -> list[str]:
    """An environment as it is asked for on the command line."""
    return ["--env", env_id, *([f"--env-kwargs={json.dumps(env_kwargs)}"] if env_kwargs else [])]


def _unqualified(env_id: str) -> str:
    """An id without the module that registers it."""
    return env_id.rpartition(":")[2]


def _load(path: Path, env: gym.Env, device: str) -> JEPA:
    """A saved agent; `UsageError` if the file or its spaces do not fit."""
    try:
        if archive.read(path, "agent").manifest.get("normalized"):
            raise UsageError(
                f"{path} was trained under VecNormalize, whose statistics it does not hold: evaluate it in Python, by "
                "evaluate_policy in an environment wrapped as in training"
            )
        return JEPA.load(path, env=env, device=device)
    except (CheckpointError, ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def _choose_planner(model: JEPA, told: dict[str, Any]) -> None:
    """Let Mode-2 search as told and else as trained, another kind of planner by its defaults; `UsageError` if it cannot."""
    if not told:
        return
    own = model.planner if isinstance(model.planner, PlannerConfig) else PlannerConfig()
    if told.get("kind", own.kind) != own.kind:
        own = PlannerConfig()
    try:
        model.set_planner(replace(own, **told))
    except ValueError as error:
        raise UsageError(str(error)) from error
