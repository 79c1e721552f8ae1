"""``jepa-agent evaluate``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from jepa_agent.agent import JEPA
from jepa_agent.cli import trained
from jepa_agent.cli.common import progress, say
from jepa_agent.cli.flags import parser_of
from jepa_agent.cli.tables import print_rows
from jepa_agent.experiments.evaluation import SeededEpisodes, bounded


def run(argv: Sequence[str]) -> int:
    """Load, evaluate in each mode on the same episodes, print the table."""
    options = trained.parse(parser_of("evaluate"), argv)
    agent = trained.load(options)
    trained.check_modes(agent, *options.modes)
    with trained.playing(agent):
        rows = evaluation(agent.model, agent.env, options.modes, options.episodes, options.seed)
    if options.format == "table":
        say(f"{agent.path}, saved at step {agent.model.num_timesteps:,}; {options.episodes} episodes, deterministic")
    print_rows(options.format, rows)
    return 0


class Timed:
    """An agent whose decisions are timed.

    Attributes:
        seconds: CPU time that they took, the environment's not counted.
    """

    def __init__(self, model: JEPA):
        self._model, self.seconds = model, 0.0

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """As the agent's own."""
        began = time.process_time()
        decided = self._model.predict(observation, state, episode_start, deterministic)
        self.seconds += time.process_time() - began
        return decided


def evaluation(model: JEPA, env: gym.Env, modes: Sequence[str], episodes: int, seed: int) -> list[dict[str, Any]]:
    """Return, length and time to decide of each mode over the same episodes.

    Args:
        model: The agent; its mode is changed.
        env: To play in.
        modes: Names of modes.
        episodes: Of each mode.
        seed: Of the first episode.

    Returns:
        A row per mode; times are CPU milliseconds per step, without the environment's.

    Raises:
        ValueError: An episode's return is not finite.
    """
    rows: list[dict[str, Any]] = []
    for mode in modes:
        model.set_mode(mode)
        monitored = Monitor(SeededEpisodes(bounded(env), seed))
        model.predict(env.observation_space.sample(), deterministic=True)  # torch's first call is slow; not to be timed
        timed = Timed(model)
        with progress(mode, episodes) as advance:
            returns, lengths = evaluate_policy(timed, monitored, episodes, return_episode_rewards=True, callback=advance)
        assert isinstance(lengths, list)
        if not np.isfinite(returns).all():
            raise ValueError(f"episode {int(np.isfinite(returns).argmin())} has a return that is not finite: {returns}")
        row = {
            "mode": {"actor": "actor (Mode-1)", "planner": "planner (Mode-2)"}.get(mode, mode),
            "mean return": round(float(np.mean(returns)), 1),
            "std": round(float(np.std(returns)), 1),
            "mean length": round(float(np.mean(lengths))),
            "ms to decide": round(1000 * timed.seconds / sum(lengths), 2),
        }
        rows.append(row)
    return rows
