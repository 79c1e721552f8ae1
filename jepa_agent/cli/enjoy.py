"""``jepa-agent enjoy``."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import RecordVideo
from jsonargparse.typing import PositiveInt
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from jepa_agent.cli.common import (
    SEED,
    Parser,
    UsageError,
    bounded,
    check_device,
    check_mode,
    choose_planner,
    env_of,
    find_model,
    fresh_folder,
    headless,
    load_model,
    make_env,
    numbered_folder,
    progress,
    say,
)
from jepa_agent.config import PlannerConfig
from jepa_agent.experiments.evaluation import SeededEpisodes


def build_parser() -> Parser:
    """The verb's flags."""
    parser = Parser("enjoy", "Record an mp4 of a trained agent.", "jepa-agent enjoy runs/jepa/CartPole-v1_1 --mode planner")
    parser.add_argument("model", type=str, help="run folder or model file")
    parser.add_argument("--mode", type=str, default="auto", help="who acts: auto, planner, actor, every_4, ...")
    parser.add_argument("--episodes", type=PositiveInt, default=1, help="episodes to record")
    parser.add_argument("--seed", type=SEED, default=1_000, help="seed of the first episode")
    parser.add_argument("--env", type=str, help="another environment than the one trained on")
    parser.add_argument("--env-kwargs", type=dict[str, Any], help="arguments of the environment, key:value ...")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda or auto")
    parser.add_argument("--output", type=str, help="folder of the videos; 'videos_<n>' beside the model by default")
    parser.add_argument("--planner", type=PlannerConfig, default=PlannerConfig())
    return parser


def run(argv: Sequence[str]) -> int:
    """Load, play, record, and say where the files are."""
    options = build_parser().parse(argv)
    headless()
    path = find_model(options.model)
    check_mode(options.mode)
    check_device(options.device)
    env_id, env_kwargs = env_of(path, options.env, options.env_kwargs)
    env = make_env(env_id, env_kwargs, render_mode="rgb_array")
    model = load_model(path, env, options.device)
    choose_planner(model, options.planner)
    model.set_mode(options.mode)
    folder = numbered_folder(path.parent, "videos") if options.output is None else Path(options.output)
    fresh_folder(folder)
    warnings.filterwarnings("ignore", module="gymnasium")
    logging.getLogger("moviepy").setLevel(logging.ERROR)
    try:
        film = RecordVideo(
            SeededEpisodes(bounded(env), options.seed),
            str(folder),
            episode_trigger=lambda k: k < options.episodes,
            name_prefix=options.mode,
            disable_logger=True,
        )
    except (OSError, gym.error.Error, ValueError) as error:
        raise UsageError(f"cannot record {env_id}: {error}") from error
    with progress(options.mode, options.episodes) as advance:
        returns, _ = evaluate_policy(model, Monitor(film), options.episodes, return_episode_rewards=True, callback=advance)
    film.close()
    for k in range(options.episodes):
        say(str(folder / f"{options.mode}-episode-{k}.mp4"))
    say(f"mean return {np.mean(returns):.1f} over {options.episodes} episode(s)")
    return 0
