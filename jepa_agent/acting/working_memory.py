"""What both modes need to remember, one fixed-size record per environment."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jepa_agent.types import Past

PackedMemory = tuple[np.ndarray, ...]
_FORGETTING = 0.5  # share of the newest gain in the recent one


class Control(NamedTuple):
    """What a mode switch has set for itself; zero when an episode begins."""

    threshold: Tensor  # (B,) that the score of a step must pass
    mean_score: Tensor  # (B,) running mean of the scores


class WorkingMemory(NamedTuple):
    """The last step, the last plan, and what searching has cost and brought. Every method returns a new record; none is
    changed in place. Packs to the tuple of numpy arrays (env axis first) that travels through ``predict(state=...)``."""

    latent: Tensor  # (B, D) observed at the last step: what is expected next is predicted from it
    action: Tensor  # (B, A) executed there
    plan: Tensor  # (B, H, A) last plan, its first action still to be dropped
    ahead: Tensor  # (B,) how many more of the plan's actions are to be executed before the next search
    searches: Tensor  # (B,) made since the episode began
    milliseconds: Tensor  # (B,) they took, where the mode switch looks at the clock
    recent_gain: Tensor  # (B,) what the latest searches gained, in the units of -reward: a mean that forgets
    threshold: Tensor  # (B,) `Control` of the mode switch
    mean_score: Tensor  # (B,)
    notes: Tensor  # (B, M, F) what the memory network is told of each step; (B, 0, 0) without one
    steps: Tensor  # (B,) since the episode began

    @classmethod
    def empty(
        cls, batch: int, latent_dim: int, action_dim: int, horizon: int, notes: tuple[int, int] = (0, 0)
    ) -> WorkingMemory:
        """A memory of nothing.

        Args:
            batch: Number B of environments.
            latent_dim: Size D of the latent.
            action_dim: Size A of the action.
            horizon: Length H of a plan.
            notes: Number and width of the memory network's notes.
        """
        none, zero = torch.zeros(batch, dtype=torch.int64), torch.zeros(batch)
        return cls(
            latent=torch.zeros(batch, latent_dim),
            action=torch.zeros(batch, action_dim),
            plan=torch.zeros(batch, horizon, action_dim),
            ahead=none,
            searches=zero,
            milliseconds=zero,
            recent_gain=zero,
            threshold=zero,
            mean_score=zero,
            notes=torch.zeros(batch, *notes),
            steps=none,
        )

    @property
    def control(self) -> Control:
        """What the mode switch has set for itself."""
        return Control(self.threshold, self.mean_score)

    @property
    def is_finite(self) -> bool:
        """Whether all that is remembered are finite numbers."""
        return all(bool(field.isfinite().all()) for field in self)

    @classmethod
    def unpack(cls, state: PackedMemory, like: WorkingMemory) -> WorkingMemory:
        """Read a packed state, copying it.

        Args:
            state: What `pack` returned.
            like: A memory of the form that is expected.

        Raises:
            ValueError: Arrays of other shapes.
        """
        wanted = [tuple(field.shape) for field in like]
        given = [np.shape(array) for array in state] if isinstance(state, tuple) else type(state).__name__
        if given != wanted:
            raise ValueError(
                f"state holds arrays of shape {given}, but this policy for {len(like.steps)} env(s) needs {wanted}; "
                "pass the state that the last predict() returned, or None to start afresh"
            )
        return cls(*(torch.tensor(a, dtype=f.dtype) for a, f in zip(state, like, strict=True)))

    def pack(self) -> PackedMemory:
        """As numpy arrays, env axis first."""
        return tuple(field.cpu().numpy() for field in self)

    def to(self, device: torch.device) -> WorkingMemory:
        """On another device."""
        return WorkingMemory(*(field.to(device) for field in self))

    def take(self, rows: Tensor) -> WorkingMemory:
        """The environments at the indices ``rows``."""
        return WorkingMemory(*(field[rows] for field in self))

    def clear(self, rows: Tensor) -> WorkingMemory:
        """Forget the environments where ``rows`` ``(B,)`` is true: a new episode began there."""
        return WorkingMemory(*(field.masked_fill(rows.view(-1, *[1] * (field.dim() - 1)), 0) for field in self))

    def surprise(self, z: Tensor, expected: Tensor) -> Tensor:
        """Root-mean-square distance of the observed from the expected latent.

        Args:
            z: Observed latents ``(B, D)``.
            expected: Those predicted at the step before, ``(B, D)``.

        Returns:
            Distances ``(B,)``; 0 at an episode's start.
        """
        return (z - expected).square().mean(-1).sqrt() * (self.steps > 0)

    def warm_start(self) -> Tensor:
        """The last plan without its executed action, its last action held: ``(B, H, A)``."""
        return torch.cat([self.plan[:, 1:], self.plan[:, -1:]], dim=1)

    def searched(self, rows: Tensor, milliseconds: Tensor, gain: Tensor, control: Control) -> WorkingMemory:
        """Record the searches of a step.

        Args:
            rows: Where one was made, bool ``(B,)``.
            milliseconds: How long each took, ``(B,)``.
            gain: What each gained, ``(B,)`` in the units of -reward.
            control: Settings of the mode switch for the next step.
        """
        gain = gain.to(self.recent_gain)
        return self._replace(
            searches=self.searches + rows,
            milliseconds=self.milliseconds + milliseconds,
            recent_gain=torch.where(rows, self.recent_gain.lerp(gain, _FORGETTING), self.recent_gain),
            threshold=control.threshold.to(self.threshold),
            mean_score=control.mean_score.to(self.mean_score),
        )

    def past(self) -> Past:
        """The notes, and which of them were taken in this episode."""
        # Notes of earlier episodes were cleared to zero, which is no note: they are masked.
        ago = torch.arange(self.notes.shape[1], device=self.steps.device)
        return Past(self.notes, (ago < self.steps.unsqueeze(1)).float())

    def note(self, newest: Tensor) -> WorkingMemory:
        """Take one more note ``(B, F)``; the oldest is forgotten."""
        return self._replace(notes=torch.cat([newest.unsqueeze(1), self.notes[:, :-1]], dim=1))

    def remember(self, z: Tensor, action: Tensor, plan: Tensor, ahead: Tensor) -> WorkingMemory:
        """Record one step.

        Args:
            z: Latents ``(B, D)``.
            action: Actions executed, ``(B, A)``.
            plan: The last plan, ``(B, H, A)``.
            ahead: How many more of its actions are to be executed, ``(B,)``.
        """
        z, action = z.to(self.latent), action.to(self.action)  # autocast halves what is computed, not what is kept
        return self._replace(latent=z, action=action, plan=plan, ahead=ahead, steps=self.steps + 1)
