"""Callbacks: diagnostics and pictures for the log, periodic checkpoints, and evaluation for runs that are resumed."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, EventCallback
from stable_baselines3.common.logger import Image
from stable_baselines3.common.vec_env import VecEnv

from jepa_agent.acting.mode_switch import ModeSwitch, make_mode_switch
from jepa_agent.environments.guards import guard_environments, seed_env
from jepa_agent.learning.watch import LatentCallback as LatentCallback
from jepa_agent.persistence.archive import replacing
from jepa_agent.persistence.logs import tensorboard_of, write_events
from jepa_agent.persistence.plain_data import read_npz
from jepa_agent.pictures.episode import explain
from jepa_agent.pictures.explanation import draw_explanation
from jepa_agent.pictures.looks import as_pixels
from jepa_agent.pictures.plane import draw_latents
from jepa_agent.policy import JEPAPolicy


def _agent(callback: BaseCallback) -> Any:
    """Return the agent of a callback; raise ``ValueError`` if it is not a JEPA agent."""
    if not isinstance(callback.model.policy, JEPAPolicy):
        raise ValueError(f"{type(callback).__name__} is for JEPA, got {type(callback.model).__name__}")
    return callback.model


class MediaCallback(BaseCallback):
    """Draws one episode and the latents of recent experience for TensorBoard's images, each time it is called.

    ``media/episode`` shows, step by step, who acted, what plans promised, predicted and realised costs, and imagined beside
    observed latents, as ``jepa-agent explain`` does. ``media/latents`` is a map of recent latents along their two principal
    axes, coloured by cost and by time. Nothing is drawn from the agent's generators: training is the same without it.
    Called every 1,000 steps it takes 7 to 9 % of the CPU time of training on CartPole-v1 and Pendulum-v1.

    It is called by another callback: ``EvalCallback(..., callback_after_eval=MediaCallback(env))`` or
    ``EveryNTimesteps(5_000, MediaCallback(env))``.

    Args:
        env: An environment of its own, made by `gymnasium.make`; the caller closes it.
        seed: Seed of the episode, the same each time.
        max_steps: Steps of the episode that are played and drawn at most.
        points: Latents on the map at most.
        recent: Latest steps of each environment from which these are taken, evenly.

    Raises:
        ValueError: At the start of training: no other callback calls it, matplotlib is missing, or the agent is not a JEPA
            agent.
    """

    def __init__(self, env: gym.Env, seed: int = 0, max_steps: int = 200, points: int = 500, recent: int = 2_000):
        super().__init__()
        self.env, self.seed, self.max_steps, self.points, self.recent = env, seed, max_steps, points, recent

    def _init_callback(self) -> None:
        """Refuse what would fail, or draw at every step, in the middle of training."""
        _agent(self)
        if not isinstance(self.parent, EventCallback):
            raise ValueError(
                "MediaCallback draws each time it is called: give it to EvalCallback(callback_after_eval=...) or "
                "EveryNTimesteps(n_steps, ...), not to learn() itself"
            )
        if importlib.util.find_spec("matplotlib") is None:
            raise ValueError("MediaCallback draws with matplotlib, which is not installed: pip install matplotlib")

    def _on_training_start(self) -> None:
        """Warn if there is nowhere to write."""
        if not tensorboard_of(self.logger):
            warnings.warn("MediaCallback has no TensorBoard log to write to: give the agent tensorboard_log", stacklevel=2)

    def _on_step(self) -> bool:
        """Draw and write the pictures, if there is a TensorBoard log."""
        if not tensorboard_of(self.logger):
            return True
        model = _agent(self)
        norm = model.get_vec_normalize_env()
        mode = model.mode if isinstance(model.mode, str) else type(model.policy.mode_switch).__name__
        normalise = None if norm is None else norm.normalize_obs
        told = explain(model.policy, self.env, mode, self.seed, normalise, self.max_steps)
        figures = {"media/episode": draw_explanation(told)}
        latents, cost, age = self._recent_latents(model)
        if len(latents) > 1:
            figures["media/latents"] = draw_latents(latents, cost, age)
        images = {tag: Image(as_pixels(figure, dpi=80), "HWC") for tag, figure in figures.items()}
        write_events(self.logger, images, self.num_timesteps)
        return True

    def _recent_latents(self, model: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return latents ``(N, D)`` of recent steps, their costs ``(N,)``, and how many steps ago they were ``(N,)``."""
        size, n_envs = model.replay_buffer.size(), model.n_envs
        count = min(self.points, size * n_envs)
        places = np.linspace(0, min(size, self.recent) * n_envs - 1, count).astype(int)  # 0 is the latest
        back, envs = np.divmod(places, n_envs)
        memory = model.world_model.past_size
        batch = model.replay_buffer.window(size - 1 - back, envs, 1, model.get_vec_normalize_env(), memory)
        with torch.no_grad():
            latents = model.world_model.observe(batch, 0, 1)[:, 0]
        kept = batch.mask[:, 0].numpy(force=True) > 0
        return latents.numpy(force=True)[kept], batch.cost[:, 0].numpy(force=True)[kept], (back * n_envs)[kept]


class PeriodicCheckpoint(BaseCallback):
    """Saves the whole run by `JEPA.save_checkpoint` at regular intervals, between rollouts.

    A checkpoint that cannot be written is warned about, and training continues.

    Args:
        folder: The folder of checkpoints.
        save_freq: Environment steps between two checkpoints.
        keep_last: Number of checkpoints to keep.
        logs: Files that grow with the run, whose sizes each checkpoint records.

    Raises:
        ValueError: ``save_freq`` is below 1; at the first rollout also if the agent is not a JEPA agent.
    """

    def __init__(self, folder: str | Path, save_freq: int, keep_last: int = 1, logs: Iterable[Path] = ()):
        super().__init__()
        if save_freq < 1:
            raise ValueError(f"save_freq must be at least 1, got {save_freq}")
        self.folder, self.save_freq, self.keep_last, self.logs = Path(folder), save_freq, keep_last, tuple(logs)
        self._saved = 0

    def _on_training_start(self) -> None:
        """Count from the present step."""
        self._saved = self.num_timesteps

    def _on_rollout_start(self) -> None:
        """Save a checkpoint if a multiple of ``save_freq`` has been passed since the last one."""
        model = _agent(self)
        # By multiples, since a rollout may take more than one step at a time; a resumed run saves at the same steps.
        if model.num_timesteps // self.save_freq > self._saved // self.save_freq:
            self._saved = model.num_timesteps
            try:
                model.save_checkpoint(self.folder, self.keep_last, self.logs)
            except Exception as error:  # such as a full disk, a missing folder, no memory: the next save may succeed
                warnings.warn(f"no checkpoint at step {self._saved}: {error}; training goes on", stacklevel=2)

    def _on_step(self) -> bool:
        return True


class ResumableEvalCallback(EvalCallback):
    """SB3's evaluation callback for runs that may be stopped and resumed.

    Every evaluation plays the same episodes, which begin from ``seed``. ``evaluations.npz`` is replaced atomically; a
    resumed run reads it, drops what was evaluated after its checkpoint, and appends to it. ``best_model.zip`` holds the best
    agent so far. A file that cannot be written is warned about and tried again at the next evaluation.

    Args:
        eval_env: The environments to evaluate in.
        seed: Seed of every evaluation.
        log_path: The folder of ``evaluations.npz`` and ``best_model.zip``.
        eval_freq: Steps of the vectorised environments between two evaluations, at least 1.
        n_eval_episodes: Episodes per evaluation.
        mode: Who acts in evaluations, as for `JEPA.set_mode`; None is who acts while collecting.
        verbose: SB3's verbosity: 1 prints each result.
        callback_after_eval: Called after each evaluation, as `MediaCallback`.
    """

    def __init__(
        self,
        eval_env: VecEnv,
        seed: int,
        log_path: str,
        eval_freq: int,
        n_eval_episodes: int,
        mode: str | ModeSwitch | None = None,
        verbose: int = 0,
        callback_after_eval: BaseCallback | None = None,
    ):
        # SB3 gets no path: its writes would end the training if they failed.
        if eval_freq < 1:
            raise ValueError(f"eval_freq must be at least 1, got {eval_freq}; to evaluate never, leave the callback out")
        super().__init__(
            eval_env,
            callback_after_eval=callback_after_eval,
            n_eval_episodes=n_eval_episodes,
            eval_freq=eval_freq,
            verbose=verbose,
        )
        self.seed, self.mode = seed, None if mode is None else make_mode_switch(mode)
        self._evaluations_file, self._best = Path(log_path) / "evaluations.npz", Path(log_path) / "best_model.zip"
        self._failing: set[Path] = set()

    def _init_callback(self) -> None:
        """Install the checks of the environments, and read earlier evaluations if the run is resumed."""
        super()._init_callback()
        guard_environments(self.eval_env)
        # As if the run had never stopped, so that evaluations fall on the same steps.
        self.n_calls = self.model.num_timesteps // self.model.n_envs
        if self.n_calls and self._evaluations_file.is_file():
            self._read_earlier()

    def _read_earlier(self) -> None:
        """Read the evaluations up to the present step; warn if the file is damaged."""
        try:
            log = read_npz(self._evaluations_file)
            # The set includes the two names that must exist: a missing one raises KeyError.
            if any(len(log[name]) != len(log["timesteps"]) for name in {*log, "results", "ep_lengths"}):
                raise ValueError("its columns are of different lengths")
            kept = log["timesteps"] <= self.model.num_timesteps
            found = {name: column[kept].tolist() for name, column in log.items()}
            means = [float(np.mean(results)) for results in found["results"]]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            warnings.warn(f"earlier evaluations are lost: {self._evaluations_file}: {error}", stacklevel=2)
            return
        self.evaluations_timesteps, self.evaluations_results = found["timesteps"], found["results"]
        self.evaluations_length, self.evaluations_successes = found["ep_lengths"], found.get("successes", [])
        self.last_mean_reward = (means or [-np.inf])[-1]
        # Without the file the next evaluation is the best one so far, and writes it.
        if self._best.is_file():
            self.best_mean_reward = max(means, default=-np.inf)

    def _log_success_callback(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        """Keep returns and lengths, to which SB3 gives no other access; called at each step of an evaluation."""
        super()._log_success_callback(locals_, globals_)
        self._returns, self._lengths = locals_["episode_rewards"], locals_["episode_lengths"]

    def _on_step(self) -> bool:
        """Evaluate if it is due, and write the results."""
        if self.n_calls % self.eval_freq:
            return True
        # Seeds take effect at the next reset, with which `evaluate_policy` begins.
        seed_env(self.eval_env, self.seed)
        best = self.best_mean_reward
        policy = _agent(self).policy
        collecting, policy.mode_switch = policy.mode_switch, self.mode or policy.mode_switch
        try:
            going_on = super()._on_step()
        finally:
            policy.mode_switch = collecting
        if self.best_mean_reward > best and not self._try_write(self._best, self.model.save):
            self.best_mean_reward = best  # the value of the agent in the file, which was not replaced
        self.evaluations_timesteps.append(self.num_timesteps)
        self.evaluations_results.append(self._returns)
        self.evaluations_length.append(self._lengths)
        if self._is_success_buffer:
            self.evaluations_successes.append(self._is_success_buffer)
        self._try_write(self._evaluations_file, self._write)
        return going_on

    def _write(self, path: Path) -> None:
        """Write all evaluations to a file."""
        columns: dict[str, Any] = {
            "timesteps": self.evaluations_timesteps,
            "results": self.evaluations_results,
            "ep_lengths": self.evaluations_length,
        }
        if self.evaluations_successes:
            columns["successes"] = self.evaluations_successes
        with replacing(path) as file:
            np.savez(file, **columns)

    def _try_write(self, path: Path, write: Callable[[Path], None]) -> bool:
        """Write a file and return whether that succeeded; warn about the first failure in a row."""
        try:
            write(path)
            self._failing.discard(path)
        except Exception as error:
            if path not in self._failing:
                warnings.warn(f"{path.name} is no longer written: {error}; training goes on", stacklevel=2)
            self._failing.add(path)
        return path not in self._failing
