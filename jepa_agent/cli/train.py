"""``jepa-agent train``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv

from jepa_agent.algorithm import JEPA
from jepa_agent.callbacks import LatentCallback
from jepa_agent.cli.common import (
    CONFIG,
    Parser,
    UsageError,
    check_device,
    check_env,
    check_mode,
    console,
    fresh_folder,
    make_env,
    numbered_folder,
)
from jepa_agent.config import AgentConfig, ModelConfig, PlannerConfig, as_kwargs
from jepa_agent.planning import make_planner


def build_parser() -> Parser:
    parser = Parser("train", "Train an agent; writes a run folder.", "jepa-agent train --env CartPole-v1 -n 5000 -P")
    parser.add_argument("--config", action="config", help="YAML file with any of these settings")
    parser.add_argument("--env", type=str, required=True, help="Gymnasium id, or module:EnvId")
    parser.add_argument("--env-kwargs", type=dict[str, Any], default={}, help="arguments of the environment, key:value ...")
    parser.add_argument("-n", "--n-timesteps", type=PositiveInt, default=10_000, help="environment steps")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="seed of everything")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda or auto")
    parser.add_argument("--n-envs", type=PositiveInt, default=1, help="environments side by side")
    parser.add_argument("--mode", type=str, default="auto", help="who acts: auto, planner, actor, every_4, ...")
    parser.add_argument("--eval-freq", type=NonNegativeInt, default=1_000, help="steps between evaluations; 0 for none")
    parser.add_argument("--eval-episodes", type=PositiveInt, default=10, help="episodes per evaluation")
    parser.add_argument("-f", "--log-folder", type=str, default="runs", help="run folders are made below this one")
    parser.add_argument("--output", type=str, help="the run folder itself, instead of a numbered one")
    parser.add_argument("--tensorboard-log", type=str, help="folder of the TensorBoard events; the run folder by default")
    parser.add_argument("-P", "--progress", action="store_true", help="show a progress bar")
    parser.add_argument("--verbose", type=NonNegativeInt, default=0, help="1 prints SB3's log tables")
    parser.add_argument("--agent", type=AgentConfig, default=AgentConfig())
    parser.add_argument("--model", type=ModelConfig, default=ModelConfig())
    parser.add_argument("--planner", type=PlannerConfig, default=PlannerConfig())
    return parser


def run(argv: Sequence[str]) -> int:
    """Check everything, make the run folder, learn, save, and say what to do next."""
    parser = build_parser()
    plain = parser.parse_plain(argv)
    options = parser.build(plain)
    check(options)
    folder = (
        fresh_folder(Path(options.output))
        if options.output
        else fresh_folder(
            numbered_folder(Path(options.log_folder) / "jepa", options.env.replace("/", "-").replace(":", "-"))
        )
    )
    parser.save(plain, str(folder / CONFIG), skip_check=True, overwrite=True)
    model, callbacks = build(options, folder)
    code = 0
    try:
        model.learn(options.n_timesteps, callback=callbacks, progress_bar=options.progress)
    except KeyboardInterrupt:
        console.print(f"interrupted after {model.num_timesteps} steps; the agent so far is saved")
        code = 130
    model.save(folder / "last_model.zip")
    events = Path(options.tensorboard_log) if options.tensorboard_log else folder
    console.print(f"saved to {folder}", highlight=False, soft_wrap=True)
    console.print(f"evaluate:    jepa-agent evaluate {folder}", highlight=False, soft_wrap=True)
    console.print(f"tensorboard: tensorboard --logdir {events}", highlight=False, soft_wrap=True)
    return code


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
    if options.n_envs > options.n_timesteps:
        raise UsageError(f"--n-envs {options.n_envs} exceeds -n {options.n_timesteps}")


def build(options: Namespace, folder: Path) -> tuple[JEPA, list[BaseCallback]]:
    """The agent and its callbacks, writing into the run folder."""
    env = vec_env(options, options.n_envs, options.seed, folder)
    model = JEPA(
        "MlpPolicy",
        env,
        seed=options.seed,
        device=options.device,
        mode=options.mode,
        planner=options.planner,
        verbose=options.verbose,
        policy_kwargs=as_kwargs(options.model),
        **as_kwargs(options.agent),
    )
    events = options.tensorboard_log or str(folder)
    formats = ["tensorboard", "stdout"] if options.verbose else ["tensorboard"]
    model.set_logger(configure(events, formats))
    callbacks: list[BaseCallback] = [LatentCallback()]
    if options.eval_freq:
        warnings.filterwarnings("ignore", message="Training and eval env are not of the same type")
        callbacks.append(
            EvalCallback(
                vec_env(options, 1, options.seed + 10_000, None),
                n_eval_episodes=options.eval_episodes,
                eval_freq=max(options.eval_freq // options.n_envs, 1),
                log_path=str(folder),
                best_model_save_path=str(folder),
                deterministic=True,
                verbose=options.verbose,
            )
        )
    return model, callbacks


def vec_env(options: Namespace, n_envs: int, seed: int, folder: Path | None) -> VecEnv:
    """Monitored environments side by side; monitor files go to ``folder``."""
    monitor_dir = str(folder) if folder else None
    return make_vec_env(options.env, n_envs, seed=seed, monitor_dir=monitor_dir, env_kwargs=options.env_kwargs)
