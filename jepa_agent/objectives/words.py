"""Sentences as goals: a small text encoder and a readout fitted to phrasings that the user gives with their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_agent.extras import needs
from jepa_agent.model.world_model import WorldModel
from jepa_agent.objectives.costs import Cost, Experience, StepCosts
from jepa_agent.tensor_ops import ridge

_STRENGTH = 0.01  # of the ridge: thirty phrasings determine far fewer than the embedding's 256 numbers


@dataclass(frozen=True)
class SentenceGoal(Cost):
    """A goal said in words: the sentence becomes a number, or several, and these a cost.

    ``SentenceGoal("hold the pole to the left", phrasings, lambda angle: FeatureCost(...))``

    Sentences are embedded by WordLlama, whose weights lie in its package (extra ``language``); a ridge regression fitted to
    the phrasings reads the numbers from embeddings. A sentence that is like no phrasing gets a number all the same, one
    between those given: look at `value` before it is acted upon.

    Args:
        sentence: What is asked for.
        phrasings: Sentences with their number or numbers, some thirty of them over all that may be asked for.
        cost: From the number, or an array of them, to the cost that asks for it.

    Raises:
        ValueError: Fewer than two phrasings, an empty sentence, or numbers that are not finite or of different counts.
        MissingExtraError: The extra ``language`` is not installed, when the value is first asked for.
    """

    sentence: str
    phrasings: Mapping[str, float | Sequence[float]]
    cost: Callable[[Any], Cost]

    def __post_init__(self) -> None:
        if len(self.phrasings) < 2:
            raise ValueError(f"a readout needs phrasings with different numbers, some thirty, got {len(self.phrasings)}")
        for sentence in (self.sentence, *self.phrasings):
            if not isinstance(sentence, str) or not sentence.strip():
                raise ValueError(f"a sentence must be a text that is not empty, got {sentence!r}")
        self._numbers()

    @property
    def value(self) -> Any:
        """What the sentence is taken to ask for: a float, or an array ``(K,)`` where phrasings have several numbers."""
        numbers = self._numbers()
        known, asked = (_embed(tuple(sentences)) for sentences in (self.phrasings, [self.sentence]))
        weights = ridge(_with_constant(known), torch.as_tensor(numbers), _STRENGTH)
        found = (_with_constant(asked) @ weights)[0].numpy()
        return found if np.ndim(next(iter(self.phrasings.values()))) else float(found[0])

    def of_steps(self, model: WorldModel, experience: Experience) -> StepCosts:
        return self.cost(self.value).of_steps(model, experience)

    def _numbers(self) -> np.ndarray:
        """The phrasings' numbers ``(N, K)``."""
        rows = [np.atleast_1d(np.asarray(numbers, dtype=np.float64)) for numbers in self.phrasings.values()]
        if len({row.shape for row in rows}) > 1 or not all(np.isfinite(row).all() for row in rows):
            raise ValueError("each phrasing must have one finite number, or all of them equally many")
        return np.stack(rows)


def _with_constant(embedded: torch.Tensor) -> torch.Tensor:
    return torch.cat([embedded, torch.ones_like(embedded[:, :1])], dim=1)


@cache
def _embed(sentences: tuple[str, ...]) -> torch.Tensor:
    """Embeddings ``(N, 256)`` of unit length."""
    embedded = torch.as_tensor(_encoder().embed([sentence.lower() for sentence in sentences]), dtype=torch.float64)
    return torch.nn.functional.normalize(embedded, dim=-1)


@cache
def _encoder() -> Any:
    """WordLlama with the weights and the tokenizer of its package; nothing is downloaded."""
    with needs("language"):
        import wordllama
    folder = Path(wordllama.__file__).parent
    return wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
