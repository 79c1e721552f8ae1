"""Evaluations of ``jepa-agent train``, told on the terminal."""

from __future__ import annotations

import time

import numpy as np

from jepa_agent.agent import JEPA
from jepa_agent.callbacks import ResumableEvalCallback
from jepa_agent.cli.common import say


class ToldEvaluation(ResumableEvalCallback):
    """Evaluations that print a line each, with the CPU seconds of training, which the agent keeps for when it is resumed.

    Attributes:
        means: Mean return of each evaluation by its step, of earlier parts of the run, too.
    """

    model: JEPA

    def _init_callback(self) -> None:
        super()._init_callback()
        # In a process that resumes a run, its clock begins where the checkpoint left it.
        self._offset = (self.model._cpu_seconds if self.model.num_timesteps else 0.0) - time.process_time()
        self.means = dict(
            zip(self.evaluations_timesteps, [float(np.mean(found)) for found in self.evaluations_results], strict=True)
        )

    def _on_step(self) -> bool:
        began, best = time.process_time(), self.best_mean_reward
        going_on = super()._on_step()
        if self.evaluations_timesteps and self.evaluations_timesteps[-1] == self.num_timesteps not in self.means:
            mean, std = float(np.mean(self.evaluations_results[-1])), float(np.std(self.evaluations_results[-1]))
            self.means[self.num_timesteps] = mean
            self._offset -= time.process_time() - began
            told = "best" if mean > best else ""
            say(f"step {self.num_timesteps:>9,}  eval {mean:>9.1f} +- {std:<7.1f} {told:<4} {self._seconds():>7.0f} CPU s")
        return going_on

    def _on_rollout_start(self) -> None:
        self._seconds()  # which a checkpoint may be about to save

    def _seconds(self) -> float:
        """CPU seconds of training so far, evaluations left out; noted in the agent, with which they are saved."""
        self.model._cpu_seconds = self._offset + time.process_time()
        return self.model._cpu_seconds

    def summary(self) -> str:
        """The best evaluation and the last, in a line."""
        best, last = max(self.means, key=lambda step: self.means[step]), max(self.means)
        told = f"best {self.means[best]:.1f} at step {best:,}, last {self.means[last]:.1f}"
        return f"{told}; {self._seconds():.0f} CPU s of training"
