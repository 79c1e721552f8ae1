"""``jepa-agent enjoy``."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import RecordVideo
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from jepa_agent.cli import trained
from jepa_agent.cli.common import (
    UsageError,
    fresh_folder,
    headless,
    numbered_folder,
    progress,
    say,
)
from jepa_agent.cli.flags import parser_of
from jepa_agent.experiments.evaluation import SeededEpisodes, bounded


def run(argv: Sequence[str]) -> int:
    """Load, play, record, and say where the files are."""
    options = trained.parse(parser_of("enjoy"), argv)
    headless()
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
