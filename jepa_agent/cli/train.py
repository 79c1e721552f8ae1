"""``jepa-agent train``."""

from __future__ import annotations

import shutil
import traceback
import warnings
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import psutil
from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv

from jepa_agent.algorithm import JEPA
from jepa_agent.callbacks import LatentCallback, PeriodicCheckpoint, ResumableEvalCallback
from jepa_agent.checkpoint import replacing
from jepa_agent.checkpoint_folder import cut_logs
from jepa_agent.cli import continuing, exit_code
from jepa_agent.cli.common import (
    CONFIG,
    MODES,
    SEED,
    Parser,
    UsageError,
    check_device,
    check_env,
    check_mode,
    first_line,
    fresh_folder,
    make_env,
    numbered_folder,
    say,
    writable_folder,
)
from jepa_agent.config import AgentConfig, ModelConfig, PlannerConfig, as_kwargs
from jepa_agent.environments import EndOnBadObservation
from jepa_agent.experiments.evaluation import bounded
from jepa_agent.experiments.folders import alone
from jepa_agent.interruption import noting_signals
from jepa_agent.planning import make_planner
from jepa_agent.replay_buffer import transition_bytes
from jepa_agent.spaces import policy_name


def build_parser() -> Parser:
    """The verb's flags."""
    parser = Parser("train", "Train an agent; writes a run folder.", "jepa-agent train --env CartPole-v1 -n 5000 -P")
    parser.add_argument("--config", action="config", help="YAML file with any of these settings")
    parser.add_argument("--env", type=str, required=True, help="Gymnasium id, or module:EnvId")
    parser.add_argument("--env-kwargs", type=dict, default={}, help="arguments of the environment, key:value ...")
    parser.add_argument("-n", "--n-timesteps", type=PositiveInt, default=10_000, help="environment steps")
    parser.add_argument("--seed", type=SEED, default=0, help="seed of everything")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda or auto")
    parser.add_argument("--n-envs", type=PositiveInt, default=1, help="environments side by side")
    parser.add_argument(
        "--on-bad-obs",
        choices=["error", "end-episode"],
        default="error",
        help="what follows an observation or reward that is not finite: the run ends, or the episode as by a time limit",
    )
    parser.add_argument("--mode", type=str, default="auto", help=f"who acts: {MODES}")
    parser.add_argument("--eval-freq", type=NonNegativeInt, default=1_000, help="steps between evaluations; 0 for none")
    parser.add_argument("--eval-episodes", type=PositiveInt, default=10, help="episodes per evaluation")
    parser.add_argument(
        "--save-freq", type=NonNegativeInt, default=0, help="steps between checkpoints; 0 saves at the end alone"
    )
    parser.add_argument("--keep-last", type=PositiveInt, default=1, help="checkpoints to keep")
    parser.add_argument("--resume", type=str, help="run folder to go on with, by its own settings; -n may be larger")
    parser.add_argument("-f", "--log-folder", type=str, default="runs", help="run folders are made below this one")
    parser.add_argument("--output", type=str, help="the run folder itself; the same command goes on there")
    parser.add_argument("--tensorboard-log", type=str, help="folder of the TensorBoard events; the run folder by default")
    parser.add_argument("-P", "--progress", action="store_true", help="show a progress bar")
    parser.add_argument("--verbose", type=NonNegativeInt, default=0, help="1 prints SB3's log tables")
    parser.add_argument("--agent", type=AgentConfig, default=AgentConfig())
    parser.add_argument("--model", type=ModelConfig, default=ModelConfig())
    parser.add_argument("--planner", type=PlannerConfig, default=PlannerConfig())
    return parser


def run(argv: Sequence[str]) -> int:
    """Check everything, make the run folder or find the run there, learn, save, and say what to do next."""
    parser = build_parser()
    plain = parser.parse_plain(continuing.with_settings_of_run(argv))
    options = parser.build(plain)
    check(options)
    done = continuing.steps_done(Path(options.output), parser, plain) if options.output else None
    if done and done >= options.n_timesteps and (Path(options.output) / "last_model.zip").is_file():
        say(f"{options.output} is finished: {done} steps are done")
        say(f"more steps:  jepa-agent train --resume {options.output} -n {2 * done}")
        return 0
    folder = run_folder(options) if done is None else Path(options.output)
    with alone(folder):
        if done == 0:
            continuing.clear(folder)
        settings = parser.dump(plain, skip_check=True).encode()
        write_settings(folder, settings)
        try:
            model, callbacks = build(options, folder, bool(done))
        except Exception as error:
            if done is None:
                shutil.rmtree(folder)
            raise UsageError(f"the agent could not be built: {first_line(error)}") from error
        with closing(model.env), noting_signals():
            code = learn(model, callbacks, options, folder)
            if not keep(model, options, folder, settings):
                return code or 1
    say(f"saved to {folder}")
    if code:
        say(f"go on:       jepa-agent train --resume {folder}")
    say(f"evaluate:    jepa-agent evaluate {folder}")
    say(f"tensorboard: tensorboard --logdir {options.tensorboard_log or folder}")
    return code


def learn(model: JEPA, callbacks: list[BaseCallback], options: Namespace, folder: Path) -> int:
    """Learn; returns the exit code. Whatever stops it on the way, an environment that ends the process among others, what
    was stored and learned before is whole."""
    left, code = options.n_timesteps - model.num_timesteps, 0
    if options.n_timesteps <= options.agent.learning_starts:
        say(f"note: learning starts after {options.agent.learning_starts} random steps, so this run learns nothing")
    try:
        model.learn(left, callback=callbacks, reset_num_timesteps=False, progress_bar=options.progress)
    except KeyboardInterrupt as stop:
        say(f"interrupted after {model.num_timesteps} steps")
        code = exit_code(stop)
    except (Exception, SystemExit, GeneratorExit) as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        try:
            (folder / "error.txt").write_text(traceback.format_exc())
            what += f"; details in {folder / 'error.txt'}"
        except OSError:
            traceback.print_exc()
        say(f"failed after {model.num_timesteps} steps: {what}")
        code = 1
    return code


def keep(model: JEPA, options: Namespace, folder: Path, settings: bytes) -> bool:
    """Save the whole run and the agent; returns whether that succeeded, and tells if not."""
    checkpoints = folder / continuing.CHECKPOINTS
    try:
        model.save_checkpoint(checkpoints, options.keep_last, continuing.logs(folder))
        model.save(folder / "last_model.zip")
        if not (folder / CONFIG).is_file():  # the folder was removed meanwhile
            write_settings(folder, settings)
        return True
    except (OSError, ValueError) as error:
        before = continuing.newest(checkpoints)
        left = f"the checkpoint of step {before} is left" if before else "there is no checkpoint"
        say(f"not saved: {first_line(error)}; {left}")
        if before:
            say(f"go on:       jepa-agent train --resume {folder}")
        return False


def write_settings(folder: Path, settings: bytes) -> None:
    """Write the run's settings, all or nothing."""
    with replacing(folder / CONFIG) as file:
        file.write(settings)


def run_folder(options: Namespace) -> Path:
    """The new run folder, and one for TensorBoard if asked for; `UsageError` if it cannot be had."""
    if options.tensorboard_log:
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
    check_mode(options.mode)
    check_device(options.device)
    check_memory(options)
    if options.n_envs > options.n_timesteps:
        raise UsageError(f"--n-envs {options.n_envs} exceeds -n {options.n_timesteps}")


def check_memory(options: Namespace) -> None:
    """`UsageError` if the replay buffer cannot fit into this machine's memory."""
    env = make_env(options.env, options.env_kwargs)
    need = options.agent.buffer_size * transition_bytes(env.observation_space, env.action_space)
    env.close()
    if need > psutil.virtual_memory().total:
        raise UsageError(
            f"a buffer of {options.agent.buffer_size:,} transitions needs at least {need / 1e9:,.0f} GB: "
            "lower --agent.buffer_size"
        )


def build(options: Namespace, folder: Path, resumed: bool) -> tuple[JEPA, list[BaseCallback]]:
    """The agent, new or from its last checkpoint, and its callbacks, writing into the run folder."""
    checkpoints = folder / continuing.CHECKPOINTS
    env = vec_env(options, options.n_envs, options.seed, folder)
    model = JEPA.resume(checkpoints, env, options.device) if resumed else new_agent(options, env)
    if resumed:
        cut_logs(checkpoints, folder, model.num_timesteps)
        (folder / "error.txt").unlink(missing_ok=True)
    formats = ["tensorboard", "stdout"] if options.verbose else ["tensorboard"]
    model.set_logger(configure(options.tensorboard_log or str(folder), formats))
    callbacks: list[BaseCallback] = [LatentCallback()]
    if options.save_freq:
        callbacks.append(PeriodicCheckpoint(checkpoints, options.save_freq, options.keep_last, continuing.logs(folder)))
    if options.eval_freq:
        warnings.filterwarnings("ignore", message="Training and eval env are not of the same type")
        callbacks.append(
            ResumableEvalCallback(
                vec_env(options, 1, options.seed, None, wrapper_class=bounded),
                seed=options.seed + 10_000,
                log_path=str(folder),
                eval_freq=max(options.eval_freq // options.n_envs, 1),
                n_eval_episodes=options.eval_episodes,
                verbose=options.verbose,
            )
        )
    return model, callbacks


def new_agent(options: Namespace, env: VecEnv) -> JEPA:
    """An agent that knows nothing yet."""
    return JEPA(
        policy_name(env.observation_space),
        env,
        seed=options.seed,
        device=options.device,
        mode=options.mode,
        planner=options.planner,
        verbose=options.verbose,
        policy_kwargs=as_kwargs(options.model),
        **as_kwargs(options.agent),
    )


def _wrapped(options: Namespace, wrapper_class: Any) -> gym.Env:
    """One environment, all wrapped but for the monitor, which is to see every end of an episode."""
    env = make_env(options.env, options.env_kwargs)
    env = EndOnBadObservation(env) if options.on_bad_obs == "end-episode" else env
    return wrapper_class(env) if wrapper_class else env


def vec_env(options: Namespace, n_envs: int, seed: int, folder: Path | None, wrapper_class: Any = None) -> VecEnv:
    """Monitored environments side by side; monitor files are in ``folder``, where rows there already stay."""
    resumed = bool(folder and list(folder.glob("*.monitor.csv")))
    env = make_vec_env(
        partial(_wrapped, options, wrapper_class),
        n_envs,
        seed,
        monitor_dir=str(folder) if folder else None,
        monitor_kwargs={"override_existing": not resumed},
    )
    if folder and resumed:
        env.set_attr("t_start", continuing.start_of_monitoring(folder))
    return env
