"""A term of your own in the loss of the representation: the variance term of VICReg (Bardes et al., 2105.04906).

It grows where a coordinate of the latents varies too little over the batch, so it works against their collapse.

Run: python examples/own_representation_term.py
"""

from dataclasses import dataclass

import torch

from jepa_agent import JEPA, RepresentationTerm
from jepa_agent.learning.representation import Cost, Imagined, Prediction, Termination


@dataclass(frozen=True)
class Variance(RepresentationTerm):
    """Each coordinate of the encoded latents has a standard deviation of at least 0.7 over the batch."""

    name = "variance"  # logged as train/variance_loss

    def loss(self, seen: Imagined) -> torch.Tensor:
        deviation = (seen.z_hat[:, 0].var(dim=0) + 1e-4).sqrt()  # (D,)
        return (0.7 - deviation).relu().mean().expand(len(seen.z_hat), 1)  # (B, 1): of the first step alone


def spread_of_latents(terms: list[RepresentationTerm], steps: int) -> float:
    """Train with these terms; mean standard deviation of the latents' coordinates over observations met."""
    model = JEPA("MlpPolicy", "Pendulum-v1", representation=terms, mode="actor", learning_starts=100, seed=0).learn(steps)
    with torch.no_grad():
        z = model.world_model.encode(model.replay_buffer.sample(500).observations)
    return float(z.std(dim=0).mean())


def main(steps: int = 1_000) -> dict[str, float]:
    """Train twice for ``steps`` steps; the spread of latents without the term and with it."""
    usual: list[RepresentationTerm] = [Prediction(), Cost(), Termination()]
    return {"without": spread_of_latents(usual, steps), "with": spread_of_latents([*usual, Variance(1.0)], steps)}


if __name__ == "__main__":
    print(main())
