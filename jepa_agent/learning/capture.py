"""Gradients of an update as a CUDA graph: recorded once, then replayed by a single call.

On a GPU an update's thousand small kernels take less time than Python takes to launch them one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from jepa_agent.tensor_ops import row_count
from jepa_agent.types import Observations, SequenceBatch

_WARM_UP = 3  # calls before recording, in which libraries choose their kernels

Gradients = Callable[[SequenceBatch], dict[str, Tensor]]


class CapturedGradients:
    """A function that fills the gradients of parameters, recorded at its first call and replayed from then on.

    What is recorded must not depend on numbers: neither copies to the host nor branches on tensors are possible in it.
    Random numbers come from torch's own generator of the device, which goes on as if the function had been called.

    Args:
        compute: From a batch to losses ``()`` by name, gradients left in ``parameters``. All batches have the same shapes.
        parameters: Whose gradients it fills.
        statistics: What else it changes, as running scales.
    """

    def __init__(self, compute: Gradients, parameters: Sequence[Tensor], statistics: Sequence[Tensor]):
        self._compute = compute
        self._parameters, self._statistics = list(parameters), list(statistics)
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Losses by name, valid until the next call; the parameters have their gradients.

        Raises:
            RuntimeError: ``compute`` cannot be recorded.
        """
        parts = _tensors(batch.obs[:, :], batch)  # the graph reads from one place, not from the replay buffer
        if self._graph is None:
            self._graph = self._record(batch)
        torch._foreach_copy_(self._inputs, parts)
        self._graph.replay()
        for weight, gradient in zip(self._parameters, self._gradients, strict=True):
            weight.grad = gradient
        return self._losses

    def _record(self, batch: SequenceBatch) -> torch.cuda.CUDAGraph:
        obs, others = pytree.tree_map_only(Tensor, torch.clone, (batch.obs[:, :], batch._replace(obs=HeldWindows({}))))
        self._inputs, fixed = _tensors(obs, others), others._replace(obs=HeldWindows(obs))
        before, drawn = [statistic.clone() for statistic in self._statistics], torch.cuda.get_rng_state()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                self._compute(fixed)
        torch.cuda.current_stream().wait_stream(aside)
        for weight in self._parameters:
            weight.grad = None  # gradients recorded are the graph's own
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._losses = self._compute(fixed)
        except RuntimeError as error:
            reason = str(error.__context__ or error).splitlines()[0]
            raise RuntimeError(f"an update cannot be captured, leave capture out: {reason}") from error
        self._gradients = [weight.grad for weight in self._parameters]
        torch._foreach_copy_(self._statistics, before)
        torch.cuda.set_rng_state(drawn)
        return graph


class HeldWindows:
    """Observations ``(B, T+1, ...)`` of windows as tensors that stay where they are, indexed as `Windows` are."""

    def __init__(self, obs: Observations):
        self._obs = obs

    def __len__(self) -> int:
        return row_count(self._obs)

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return (self._obs if isinstance(self._obs, Tensor) else next(iter(self._obs.values()))).device

    def __getitem__(self, index: Any) -> Observations:
        if isinstance(self._obs, Tensor):
            return self._obs[index]
        return {name: part[index] for name, part in self._obs.items()}


def _tensors(obs: Observations, batch: SequenceBatch) -> list[Tensor]:
    """All tensors of a batch, always in the same order."""
    return [part for part in pytree.tree_leaves((obs, batch)) if isinstance(part, Tensor)]
