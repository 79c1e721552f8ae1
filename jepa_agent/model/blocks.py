"""Building blocks: perceptrons, batched ensembles, running normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from jepa_agent.tensor_ops import HUGE


def activation(activation_fn: type[nn.Module]) -> nn.Module:
    """A module of the class; ReLU works in place, which halves its memory traffic and needs nothing it destroys."""
    return nn.ReLU(inplace=True) if activation_fn is nn.ReLU else activation_fn()


class Chain(nn.Sequential):
    """`nn.Sequential` that spares layers without hooks the bookkeeping of hooks, which at batch 1 costs as much as a third
    of the arithmetic."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self._modules.values():
            assert layer is not None
            hooked = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
            x = layer(x) if hooked else layer.forward(x)
        return x


def mlp(input_dim: int, net_arch: Sequence[int], output_dim: int, activation_fn: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """A perceptron: linear layers with activations between them, then a linear output.

    One LayerNorm, after the first layer, keeps the scale; one after each costs a tenth of an update.

    Args:
        input_dim: Size of the input.
        net_arch: Hidden widths.
        output_dim: Size of the output.
        activation_fn: Between the layers.

    Returns:
        A module from ``(..., input_dim)`` to ``(..., output_dim)``.
    """
    layers: list[nn.Module] = [nn.Linear(input_dim, net_arch[0]), nn.LayerNorm(net_arch[0]), activation(activation_fn)]
    for fan_in, width in pairwise(net_arch):
        layers += [nn.Linear(fan_in, width), activation(activation_fn)]
    return Chain(*layers, nn.Linear(net_arch[-1], output_dim))


class EnsembleLinear(nn.Module):
    """``ensemble_size`` linear layers as one batched product: ``(E, B, in)`` to ``(E, B, out)``."""

    def __init__(self, ensemble_size: int, input_dim: int, output_dim: int):
        super().__init__()
        bound = 1.0 / math.sqrt(input_dim)
        self.weight = nn.Parameter(torch.empty(ensemble_size, input_dim, output_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(ensemble_size, 1, output_dim).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleMLP(nn.Module):
    """Independent perceptrons, on the same input ``(B, in)`` or each on its own ``(E, B, in)``: to ``(E, B, out)``.

    Args:
        ensemble_size: Number E of members.
        input_dim: Size of the input.
        net_arch: Hidden widths.
        output_dim: Size of the output.
        activation_fn: Between the layers.
        norm_every_layer: Whether a LayerNorm follows every hidden layer, or the first alone.
    """

    def __init__(
        self,
        ensemble_size: int,
        input_dim: int,
        net_arch: Sequence[int],
        output_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        norm_every_layer: bool = False,
    ):
        super().__init__()
        self.ensemble_size = ensemble_size
        # The LayerNorm's statistics are each member's own; its learned scale and shift are shared.
        layers: list[nn.Module] = [
            EnsembleLinear(ensemble_size, input_dim, net_arch[0]),
            nn.LayerNorm(net_arch[0]),
            activation(activation_fn),
        ]
        for fan_in, width in pairwise(net_arch):
            norm = [nn.LayerNorm(width)] if norm_every_layer else []
            layers += [EnsembleLinear(ensemble_size, fan_in, width), *norm, activation(activation_fn)]
        self.layers = Chain(*layers, EnsembleLinear(ensemble_size, net_arch[-1], output_dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x if x.dim() == 3 else x.expand(self.ensemble_size, *x.shape))


class RunningNorm(nn.Module):
    """Standardises vectors by the mean and variance of all it was shown; the statistics travel with the model."""

    mean: Tensor
    var: Tensor
    scale: Tensor
    count: Tensor

    def __init__(self, dim: int, clip: float = 10.0):
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("var", torch.ones(dim))
        self.register_buffer("scale", torch.ones(dim))
        # An integer: a float32 stops counting at 2**24.
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take in a batch ``(B, dim)`` (Chan et al.'s parallel variance)."""
        x = x.clamp(-HUGE, HUGE)  # their squares must add up to numbers still
        n, total = x.shape[0], self.count + x.shape[0]
        delta = x.mean(0) - self.mean
        spread = x.var(0, unbiased=False) * n + self.var * self.count + delta.square() * (self.count * n / total)
        self.mean += delta * (n / total)
        self.var.copy_(spread / total)
        self.count.copy_(total)
        self.scale.copy_(torch.rsqrt(self.var + 1e-8))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) * self.scale).clamp(-self.clip, self.clip)
