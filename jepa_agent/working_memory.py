"""What both modes need to remember, one fixed-size record per environment."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jepa_agent.types import Past

PackedMemory = tuple[np.ndarray, ...]
_FORGETTING = 0.5  # share of the newest gain in the recent one


class WorkingMemory(NamedTuple):
    """The last K steps, newest first, and the last plan. Every method returns a new record; none is changed in place.

    Packs to the tuple of numpy arrays (env axis first) that travels through ``predict(state=...)``. The steps lie in one
    tensor, which makes remembering one operation.
    """

    trace: Tensor  # (B, K, D + A + 2) latent, action, cost and surprise of each step
    plan: Tensor  # (B, H, A) last plan, its first action still to be dropped
    ahead: Tensor  # (B,) how many more of the plan's actions are to be executed before the next search
    effort: Tensor  # (B, 5) what was spent on searches in this episode, what they brought, and how the switch is set
    notes: Tensor  # (B, M, F) what the memory network is told of each step; (B, 0, 0) without one
    steps: Tensor  # (B,) steps since the episode began

    @classmethod
    def empty(
        cls, batch: int, size: int, latent_dim: int, action_dim: int, horizon: int, notes: tuple[int, int] = (0, 0)
    ) -> WorkingMemory:
        """A memory of nothing, for ``batch`` environments; ``notes`` is how many of what width."""
        return cls(
            torch.zeros(batch, size, latent_dim + action_dim + 2),
            torch.zeros(batch, horizon, action_dim),
            torch.zeros(batch, dtype=torch.int64),
            torch.zeros(batch, 5),
            torch.zeros(batch, *notes),
            torch.zeros(batch, dtype=torch.int64),
        )

    @property
    def latents(self) -> Tensor:
        """Observed latents ``(B, K, D)``."""
        return self.trace[..., : -self.plan.shape[-1] - 2]

    @property
    def actions(self) -> Tensor:
        """Executed actions ``(B, K, A)``."""
        return self.trace[..., -self.plan.shape[-1] - 2 : -2]

    @property
    def costs(self) -> Tensor:
        """Immediate costs ``(B, K)`` as the cost module sees them; 0 where Mode-1 acted without looking."""
        return self.trace[..., -2]

    @property
    def surprises(self) -> Tensor:
        """Distances ``(B, K)`` of the observed from the predicted latents; 0 where Mode-1 acted without looking."""
        return self.trace[..., -1]

    @property
    def searches(self) -> Tensor:
        """Searches made ``(B,)`` since the episode began."""
        return self.effort[:, 0]

    @property
    def milliseconds(self) -> Tensor:
        """Time they took ``(B,)``."""
        return self.effort[:, 1]

    @property
    def recent_gain(self) -> Tensor:
        """What the plans of the latest searches promised ``(B,)``, in the units of -reward: a mean that forgets."""
        return self.effort[:, 2]

    @property
    def control(self) -> Tensor:
        """What the mode switch has set for itself ``(B, 2)``; all zero when an episode begins."""
        return self.effort[:, 3:]

    @property
    def is_finite(self) -> bool:
        """Whether all that is remembered are finite numbers."""
        return all(bool(field.isfinite().all()) for field in self)

    @classmethod
    def unpack(cls, state: PackedMemory, like: WorkingMemory) -> WorkingMemory:
        """Read a packed state, copying it; ``ValueError`` if it is not of the form of ``like``."""
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
        """Root-mean-square distance ``(B,)`` of the observed from the expected latent; 0 at an episode's start."""
        return (z - expected).square().mean(-1).sqrt() * (self.steps > 0)

    def warm_start(self) -> Tensor:
        """The last plan without its executed action, its last action held: ``(B, H, A)``."""
        return torch.cat([self.plan[:, 1:], self.plan[:, -1:]], dim=1)

    def searched(self, rows: Tensor, milliseconds: Tensor, gain: Tensor, control: Tensor) -> WorkingMemory:
        """Take note of searches: where (bool), how long each took, what it promised, the switch's settings ``(B, 2)``."""
        gain, control = gain.to(self.effort), control.to(self.effort)  # autocast halves what is computed, not what is kept
        recent = torch.where(rows, self.recent_gain.lerp(gain, _FORGETTING), self.recent_gain)
        spent = torch.stack([self.searches + rows, self.milliseconds + milliseconds, recent], dim=1)
        return self._replace(effort=torch.cat([spent, control], dim=1))

    def past(self) -> Past:
        """The notes, and which of them were taken in this episode."""
        ago = torch.arange(self.notes.shape[1], device=self.steps.device)
        return Past(self.notes, (ago < self.steps.unsqueeze(1)).float())

    def note(self, newest: Tensor) -> WorkingMemory:
        """Take one more note ``(B, F)``; the oldest is forgotten."""
        return self._replace(notes=torch.cat([newest.unsqueeze(1), self.notes[:, :-1]], dim=1))

    def remember(
        self, z: Tensor, action: Tensor, cost: Tensor, surprise: Tensor, plan: Tensor, ahead: Tensor
    ) -> WorkingMemory:
        """Take in one step: latent, executed action, its cost, the surprise, the plan made, and how many more of its actions
        to execute."""
        newest = torch.cat([z, action, cost.unsqueeze(-1), surprise.unsqueeze(-1)], dim=-1).unsqueeze(1)
        trace = torch.cat([newest, self.trace[:, :-1]], dim=1)
        return self._replace(trace=trace, plan=plan, ahead=ahead, steps=self.steps + 1)
