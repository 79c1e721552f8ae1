"""Films of episodes: each frame says which step it is, who acts, and the return so far."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from jepa_agent.pictures.episode import play
from jepa_agent.policy import JEPAPolicy
from jepa_agent.types import Decision

BAR = 28  # pixels above each frame; even, as video codecs need it


class Captioned(gym.Wrapper):
    """Writes a line above every frame that is rendered: the step, who acts, and the return so far.

    Args:
        env: Environment with ``render_mode="rgb_array"``.

    Attributes:
        acts: Who acts; set by whoever plays, before each step.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.acts, self._step, self._return = "", 0, 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Of the episode.
            options: Passed on to the environment.
        """
        self._step, self._return = 0, 0.0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step and count it.

        Args:
            action: Passed on to the environment.
        """
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._step, self._return = self._step + 1, self._return + float(reward)
        return obs, reward, terminated, truncated, info

    @property
    def caption(self) -> str:
        """What is written above the present frame."""
        said = f"step {self._step:,}   return {self._return:,.1f}"
        return f"{said}   {self.acts}" if self.acts else said

    def render(self) -> Any:
        """Return the frame ``(H + BAR, W, 3)``, a line of text above the environment's own."""
        return captioned(np.asarray(self.env.render()), self.caption)


def captioned(frame: np.ndarray, text: str) -> np.ndarray:
    """Return a frame ``(H, W, 3)`` below a bar of `BAR` rows that holds the text."""
    from PIL import Image, ImageDraw, ImageFont

    bar = Image.new("RGB", (frame.shape[1], BAR), "black")
    draw = ImageDraw.Draw(bar)
    size = 16.0
    # Small frames get small letters, so that the line fits as long as it can be read.
    while size > 7 and draw.textlength(text, ImageFont.load_default(size)) > frame.shape[1] - 12:
        size -= 1
    draw.text((6, BAR // 2), text, fill="white", font=ImageFont.load_default(size), anchor="lm")
    return np.concatenate([np.asarray(bar), frame[..., :3].astype(np.uint8)])


def play_episode(model: BaseAlgorithm, env: gym.Env, seed: int, film: Captioned | None = None) -> float:
    """Play one episode deterministically.

    Args:
        model: A `JEPA`, which acts by its mode, or any other agent of SB3's.
        env: Environment that fits the agent.
        seed: Seed of the episode.
        film: Told who acts at each step of a `JEPA`.

    Returns:
        The episode's return.
    """
    if film is not None:
        film.acts = ""
    if not isinstance(model.policy, JEPAPolicy):
        return sum(_rewards(model, env, seed))

    def tell(decision: Decision) -> None:
        """Say which mode acts at the step that is about to be taken."""
        if film is not None:
            film.acts = "Mode-2: planner" if decision.planned[0] else "Mode-1: actor"

    return sum(step.reward for step in play(model.policy, env, seed, on_decision=tell))


def _rewards(model: BaseAlgorithm, env: gym.Env, seed: int) -> Iterator[float]:
    """Play an episode by ``predict`` and yield its rewards."""
    normalizer = model.get_vec_normalize_env()
    obs, _ = env.reset(seed=seed)
    state, start, over = None, np.ones(1, dtype=bool), False
    while not over:
        seen = obs if normalizer is None else normalizer.normalize_obs(obs)
        action, state = model.predict(seen, state, start, deterministic=True)
        obs, reward, terminated, truncated, _ = env.step(action)
        start, over = np.zeros(1, dtype=bool), terminated or truncated
        yield float(reward)


def worth_watching(returns: dict[int, float], count: int) -> list[int]:
    """Choose typical episodes: those whose returns are nearest to the median of all, which neither flatter nor shame.

    Args:
        returns: By seed, of the episodes tried.
        count: How many to choose, at most as many as were tried.

    Returns:
        Seeds, the most typical first; of equals the smaller.
    """
    middle = float(np.median(list(returns.values())))
    return sorted(returns, key=lambda seed: (abs(returns[seed] - middle), seed))[:count]
