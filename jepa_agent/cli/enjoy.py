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
from stable_baselines3.common.base_class import BaseAlgorithm

from jepa_agent.agent import JEPA
from jepa_agent.cli import trained
from jepa_agent.cli.common import (
    UsageError,
    fresh_folder,
    headless,
    numbered_folder,
    say,
)
from jepa_agent.cli.film import Captioned, play_episode, worth_watching
from jepa_agent.cli.flags import FIRST_SEED, TRIED, parser_of
from jepa_agent.experiments.evaluation import bounded
from jepa_agent.extras import EXTRAS, needs


def run(argv: Sequence[str]) -> int:
    """Load, play, record, and say where the files are."""
    options = trained.parse(parser_of("enjoy"), argv)
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
    tried = range(FIRST_SEED, FIRST_SEED + max(TRIED, options.episodes))
    returns = {seed: play_episode(model, env, seed) for seed in tried}
    seeds = worth_watching(returns, options.episodes)
    say(
        f"seeds {tried[0]} to {tried[-1]}: median return {np.median(list(returns.values())):.1f}, from "
        f"{min(returns.values()):.1f} to {max(returns.values()):.1f}; recording what is nearest to the median"
    )
    return seeds
