"""``jepa-agent train``."""

from __future__ import annotations

import shlex
import shutil
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import NamedTuple

from jsonargparse import Namespace
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from jepa_agent.acting.exploration import EXPLORATIONS
from jepa_agent.agent import JEPA
from jepa_agent.callbacks import MediaCallback, PeriodicCheckpoint
from jepa_agent.cli import beginnings, continuing, exit_code
from jepa_agent.cli.common import (
    CONFIG,
    UsageError,
    check_device,
    check_env,
    check_mode,
    chosen_terms,
    first_line,
    fresh_folder,
    make_env,
    numbered_folder,
    program,
    say,
    say_anyway,
    writable_folder,
)
from jepa_agent.cli.flags import parser_of
from jepa_agent.cli.told_evaluation import ToldEvaluation
from jepa_agent.cli.training_envs import close, monitored_env, vec_env
from jepa_agent.config import as_kwargs, did_you_mean
from jepa_agent.experiments.evaluation import bounded
from jepa_agent.experiments.folders import locked, refuse_if_held
from jepa_agent.interruption import noting_signals, undisturbed
from jepa_agent.learning.replay_buffer import transition_bytes
from jepa_agent.model.encoders import ENCODERS
from jepa_agent.model.memory import MEMORIES
from jepa_agent.persistence.archive import replacing
from jepa_agent.persistence.checkpoint_folder import cut_logs
from jepa_agent.persistence.logs import events_told_once, resumable_logger
from jepa_agent.persistence.system import total_memory
from jepa_agent.planning import make_planner
from jepa_agent.spaces import policy_name


def run(argv: Sequence[str]) -> int:
    """Check everything, make the run folder or find the run there, learn, save, and say what to do next."""
    parser = parser_of("train")
    plain = parser.parse_plain(continuing.with_settings_of_run(beginnings.with_settings_of_agent(argv)))
    options = parser.build(plain)
    check(options)
    if options.output:
        refuse_if_held(Path(options.output))
    done = continuing.steps_done(Path(options.output), parser, plain) if options.output else None
    if done and done >= options.n_timesteps and continuing.is_finished(Path(options.output), done):
        say(f"{options.output} is finished: {done} steps are done")
        say(f"more steps:  {continuing.command('train', Path(options.output), options.env)} -n {2 * done}")
        return 0
    folder = run_folder(options) if done is None else Path(options.output)
    with locked(folder), events_told_once(), ExitStack() as opened:
        place = folder.absolute()  # an environment may change the working directory
        settings = parser.dump(plain, skip_check=True).encode()
        try:
            if done == 0:
                continuing.clear(place)
            write_settings(place, settings)
            model, callbacks = build(options, place, bool(done), opened)
        except Exception as error:
            if done is None:
                shutil.rmtree(folder)
            raise UsageError(f"the agent could not be built: {first_line(error)}") from error
        with noting_signals():
            stopped_by = learn(model, callbacks, options)
            with undisturbed():
                return finish(model, callbacks, options, Run(folder, place, settings), stopped_by)


class Run(NamedTuple):
    """A run folder, as the user named it and wherever the process is, and the settings that belong there."""

    folder: Path
    place: Path
    settings: bytes


def learn(model: JEPA, callbacks: list[BaseCallback], options: Namespace) -> BaseException | None:
    """Learn until the steps are made or something ends it. What was stored and learned before is whole then, even where an
    environment ends the process by `sys.exit`.

    Args:
        model: The agent.
        callbacks: Of the run.
        options: Parsed flags.

    Returns:
        What ended learning before its time; None if nothing did.
    """
    left = options.n_timesteps - model.num_timesteps
    if options.n_timesteps <= options.agent.learning_starts:
        say_anyway(f"note: learning starts after {options.agent.learning_starts} random steps, so this run learns nothing")
    updates, steps = options.agent.gradient_steps, options.agent.train_freq * options.n_envs
    if options.n_envs > 1 and 0 < updates < steps:
        say_anyway(
            f"note: {options.n_envs} environments, so {updates} update(s) for every {steps} steps; "
            "--agent.gradient_steps -1 makes one for each"
        )
    if model.num_timesteps:
        say_anyway(f"going on from step {model.num_timesteps:,}")
    try:
        model.learn(left, callback=callbacks, reset_num_timesteps=False, progress_bar=options.progress)
        return None
    except BaseException as error:
        return error


def finish(
    model: JEPA, callbacks: list[BaseCallback], options: Namespace, run: Run, stopped_by: BaseException | None
) -> int:
    """Say what ended a run and how good it was, save it, and say what to do next.

    Args:
        model: The agent.
        callbacks: Of the run.
        options: Parsed flags.
        run: Where it is saved.
        stopped_by: What ended learning, if anything did.

    Returns:
        The exit code.
    """
    code = 0
    if stopped_by is not None:
        code, what = ending(stopped_by, run, model.num_timesteps)
        say_anyway(what)
        stopped_by.__traceback__ = None  # whose frames hold what memory may be short of
    evaluation = next((callback for callback in callbacks if isinstance(callback, ToldEvaluation)), None)
    if evaluation is not None and evaluation.means:
        say_anyway(evaluation.summary())
    elif evaluation is not None:
        say(f"no evaluation was made: they come every {options.eval_freq:,} steps, as --eval-freq says")
    failed = keep(model, options, run)
    for what, why in failed.items():
        say_anyway(f"not saved:   {what}: {why}")
    if not failed:
        say_anyway(f"saved to {run.folder}")
    on = continuing.command("train", run.folder, options.env)
    steps = continuing.newest(run.place)
    if steps and (failed or code):
        say_anyway(f"go on:       {on}" + (f"  (from step {steps})" if steps < model.num_timesteps else ""))
    elif (run.place / "last_model.zip").is_file() and failed:
        say_anyway("begin anew:  the same command with another --output; last_model.zip alone cannot be gone on with")
    elif failed or code:
        say_anyway(f"begin anew:  {on}")
    if any((run.place / name).is_file() for name in ("best_model.zip", "last_model.zip")):
        say_anyway(f"evaluate:    {continuing.command('evaluate', run.folder, options.env)}")
    if not failed:
        say_anyway(
            f"tensorboard: {program('tensorboard')} --logdir {shlex.quote(str(options.tensorboard_log or run.folder))}"
        )
    return code or int(bool(failed))


def ending(error: BaseException, run: Run, steps: int) -> tuple[int, str]:
    """The exit code for what ended a run after so many steps, and what to say of it."""
    if isinstance(error, KeyboardInterrupt):
        return exit_code(error), f"interrupted after {steps} steps"
    what = f"failed after {steps} steps: {type(error).__name__}: {first_line(error)}"
    report = "".join(traceback.format_exception(error))
    try:
        (run.place / "error.txt").write_text(report)
        return 1, f"{what}; details in {run.folder / 'error.txt'}"
    except OSError:
        return 1, f"{what}\n{report}"


def keep(model: JEPA, options: Namespace, run: Run) -> dict[str, str]:
    """Save the whole run, its last agent, and the settings where the folder was removed meanwhile; returns what could not be
    saved, and why."""
    checkpoints, failed = run.place / continuing.CHECKPOINTS, {}
    parts: dict[str, Callable[[], None]] = {
        "the run": lambda: model.save_checkpoint(checkpoints, options.keep_last, continuing.logs(run.place)),
        "last_model.zip": lambda: model.save(run.place / "last_model.zip"),
        CONFIG: lambda: None if (run.place / CONFIG).is_file() else write_settings(run.place, run.settings),
    }
    for what, save in parts.items():
        try:
            save()
        except Exception as error:
            failed[what] = first_line(error)
    return failed


def write_settings(folder: Path, settings: bytes) -> None:
    """Write the run's settings, all or nothing.

    Args:
        folder: Of the run.
        settings: The content of the file.
    """
    with replacing(folder / CONFIG) as file:
        file.write(settings)


def run_folder(options: Namespace) -> Path:
    """The new run folder, and one for TensorBoard if asked for; `UsageError` if it cannot be had."""
    if options.get("tensorboard_log"):
        writable_folder(Path(options.tensorboard_log))
    if options.output:
        return fresh_folder(Path(options.output))
    name = options.env.replace("/", "-").replace(":", "-")
    return fresh_folder(numbered_folder(Path(options.log_folder) / "jepa", name))


def check(options: Namespace) -> None:
    """Everything that can be known to be wrong before the first step; `UsageError` in one line."""
    check_env(options.env, options.env_kwargs)
    env = make_env(options.env, options.env_kwargs)
    try:
        make_planner(options.planner, env.action_space)
    except ValueError as error:
        raise UsageError(str(error)) from error
    finally:
        env.close()
    check_parts(options)
    chosen_terms(options.terms)
    check_mode(options.mode, *([options.eval_mode] if options.eval_mode else []))
    check_device(options.device)
    check_memory(options)
    if options.tb_media and not options.eval_freq:
        raise UsageError("--tb-media draws at each evaluation, but --eval-freq 0 makes none: give --eval-freq, such as 1000")
    if options.n_envs > options.n_timesteps:
        raise UsageError(f"--n-envs {options.n_envs} exceeds -n {options.n_timesteps}")


def check_parts(options: Namespace) -> None:
    """`UsageError` for a part that no name is known of, now that the environment's module may have registered some."""
    for flag, name, known in (
        ("--agent.memory", options.agent.memory, ["none", *MEMORIES]),
        ("--agent.exploration", options.agent.exploration, [*EXPLORATIONS]),
        ("--model.encoder", options.model.encoder, [*ENCODERS]),
    ):
        if name not in known:
            raise UsageError(f"{flag} {name}: no such name is known{did_you_mean(name, known)}")


def check_memory(options: Namespace) -> None:
    """`UsageError` if the replay buffer cannot fit into this machine's memory."""
    with closing(make_env(options.env, options.env_kwargs)) as env:
        need = options.agent.buffer_size * transition_bytes(env.observation_space, env.action_space)
    if need > total_memory():
        raise UsageError(
            f"a buffer of {options.agent.buffer_size:,} transitions needs at least {need / 1e9:,.0f} GB: "
            "lower --agent.buffer_size"
        )


def build(options: Namespace, folder: Path, resumed: bool, opened: ExitStack) -> tuple[JEPA, list[BaseCallback]]:
    """The agent, new or from its last checkpoint, and its callbacks, which write into the run folder.

    Args:
        options: Parsed flags.
        folder: Of the run.
        resumed: Whether a checkpoint is there.
        opened: Closes the environments in the end.
    """
    checkpoints = folder / continuing.CHECKPOINTS
    env = monitored_env(options, folder, resumed)
    opened.callback(close, env)
    model = JEPA.resume(checkpoints, env, options.device) if resumed else new_agent(options, env)
    if resumed:
        with suppress(OSError):
            cut_logs(checkpoints, folder, model.num_timesteps)
            (folder / "error.txt").unlink(missing_ok=True)
    formats = ["tensorboard", "stdout"] if options.verbose else ["tensorboard"]
    model.set_logger(resumable_logger(options.tensorboard_log or str(folder), formats))
    callbacks: list[BaseCallback] = []
    if options.save_freq:
        callbacks.append(PeriodicCheckpoint(checkpoints, options.save_freq, options.keep_last, continuing.logs(folder)))
    if options.eval_freq:
        warnings.filterwarnings("ignore", message="Training and eval env are not of the same type")
        evaluation_env = vec_env(options, 1, options.seed, None, "evaluation environment", bounded)
        opened.callback(close, evaluation_env)
        media = None
        if options.tb_media:
            shown = bounded(make_env(options.env, options.env_kwargs))
            opened.callback(shown.close)
            media = MediaCallback(shown, seed=options.seed + 10_000)
        callbacks.append(
            ToldEvaluation(
                evaluation_env,
                seed=options.seed + 10_000,
                log_path=str(folder),
                eval_freq=max(options.eval_freq // options.n_envs, 1),
                n_eval_episodes=options.eval_episodes,
                mode=options.eval_mode,
                verbose=options.verbose,
                callback_after_eval=media,
            )
        )
    return model, callbacks


def new_agent(options: Namespace, env: VecEnv) -> JEPA:
    """An agent that has learned nothing, or what the one had learned that ``--from`` names.

    Args:
        options: Parsed flags.
        env: The environments to learn in.
    """
    if options["from"]:
        return beginnings.agent_from(options, env)
    return JEPA(
        policy_name(env.observation_space),
        env,
        seed=options.seed,
        device=options.device,
        mode=options.mode,
        planner=options.planner,
        representation=chosen_terms(options.terms),
        verbose=options.verbose,
        policy_kwargs=as_kwargs(options.model),
        **as_kwargs(options.agent),
    )
