"""Measures of what the world model knows and of what was decided; pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_agent.model.world_model import WorldModel
from jepa_agent.tensor_ops import effective_rank, ridge
from jepa_agent.types import Decision, Observations, SequenceBatch

_HELD_OUT = 5  # of so many windows one is kept from every fit
_MOST_FEATURES = 256  # of an observation that are read from the latent
_FALLEN = 2.0  # a measure has fallen at half of what it is compared with
_POINT = 0.05  # of ``std``: 99.75 % of a latent's square is the same for all observations
_LINE = 1.15  # of ``rank``: one direction holds 97 % of the variance
_SEEN = 0.1  # effects of actions below this share of a step may be chance


class Steps(NamedTuple):
    """N steps that were taken, out of windows."""

    z: Tensor  # (N, D) latents before the step
    z_next: Tensor  # (N, D) latents after it
    action: Tensor  # (N, A) as the networks see it
    seen: Tensor  # (N, F) observations before the step
    held_out: Tensor  # (N,) bool: kept from fits


@torch.no_grad()
def latent_health(model: WorldModel, batch: SequenceBatch, kept: Observations | None = None) -> dict[str, float]:
    """What the latents of windows of L steps tell of the observations, and where the model imagines they go.

    All in closed form; what is read is read by ridge regression and judged on a fifth of the windows, kept from the fit.

    Args:
        model: Encodes and imagines.
        batch: Windows, three times as long as the model is trained to imagine.
        kept: Pairs of consecutive observations ``(K, 2, ...)``, by name for a Dict space; if they are the same at every
            measurement, a change is the encoder's and not the data's. None takes the first two of each window.

    Returns:
        By name, without what the windows do not tell (nothing moves, or all end before):

        - ``std``, ``std_least``: standard deviation over observations, mean and least of the D dimensions; 0 is a point.
        - ``rank``: `effective_rank` of the kept observations' latents, in [1, D].
        - ``resolution``: `resolution` of the kept pairs.
        - ``error_k`` for k = 1, L / 3 and L: `open_loop_error` k steps ahead; 1 is no better than standing still.
        - ``action_sensitivity``: how far apart the model imagines two actions, by `action_sensitivity`.
        - ``action_effect``: how far apart they are seen to lead, by `action_effect`.
        - ``inverse_r2``: share of the action's variance that is read from the latents before and after it.
        - ``probe_r2``: share of the observation's variance that is read from its latent.
    """
    length = batch.mask.shape[1]
    latents = model.observe(batch, 0, length + 1)
    z_hat, start = model.imagine(latents[:, 0], batch.action), latents[:, 0]
    pairs = latents[batch.mask[:, 0] > 0, :2] if kept is None else model.encode(kept)
    measures = {
        "std": start.std(0).mean(),
        "std_least": start.std(0).min(),
        "rank": effective_rank(pairs[:, 0]),
        "resolution": resolution(pairs),
    }
    for step in sorted({1, -(-length // 3), length}):
        measures[f"error_{step}"] = open_loop_error(z_hat, latents, batch.mask, step)
    steps = _steps(model, batch, latents)
    measures["action_sensitivity"] = action_sensitivity(model, steps)
    measures["action_effect"] = action_effect(steps)
    measures["inverse_r2"] = readable(torch.cat([steps.z, steps.z_next], dim=-1), steps.action, steps.held_out)
    measures["probe_r2"] = readable(steps.z, steps.seen, steps.held_out)
    return {name: float(value) for name, value in measures.items() if value.isfinite()}


def _steps(model: WorldModel, batch: SequenceBatch, latents: Tensor) -> Steps:
    """The steps of windows that were taken."""
    observed = model.observation(batch.obs[:, :-1])
    parts = list(observed.values()) if isinstance(observed, dict) else [observed]
    flat = [part.reshape(*part.shape[:2], -1) for part in parts]
    seen = torch.cat([part[..., :: -(-part.shape[-1] // _MOST_FEATURES)].float() for part in flat], dim=-1)
    taken = batch.mask > 0
    windows = torch.arange(len(taken), device=taken.device).unsqueeze(1).expand_as(taken)
    held_out = windows[taken] % _HELD_OUT == 0
    return Steps(latents[:, :-1][taken], latents[:, 1:][taken], batch.action[taken], seen[taken], held_out)


def open_loop_error(z_hat: Tensor, z: Tensor, mask: Tensor, step: int) -> Tensor:
    """Distance of imagined from observed latents some steps ahead, as a share of the distance they have come by then.

    Args:
        z_hat: Imagined latents ``(B, L+1, D)``, the first encoded.
        z: Observed latents ``(B, L+1, D)``.
        mask: 1 where a step was taken, ``(B, L)``.
        step: How many steps ahead.

    Returns:
        A ratio of root mean squares ``()``; 1 is no better than to predict that nothing moves.
    """
    wrong, still = (z_hat[:, step] - z[:, step]).square().mean(-1), (z[:, 0] - z[:, step]).square().mean(-1)
    valid = mask[:, step - 1]
    return ((wrong * valid).sum() / (still * valid).sum()).sqrt()


def resolution(pairs: Tensor) -> Tensor:
    """How far apart the latents of consecutive observations are. Prediction by itself is met the better the nearer they
    come, until the critic cannot tell states apart that follow one another.

    Args:
        pairs: Latents ``(K, 2, D)``.

    Returns:
        The median over pairs of the root-mean-square distance ``()``.
    """
    return (pairs[:, 1] - pairs[:, 0]).square().mean(-1).sqrt().median()


def action_sensitivity(model: WorldModel, steps: Steps) -> Tensor:
    """How far apart the model imagines the action taken and another step's action, as a share of how far a step goes.

    Returns:
        A ratio of root mean squares ``()``, over the pairs of actions that differ.
    """
    other = steps.action.roll(len(steps.action) // 2, 0)
    apart = model.predict(steps.z, other) - model.predict(steps.z, steps.action)
    differ = (other != steps.action).any(-1)
    return (apart[differ].square().mean() / (steps.z_next - steps.z).square().mean()).sqrt()


def action_effect(steps: Steps) -> Tensor:
    """How far apart two actions are seen to lead, by a linear readout of the step: the lower end of what a predictor
    should show.

    Returns:
        A ratio of root mean squares ``()`` as `action_sensitivity`; 0 where actions do not help to tell the step.
    """
    moved = steps.z_next - steps.z
    blind = _missed(steps.z, moved, steps.held_out).mean()
    told = _missed(torch.cat([steps.z, steps.action], dim=-1), moved, steps.held_out).mean()
    # Two independent draws of an action lie twice the variance apart.
    return (2.0 * (blind - told).clamp(min=0.0) / moved.double().square().mean()).sqrt()


def readable(inputs: Tensor, targets: Tensor, held_out: Tensor) -> Tensor:
    """Share of the targets' variance that a ridge regression explains on what was kept from its fit: R2, the mean over
    targets that vary.

    Args:
        inputs: ``(N, F)``.
        targets: ``(N, K)``.
        held_out: Rows kept from the fit, bool ``(N,)``.

    Returns:
        At most 1 ``()``; below 0 where the mean of the fitted rows would have been a better guess.
    """
    centre, deviation = targets[~held_out].double().mean(0), targets.double().std(0)
    varies = deviation > 1e-6 * targets.double().abs().amax(0)
    units = (targets.double() - centre)[:, varies] / deviation[varies]
    return 1.0 - (_missed(inputs, units, held_out) / units[held_out].square().mean(0)).mean()


def _missed(inputs: Tensor, targets: Tensor, held_out: Tensor) -> Tensor:
    """Mean squared error ``(K,)`` of a ridge regression with a constant, on the rows kept from its fit."""
    basis = F.pad(inputs, (0, 1), value=1.0).double()
    weights = ridge(basis[~held_out], targets[~held_out])
    return (basis[held_out] @ weights - targets[held_out].double()).square().mean(0)


def signs_of_collapse(measures: Mapping[str, float], best: Mapping[str, float]) -> dict[str, str]:
    """What measures tell of collapse, against the best there was of each since learning began, or against the data.

    Args:
        measures: Of `latent_health`, of observations that are the same at every measurement.
        best: The highest value so far of each.

    Returns:
        One line by kind of collapse, ``contraction``, ``rank`` or ``actions``; empty where latents are healthy.
    """
    signs = {}
    for kind, name, what in (
        ("contraction", "resolution", "latents of consecutive observations come together"),
        ("rank", "rank", "latents spread along fewer directions"),
    ):
        if measures.get(name, torch.inf) < best.get(name, 0.0) / _FALLEN:
            signs[kind] = f"{what}: latent/{name} is {measures[name]:.3g}, was {best[name]:.3g}"
    # What has collapsed before the first measurement falls no further.
    for kind, name, floor, what in (("contraction", "std", _POINT, "at a point"), ("rank", "rank", _LINE, "on a line")):
        if measures.get(name, torch.inf) < floor:
            signs.setdefault(kind, f"latents lie almost {what}: latent/{name} is {measures[name]:.3g}, below {floor}")
    sensitivity, effect = measures.get("action_sensitivity", torch.inf), measures.get("action_effect", 0.0)
    if sensitivity < effect / _FALLEN and effect > _SEEN:
        signs["actions"] = (
            f"the predictor ignores actions: latent/action_sensitivity is {sensitivity:.3g}, "
            f"but the data show a latent/action_effect of {effect:.3g}"
        )
    return signs


def decision_measures(decision: Decision, tracks_state: bool) -> dict[str, float]:
    """Who acted, and why, by log key; surprise only where the switch ``tracks_state``, gains only where one searched.

    ``planner_fraction`` is the share of the steps with a search, ``executed_fraction`` with its plan executed too;
    ``gain_predicted`` what executed plans were thought to gain over the actor's own sequence.
    """
    searched, planned = decision.searched, decision.planned
    measures = {"mode/planner_fraction": float(searched.float().mean())}
    measures["mode/executed_fraction"] = float(planned.float().mean())
    if tracks_state:
        measures["latent/surprise"] = float(decision.surprise.mean())
    if searched.any():
        measures["plan/disagreement"] = float(decision.disagreement[searched].mean())
        measures["plan/spread"] = float(decision.plan_spread[searched].mean())
        measures["time/plan_ms"] = float(decision.milliseconds[searched].mean())
    if (executed := planned & searched).any():
        measures["mode/gain_predicted"] = float(decision.gain[executed].mean())
    return measures


def realised_gain(before: Decision, cost: Tensor, after: Decision, gamma: float) -> Tensor:
    """What a step gained over what the critic expected of the actor, noise included, where ``gain_predicted`` is of a whole
    plan. Means nothing across an episode's end.

    Args:
        before: The decision at the step.
        cost: Observed cost ``(B,)`` of the step.
        after: The decision at the next step.
        gamma: Discount.

    Returns:
        ``Q(z_t, pi) - c_t - gamma Q(z_{t+1}, pi)``, ``(B,)``.
    """
    return before.situation.cost_to_go - cost - gamma * after.situation.cost_to_go
