"""Evaluations of ``jepa-agent train``, told on the terminal."""

from __future__ import annotations

import time

import numpy as np

from jepa_agent.callbacks import ResumableEvalCallback
from jepa_agent.cli.common import say


class ToldEvaluation(ResumableEvalCallback):
    """Evaluations that print a line each.

    Attributes:
        means: Mean return of each evaluation by its step, of earlier parts of the run, too.
    """

    def _init_callback(self) -> None:
        super()._init_callback()
        self._spent = -time.process_time()
        self.means = dict(
            zip(self.evaluations_timesteps, [float(np.mean(found)) for found in self.evaluations_results], strict=True)
        )

    def _on_step(self) -> bool:
        began, best = time.process_time(), self.best_mean_reward
        going_on = super()._on_step()
        if self.evaluations_timesteps and self.evaluations_timesteps[-1] == self.num_timesteps not in self.means:
            mean, std = float(np.mean(self.evaluations_results[-1])), float(np.std(self.evaluations_results[-1]))
            self.means[self.num_timesteps] = mean
            self._spent -= time.process_time() - began
            seconds = self._spent + time.process_time()
            told = "best" if mean > best else ""
            say(f"step {self.num_timesteps:>9,}  eval {mean:>9.1f} +- {std:<7.1f} {told:<4} {seconds:>7.0f} CPU s")
        return going_on

    def summary(self) -> str:
        """The best evaluation and the last, in a line."""
        best, last = max(self.means, key=lambda step: self.means[step]), max(self.means)
        seconds = self._spent + time.process_time()
        return f"best {self.means[best]:.1f} at step {best:,}, last {self.means[last]:.1f}; {seconds:.0f} CPU s of training"
