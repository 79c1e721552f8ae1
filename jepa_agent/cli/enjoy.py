"""``jepa-agent enjoy``."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import RecordVideo
from jsonargparse.typing import PositiveInt
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from jepa_agent.cli import trained
from jepa_agent.cli.common import (
    SEED,
    Parser,
    UsageError,
    fresh_folder,
    headless,
    modes_help,
    numbered_folder,
    progress,
    say,
)
from jepa_agent.experiments.evaluation import SeededEpisodes, bounded
from jepa_agent.extras import EXTRAS, needs


def build_parser() -> Parser:
    """The verb's flags."""
    parser = Parser("enjoy", "Record an mp4 of a trained agent.", "jepa-agent enjoy runs/jepa/CartPole-v1_1 --mode planner")
    trained.add_arguments(parser)
    parser.add_argument("--mode", type=str, default="auto", help=f"who acts: {modes_help()}")
    parser.add_argument("--episodes", type=PositiveInt, default=1, help="episodes to record")
    parser.add_argument("--seed", type=SEED, default=1_000, help="seed of the first episode")
    parser.add_argument("--output", type=str, help="folder of the videos; 'videos_<n>' beside the model by default")
    return parser


def run(argv: Sequence[str]) -> int:
    """Load, play, record, and say where the files are."""
    options = trained.parse(build_parser(), argv)
    headless()
    with needs("video"):  # before anything is loaded
        for module in EXTRAS["video"]:
            import_module(module)
    agent = trained.load(options, render_mode="rgb_array")
    trained.check_modes(agent, options.mode)
    with closing(agent.env):
        model = agent.model
        model.set_mode(options.mode)
        folder = numbered_folder(agent.path.parent, "videos") if options.output is None else Path(options.output)
        fresh_folder(folder)
        warnings.filterwarnings("ignore", module="gymnasium")
        logging.getLogger("moviepy").setLevel(logging.ERROR)
        try:
            film = RecordVideo(
                SeededEpisodes(bounded(agent.env), options.seed),
                str(folder),
                episode_trigger=lambda k: k < options.episodes,
                name_prefix=options.mode,
                disable_logger=True,
            )
        except (OSError, gym.error.Error, ValueError) as error:
            raise UsageError(f"cannot record {agent.env_id}: {error}") from error
        with trained.playing(agent), closing(film), progress(options.mode, options.episodes) as advance:
            returns, _ = evaluate_policy(
                model, Monitor(film), options.episodes, return_episode_rewards=True, callback=advance
            )
    for k in range(options.episodes):
        say(str(folder / f"{options.mode}-episode-{k}.mp4"))
    say(f"mean return {np.mean(returns):.1f} over {options.episodes} episode(s)")
    return 0
