"""What a search may be expected to gain, learned from what the plans of searches promised."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_agent.tensor_ops import HUGE

_MEMORY = 1000  # searches it learns from, about
_PRIOR = 0.1  # searches that the first guess is worth


class GainModel(nn.Module):
    """Ridge regression of gains ``(B,)`` on features ``(B, F)``, kept up to date one search at a time; older ones fade.

    Until there are any, the gain is taken to be the mean of the features. Every weight is held to that guess in units of
    its own feature's size; the first feature is 1.
    """

    moment: Tensor
    product: Tensor

    def __init__(self, num_features: int):
        super().__init__()
        self.register_buffer("moment", torch.zeros(num_features, num_features))
        self.register_buffer("product", torch.zeros(num_features))

    def forward(self, features: Tensor) -> Tensor:
        """Expected gain ``(B,)``."""
        # Ridge regression towards the mean of the features, in units that make the penalty the same for each.
        guess = torch.full_like(self.product, 1.0 / len(self.product))
        size = self.moment.diagonal().sqrt().clamp(min=1e-12)
        held = self.moment / (size * size.unsqueeze(1))  # features of unit size
        held.diagonal().add_(_PRIOR / self.moment[0, 0].clamp(min=1.0))
        return features @ (guess + torch.linalg.solve(held, (self.product - self.moment @ guess) / size) / size)

    @property
    def mean(self) -> Tensor:
        """Mean gain promised by the searches it has learned from; 0 before there are any."""
        return self.product[0] / self.moment[0, 0].clamp(min=1.0)

    def learn(self, features: Tensor, gain: Tensor) -> None:
        """Update the regression by searches; rows that are not finite, or whose squares would not be, are skipped.

        Args:
            features: `Situation.features` ``(B, F)`` at which searches were made.
            gain: Gains ``(B,)`` that their plans promised, in units of the cost-to-go head.
        """
        usable = (features.abs().amax(-1) < HUGE) & (gain.abs() < HUGE)
        features, gain = features[usable], gain[usable]
        # Exponential forgetting: the moments hold about _MEMORY searches.
        fading = 1.0 - len(gain) / (_MEMORY + len(gain))
        self.moment.mul_(fading).add_(features.T @ features)
        self.product.mul_(fading).add_(features.T @ gain)
