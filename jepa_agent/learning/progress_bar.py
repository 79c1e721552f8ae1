"""SB3's progress bar, which says why it runs ahead at first and then stands still."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.callbacks import ProgressBarCallback


class PhasedProgressBar(ProgressBarCallback):
    """Says ``random steps`` while these are taken, and how many updates are made at once after them.

    The bar counts environment steps, of which random ones cost next to nothing: the time that it gives until then holds for
    these alone.
    """

    model: Any
    _said = ""

    def _on_rollout_start(self) -> None:
        self._say("random steps" if self.model._acts_at_random(self.model.learning_starts) else "")

    def _on_rollout_end(self) -> None:
        if self.model._updates_owed and self.num_timesteps > self.model.learning_starts:
            self._say(f"{self.model._updates_owed:,} updates")

    def _say(self, what: str) -> None:
        """Write what goes on before the bar, if it has changed."""
        if what != self._said:
            self.pbar.set_description(what)
            self._said = what
