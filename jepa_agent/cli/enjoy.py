"""``jepa-agent enjoy``."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import RecordVideo
from jsonargparse.typing import PositiveInt
from stable_baselines3.common.base_class import BaseAlgorithm

from jepa_agent.agent import JEPA
from jepa_agent.cli import trained
from jepa_agent.cli.common import (
    SEED,
    Parser,
    UsageError,
    fresh_folder,
    headless,
    modes_help,
    numbered_folder,
    say,
)
from jepa_agent.cli.film import Captioned, play_episode, worth_watching
from jepa_agent.experiments.evaluation import bounded
from jepa_agent.extras import EXTRAS, needs

_FIRST_SEED, _TRIED = 1_000, 5


def build_parser() -> Parser:
    """The verb's flags."""
    parser = Parser("enjoy", "Record an mp4 of a trained agent.", "jepa-agent enjoy runs/jepa/CartPole-v1_1 --mode planner")
    trained.add_arguments(parser)
    parser.add_argument("--mode", type=str, default="auto", help=f"who acts, for an agent of JEPA: {modes_help()}")
    parser.add_argument("--episodes", type=PositiveInt, default=1, help="episodes to record")
    parser.add_argument(
        "--seed",
        type=SEED,
        help=f"seed of the first episode; by default, of seeds {_FIRST_SEED} to {_FIRST_SEED + _TRIED - 1} (or as "
        "many as --episodes says, if more) the ones whose return is nearest to their median",
    )
    parser.add_argument("--output", type=str, help="folder of the videos; 'videos_<n>' beside the model by default")
    return parser


def run(argv: Sequence[str]) -> int:
    """Load, play, record, and say where the files are."""
    options = trained.parse(build_parser(), argv)
    headless()
    with needs("video"):  # before anything is loaded
        for module in EXTRAS["video"]:
            import_module(module)
    agent = trained.load_any(options, render_mode="rgb_array")
    name = "policy"
    if isinstance(agent.model, JEPA):
        trained.check_modes(agent, options.mode)
        agent.model.set_mode(options.mode)
        name = options.mode
    with closing(agent.env):
        folder = numbered_folder(agent.path.parent, "videos") if options.output is None else Path(options.output)
        fresh_folder(folder)
        warnings.filterwarnings("ignore", module="gymnasium")
        logging.getLogger("moviepy").setLevel(logging.ERROR)
        shown = Captioned(bounded(agent.env))
        try:
            film = RecordVideo(
                shown, str(folder), episode_trigger=lambda episode: True, name_prefix=name, disable_logger=True
            )
        except (OSError, gym.error.Error, ValueError) as error:
            raise UsageError(f"cannot record {agent.env_id}: {error}") from error
        with trained.playing(agent), closing(film):
            seeds = choose(agent.model, shown, options)
            returns = [play_episode(agent.model, film, seed, shown) for seed in seeds]
    for k, (seed, value) in enumerate(zip(seeds, returns, strict=True)):
        say(f"{folder / f'{name}-episode-{k}.mp4'}: seed {seed}, return {value:.1f}")
    say(f"mean return {np.mean(returns):.1f} over {options.episodes} episode(s)")
    return 0


def choose(model: BaseAlgorithm, env: gym.Env, options: Any) -> list[int]:
    """Seeds of the episodes to record: from the one given on, or else those that show best what the agent usually does.

    Args:
        model: The agent.
        env: To try episodes in, nothing of which is recorded.
        options: Parsed flags.
    """
    if options.seed is not None:
        return list(range(options.seed, options.seed + options.episodes))
    tried = range(_FIRST_SEED, _FIRST_SEED + max(_TRIED, options.episodes))
    returns = {seed: play_episode(model, env, seed) for seed in tried}
    seeds = worth_watching(returns, options.episodes)
    say(
        f"seeds {tried[0]} to {tried[-1]}: median return {np.median(list(returns.values())):.1f}, from "
        f"{min(returns.values()):.1f} to {max(returns.values()):.1f}; recording what is nearest to the median"
    )
    return seeds
