"""Do plans keep what they promise? Whole episodes with plans are held against episodes of the actor alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_FADING = 0.8  # a pair of episodes counts as much as this, in powers, for every pair after it
_RISE, _FALL, _MOST = 1.5, 1.1, 100.0


class Trials:
    """In every environment the actor plays each second episode alone, once there has been time to learn something.

    No prediction has a say in what comes of it: a plan that exploits what the model or all its judges get wrong promises
    much and returns little.
    """

    def __init__(self, n_envs: int):
        self.alone = torch.zeros(n_envs, dtype=torch.bool)  # whether this episode is the actor's,
        self.returned = torch.zeros(n_envs, dtype=torch.float64)  # what it has returned so far,
        self.risked = torch.zeros(n_envs, dtype=torch.bool)  # and whether a plan was executed in it
        self.was_alone, self.had_risked = self.alone.clone(), self.risked.clone()  # the same of the one before,
        self.had_returned = torch.full_like(self.returned, torch.nan)  # if there is one
        self.lead = torch.full((), torch.nan, dtype=torch.float64)  # of plans over the actor of late, if there is one

    def cut(self) -> None:
        """Forget the episodes under way, which will not be ended, and those before them: the next have no neighbour."""
        self.returned.zero_()
        self.risked.zero_()
        self.had_returned.fill_(torch.nan)

    def step(self, reward: np.ndarray, over: np.ndarray, executed: np.ndarray, due: bool) -> list[bool]:
        """Take in a step of every environment, ``(n_envs,)`` each: its reward, whether its episode is over, whether a plan
        was executed that the actor would not have had.

        Returns, for every pair of neighbouring episodes that is complete with this step, whether plans harm: whether of late
        episodes with plans returned less than the actor's beside them, in the mean. Where none was executed after all, they
        did not. ``due``: whether the actor is to play alone.
        """
        harms = []
        self.returned += torch.as_tensor(reward, dtype=torch.float64)
        self.risked |= torch.as_tensor(executed, dtype=torch.bool)
        for i in np.flatnonzero(over).tolist():
            alone, more = bool(self.alone[i]), self.returned[i] - self.had_returned[i]
            if alone != bool(self.was_alone[i]) and not more.isnan():
                risked = bool(self.had_risked[i] if alone else self.risked[i])
                harms.append(risked and self._falls_behind(-more if alone else more))
            self.was_alone[i], self.had_risked[i], self.had_returned[i] = alone, self.risked[i], self.returned[i]
            self.alone[i], self.risked[i], self.returned[i] = due and not alone, False, 0.0
        return harms

    def _falls_behind(self, lead: Tensor) -> bool:
        self.lead = lead if self.lead.isnan() else self.lead.lerp(lead, 1.0 - _FADING)
        return bool(self.lead < 0.0)

    def state_dict(self) -> dict[str, Tensor]:
        """Where it has come to: ``(n_envs,)`` each, and the lead ``()``."""
        return {name: value.clone() for name, value in vars(self).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        for name, value in state.items():
            setattr(self, name, value.clone())


def caution_after(caution: Tensor, harms: list[bool]) -> Tensor:
    """How many standard deviations better than the actor's own a plan must be, 0 if as many as without any experience: a
    staircase (Kaernbach, 1991, "Simple adaptive testing with the weighted up-down method") that rises while plans harm and
    falls while they do not."""
    for harm in harms:
        caution = caution.clamp(min=1.0) * _RISE if harm else caution / _FALL
        caution = torch.where(caution > 1.0, caution, 0.0).clamp(max=_MOST)
    return caution
