"""What was is folded into what is seen: networks over working memory's notes of the last steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_agent.config import did_you_mean
from jepa_agent.types import Past


class MemoryNetwork(nn.Module, ABC):
    """What the past adds to a latent: latents ``(..., D)`` of the observations alone and the `Past` they had, ``size`` notes
    of ``D + A + 1`` numbers, to ``(..., D)``. It adds nothing where there is no past, and never looks at a masked note."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    @abstractmethod
    def forward(self, seen: Tensor, past: Past) -> Tensor:
        """What the past adds to the latents of observations.

        Args:
            seen: Latents ``(..., D)`` of the observations alone.
            past: Notes ``(..., K, D + A + 1)`` of the last K steps and their mask ``(..., K)``.

        Returns:
            Corrections ``(..., D)``, zero where there is no past.
        """


class GRUMemory(MemoryNetwork):
    """A gated recurrent unit run over the notes, from the oldest to the newest (Cho et al., 1406.1078). It starts anew at
    every step, so that acting and learning see the same whatever came before the notes."""

    def __init__(self, latent_dim: int, action_dim: int, size: int = 8, hidden_dim: int = 64):
        super().__init__(size)
        self.cell = nn.GRUCell(latent_dim + action_dim + 1, hidden_dim)
        self.output = nn.Linear(hidden_dim, latent_dim, bias=False)

    def forward(self, seen: Tensor, past: Past) -> Tensor:
        notes, mask = past.notes.flatten(0, -3), past.mask.flatten(0, -2).unsqueeze(-1)
        hidden = notes.new_zeros(notes.shape[0], self.cell.hidden_size)
        for note, told in zip(reversed(notes.unbind(1)), reversed(mask.unbind(1)), strict=True):
            hidden = self.cell(note, hidden) * told  # still nothing before the episode's first step
        return self.output(hidden).view_as(seen)


class AttentionMemory(MemoryNetwork):
    """Attention from what is seen to the notes, each with a learned encoding of how long ago it was taken (Vaswani et al.,
    1706.03762)."""

    def __init__(self, latent_dim: int, action_dim: int, size: int = 8, heads: int = 4, head_dim: int = 16):
        super().__init__(size)
        self.heads, width = heads, heads * head_dim
        self.note = nn.Linear(latent_dim + action_dim + 1, width)
        self.ago = nn.Parameter(torch.randn(size, width))
        self.query = nn.Linear(latent_dim, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, latent_dim, bias=False)

    def forward(self, seen: Tensor, past: Past) -> Tensor:
        # One query, of what is seen now; keys and values of the notes.
        key, value = self.key_value(F.relu(self.note(past.notes) + self.ago)).chunk(2, dim=-1)
        key, value = (x.unflatten(-1, (self.heads, -1)) for x in (key, value))  # (..., K, heads, head_dim)
        query = self.query(seen).unflatten(-1, (self.heads, -1)).unsqueeze(-3)
        mask = past.mask.unsqueeze(-1)
        score = (query * key).sum(-1) * key.shape[-1] ** -0.5
        weight = score.masked_fill(mask == 0, -1e9).softmax(-2) * mask  # (..., K, heads); all 0 without a past
        return self.output((weight.unsqueeze(-1) * value).sum(-3).flatten(-2))


MEMORIES: dict[str, Callable[[int, int, int], MemoryNetwork]] = {"gru": GRUMemory, "attention": AttentionMemory}
"""Memory networks by name, made from the sizes of latent, action and past; ``none`` is none of them."""


def register_memory(name: str, make: Callable[[int, int, int], MemoryNetwork]) -> None:
    """Let a memory network of one's own be asked for by name; ``ValueError`` if that is taken by another."""
    if name == "none" or MEMORIES.get(name, make) is not make:
        raise ValueError(f"memory {name!r} is taken: choose a name other than {', '.join(['none', *MEMORIES])}")
    MEMORIES[name] = make


def make_memory(memory: str | MemoryNetwork, latent_dim: int, action_dim: int, size: int) -> MemoryNetwork | None:
    """A memory network by name, or a copy of the one given.

    Args:
        memory: ``"none"``, a name in `MEMORIES`, or a network.
        latent_dim: Size D of the latent.
        action_dim: Size A of the action.
        size: Number K of steps to look back.

    Returns:
        The network; None for ``"none"``.

    Raises:
        ValueError: A name that is not known.
    """
    if isinstance(memory, MemoryNetwork):
        return deepcopy(memory)
    if memory == "none":
        return None
    if memory not in MEMORIES:
        known = did_you_mean(memory, ["none", *MEMORIES])
        raise ValueError(f"memory {memory!r} is neither a name that is known nor a MemoryNetwork{known}")
    return MEMORIES[memory](latent_dim, action_dim, size)
