"""Latents seen in two dimensions: their principal plane, and the map of recent experience in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jepa_agent.extras import needs

if TYPE_CHECKING:  # matplotlib is loaded by what draws
    from matplotlib.figure import Figure


class Plane(NamedTuple):
    """The plane through the mean of points along their two principal axes."""

    centre: np.ndarray  # (D,)
    axes: np.ndarray  # (2, D)
    share: float  # of the points' variance, that lies in the plane

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return the coordinates ``(..., 2)`` in the plane of points ``(..., D)``."""
        return (points - self.centre) @ self.axes.T


def principal_plane(points: np.ndarray) -> Plane:
    """Find the principal plane of points ``(N, D)`` by a singular value decomposition."""
    centre = points.mean(0)
    _, sizes, axes = np.linalg.svd(points - centre, full_matrices=False)
    share = float(np.square(sizes[:2]).sum() / max(np.square(sizes).sum(), 1e-12))
    axes = np.concatenate([axes[:2], np.zeros((2, points.shape[1]))])[:2]  # a single point, or D = 1, has less than two
    return Plane(centre, axes, share)


def draw_latents(latents: np.ndarray, cost: np.ndarray, age: np.ndarray) -> Figure:
    """Draw the map of latents in their principal plane twice: coloured by the cost of the step, and by when it was taken.

    Args:
        latents: Of N steps, ``(N, D)``.
        cost: Of these steps, ``(N,)``.
        age: Environment steps since, ``(N,)``.

    Returns:
        A figure of matplotlib's.
    """
    with needs("compare"):
        from matplotlib.figure import Figure

    plane = principal_plane(latents)
    x, y = plane.project(latents).T
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    for axes, values, said, colours in zip(
        figure.subplots(1, 2, sharex=True, sharey=True),
        (cost, age),
        ("cost of the step: minus its reward", "how many environment steps ago"),
        ("viridis", "cividis_r"),  # both are read alike with any kind of colour vision
        strict=True,
    ):
        points = axes.scatter(x, y, c=values, cmap=colours, s=9, linewidths=0)
        bar = figure.colorbar(points, ax=axes, label=said, format="{x:,.4g}")
        if np.ptp(values) == 0.0:
            bar.set_ticks([values[0]])  # one colour has one value; matplotlib would count on around it
        axes.set_aspect("equal", adjustable="box")  # shared axes allow no other
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("direction in which latents differ most")
    figure.axes[0].set_ylabel("direction in which they differ second most")
    figure.suptitle(
        f"{len(latents):,} recent steps, a dot for the latent of each; the two directions hold {100 * plane.share:.0f} % of "
        "their variance",
        fontsize=11,
    )
    return figure
