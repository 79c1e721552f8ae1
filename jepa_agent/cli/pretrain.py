"""``jepa-agent pretrain``."""

from __future__ import annotations

import argparse
import io
import shlex
import shutil
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from jepa_agent.agent import JEPA
from jepa_agent.callbacks import LatentCallback
from jepa_agent.cli import continuing, exit_code, trained
from jepa_agent.cli.common import (
    CONFIG,
    UsageError,
    check_device,
    check_env,
    chosen_terms,
    first_line,
    make_env,
    program,
    say,
    say_anyway,
)
from jepa_agent.cli.flags import parser_of
from jepa_agent.cli.parser import Parser
from jepa_agent.cli.train import check_memory, check_parts, run_folder, write_settings
from jepa_agent.cli.training_envs import close
from jepa_agent.config import as_kwargs
from jepa_agent.experiments.folders import locked, refuse_if_held
from jepa_agent.interruption import noting_signals, undisturbed
from jepa_agent.learning.representation import RepresentationTerm, Termination
from jepa_agent.persistence import archive, minari_data
from jepa_agent.persistence.archive import CheckpointError
from jepa_agent.persistence.checkpoint_folder import CHECKPOINTS, experience_files
from jepa_agent.persistence.logs import resumable_logger
from jepa_agent.persistence.plain_data import check_import
from jepa_agent.spaces import policy_name

_MINARI = "minari:"
_MAY_DIFFER = frozenset(("config", "output", "log_folder", "device", "updates", "log_freq"))


def run(argv: Sequence[str]) -> int:
    """Check everything, make the run folder or go on there, learn, save, and say what to do next."""
    parser = parser_of("pretrain")
    plain = parser.parse_plain(with_env_of_data(argv))
    options = parser.build(plain)
    check(options)
    folder, begun = _folder(options, parser, plain)
    with locked(folder), ExitStack() as opened:
        place = folder.absolute()
        try:
            write_settings(place, parser.dump(plain, skip_check=True).encode())
            model = _build(options, place, begun, opened)
        except Exception as error:
            if not begun:
                shutil.rmtree(folder)
            raise UsageError(f"the world model could not be built: {first_line(error)}") from error
        if not begun:
            say(f"{model.replay_buffer.size() * model.n_envs:,} steps of {options.env} to learn from")
        with noting_signals():
            stopped_by = _learn(model, options)
            with undisturbed():
                return _finish(model, options, folder, place, stopped_by)


def with_env_of_data(argv: Sequence[str]) -> list[str]:
    """Put the environment that ``--data`` says it is of before what is given, unless one is named.

    Args:
        argv: Of ``pretrain``.

    Raises:
        UsageError: Nothing says which environment the data are of.
    """
    flag = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--data", "--env", "--config"):
        flag.add_argument(name, nargs="?")
    asked, _ = flag.parse_known_args(list(argv))
    if asked.env or asked.data is None or asked.config:
        return list(argv)
    if not asked.data.startswith(_MINARI):
        source = Path(asked.data)
        if not source.exists():
            raise UsageError(f"--data {source}: there is no such file or folder")
        env, kwargs = trained.env_of(source / CHECKPOINTS if source.is_dir() else source, None, None)
    else:
        spec = _dataset(asked.data).env_spec
        if spec is None:
            raise UsageError(f"{asked.data} does not say which environment it is of: name it with --env")
        env, kwargs = spec.id, dict(spec.kwargs)
        try:
            check_import(env, asked.data, "--env")
        except ValueError as error:
            raise UsageError(str(error)) from error
    return [*trained.env_flags(env, kwargs), *argv]


def check(options: Namespace) -> None:
    """Everything that can be known to be wrong before the first step; `UsageError` in one line."""
    if not options.env:
        raise UsageError("name the environment with --env, such as --env CartPole-v1, or stored experience with --data")
    check_env(options.env, options.env_kwargs)
    check_parts(options)
    check_device(options.device)
    check_memory(options)
    terms = chosen_terms(options.terms)
    if terms is not None and not any(_shapes_latents(term) for term in terms):
        raise UsageError("--terms: without rewards there is nothing to fit: name a term such as prediction")
    if not options.data and options.n_timesteps > options.agent.buffer_size:
        raise UsageError(
            f"-n {options.n_timesteps:,} steps do not fit into --agent.buffer_size {options.agent.buffer_size:,}"
        )


def _shapes_latents(term: RepresentationTerm) -> bool:
    """Whether a term has something to learn without rewards; where episodes end is too little to fit latents to."""
    return bool(term.weight) and not term.reads_reward and not isinstance(term, Termination)


def _folder(options: Namespace, parser: Parser, plain: Namespace) -> tuple[Path, bool]:
    """The run folder, and whether there are updates to go on from; what was stopped before begins anew."""
    if not options.output:
        return run_folder(options), False
    folder = Path(options.output)
    refuse_if_held(folder)
    if not (folder / CONFIG).is_file():
        return run_folder(options), False
    continuing.refuse_other_settings(folder, parser, plain, _MAY_DIFFER)
    return folder, continuing.newest(folder) is not None


def _build(options: Namespace, folder: Path, begun: bool, opened: ExitStack) -> JEPA:
    """The agent, with its experience, new or as it was left.

    Args:
        options: Parsed flags.
        folder: Of the run.
        begun: Whether a checkpoint is there.
        opened: Closes the environments in the end.
    """
    env = make_vec_env(partial(make_env, options.env, options.env_kwargs), _n_envs(options.data), options.seed)
    opened.callback(close, env)
    if begun:
        model = JEPA.resume(folder / CHECKPOINTS, env, options.device)
    else:
        model = _agent(options, env, representation=chosen_terms(options.terms))
        if options.data is None:
            say(f"collecting {options.n_timesteps:,} random steps")
            _collect(model, options, env)
        elif options.data.startswith(_MINARI):
            model.load_minari(_dataset(options.data))
        else:
            model.load_replay_buffer(options.data)
        model.save_checkpoint(folder / CHECKPOINTS)
    model.set_logger(resumable_logger(str(folder), ["tensorboard"]))
    return model


def _agent(options: Namespace, env: VecEnv, **more: Any) -> JEPA:
    settings = {**as_kwargs(options.agent), "planner": options.planner, "policy_kwargs": as_kwargs(options.model), **more}
    return JEPA(policy_name(env.observation_space), env, seed=options.seed, device=options.device, **settings)


def _collect(model: JEPA, options: Namespace, env: VecEnv) -> None:
    """Fill an agent's replay buffer with random steps, by another agent that never begins to learn."""
    collector = _agent(options, env, learning_starts=options.n_timesteps)
    collector.learn(options.n_timesteps, callback=LatentCallback(freq=0))
    rows = io.BytesIO()
    collector.save_replay_buffer(rows)
    rows.seek(0)
    model.load_replay_buffer(rows)


def _n_envs(data: str | None) -> int:
    """How many environments stored experience is of, whose steps lie side by side."""
    if data is None or data.startswith(_MINARI):
        return 1
    try:
        files = experience_files(Path(data))
        return int(archive.read(files[0], "replay").manifest["n_envs"]) if files else 1
    except (CheckpointError, OSError) as error:
        raise UsageError(f"--data {data}: {first_line(error)}") from error


def _dataset(data: str) -> Any:
    try:
        return minari_data.open_dataset(data.removeprefix(_MINARI))
    except ValueError as error:
        raise UsageError(f"--data: {error}") from error


def _learn(model: JEPA, options: Namespace) -> BaseException | None:
    """Make the updates that are left, and say how it goes. What was learned before something ends it is whole.

    Returns:
        What ended learning before its time; None if nothing did.
    """
    watch = LatentCallback()
    watch.init_callback(model)
    try:
        while (made := model._n_representation_updates) < options.updates:
            # Lines are told at the same updates by a run that was interrupted.
            model.learn_offline(min(options.log_freq - made % options.log_freq, options.updates - made), True)
            measures, logged = watch.measure(), model.logger.name_to_value
            losses = {term: logged[f"train/{term.name}_loss"] for term in model.terms if f"train/{term.name}_loss" in logged}
            parts = ", ".join(f"{term.name} {loss:.3g}" for term, loss in losses.items())
            total = sum(term.weight * loss for term, loss in losses.items())
            say(
                f"update {model._n_representation_updates:,} of {options.updates:,}: loss {total:.4g} ({parts}), "
                f"effective rank {measures['rank']:.3g}, std {measures['std']:.2g}"
            )
            model.logger.dump(model._n_representation_updates)
    except BaseException as error:
        return error
    return None


def _finish(model: JEPA, options: Namespace, folder: Path, place: Path, stopped_by: BaseException | None) -> int:
    """Say what ended learning, save, and say what to do next; returns the exit code."""
    code, made = 0, model._n_representation_updates
    if isinstance(stopped_by, KeyboardInterrupt):
        code = exit_code(stopped_by)
        say_anyway(f"interrupted after {made:,} updates")
    elif stopped_by is not None:
        code = 1
        (place / "error.txt").write_text("".join(traceback.format_exception(stopped_by)))
        say_anyway(f"failed after {made:,} updates: {first_line(stopped_by)}; details in {folder / 'error.txt'}")
    model.save_checkpoint(place / CHECKPOINTS)
    model.save(place / "last_model.zip")
    say_anyway(f"saved to {folder}")
    if code:
        say_anyway(
            "go on:       the same command" + ("" if options.output else f" with --output {shlex.quote(str(folder))}")
        )
    own = shlex.quote(str(folder))
    named = f" --env {shlex.quote(options.env)}" if ":" in options.env else ""
    say_anyway(f"fine-tune:   {program('jepa-agent')} train --from {own}{named}")
    say_anyway(f"for a goal:  JEPA.load({str(folder / 'last_model.zip')!r}).set_cost(...), in Python")
    return code
