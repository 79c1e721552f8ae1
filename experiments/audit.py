"""Audit of a trained agent on episodes that it has not learned from: does what it expects come true? Behind the verb
``audit``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from jepa_agent.agent import JEPA
from jepa_agent.experiments.evaluation import SeededEpisodes, side_by_side
from jepa_agent.experiments.players import TrainedAgent, stacked
from jepa_agent.extras import needs
from jepa_agent.learning.diagnostics import resolution
from jepa_agent.learning.terms import Quasimetric, Reachability, TransitionContrast
from jepa_agent.model.encoders import random_latents
from jepa_agent.tensor_ops import effective_rank

with needs("compare"):
    from matplotlib.figure import Figure
    from scipy import stats

_BEYOND = 0.05  # share of the discounted future that is left out
_CHEAP = 0.05  # share of the visited latents that count as cheap
_ENERGIES = {
    "value": "the learned cost-to-go",
    "cost": "the predicted cost of the step",
    "energy": "the contrastive energy of the latent",
    "transition": "the contrastive energy of the step",
    "reach": "-log p of reaching the state with the least cost to come within the training horizon",
    "distance": "the quasimetric distance to that state",
}
MEANING = {
    "steps": "states judged, of all episodes",
    **{
        f"{name}_rank": f"rank correlation of {what} with the cost that came; 1 is perfect"
        for name, what in _ENERGIES.items()
    },
    **{
        f"{name}_{where}": f"chance that {what} is higher off the data than on it, {how}; 0.5 tells nothing"
        for name, what in _ENERGIES.items()
        for where, how in (("imagined", "imagined along actions of other states"), ("random", "at random latents"))
    },
    "value_slope": "realised per learned cost-to-go, by linear regression; 1 is calibrated",
    "value_bias": "learned less realised cost-to-go, in standard deviations of the realised",
    "plan_rank": "rank correlation of what plans promise with what came, the planner acting; 1 is perfect",
    "plan_slope": "realised cost per promised cost, by linear regression; 1 is calibrated",
    "plan_gap": "promised less realised cost, in standard deviations of the realised; below 0 plans are exploited",
    "cheap_imagined": f"share of latents imagined along other actions below the cheapest {_CHEAP:.0%} of those visited",
    "cheap_random": f"share of random latents below the cheapest {_CHEAP:.0%} of those visited",
    "std": "standard deviation of latents over observations; 0 is collapse to a point",
    "rank": "effective rank of latents; 1 is collapse to a line",
    "resolution": "median distance between latents of consecutive observations",
}
"""What each number of `audit` says."""


Row = tuple[np.ndarray, np.ndarray, float, float]
"""Latent ``(D,)``, action ``(A,)``, cost that the plan promised, cost of the step."""


class Judged(NamedTuple):
    """N states, and what came of them."""

    z: Tensor  # (N, D)
    z_next: Tensor  # (N, D) one step later
    action: Tensor  # (N, A)
    promised: np.ndarray  # (N,) cost of the plan that was executed
    realised: np.ndarray  # (N,) discounted costs to the end, but for a share of ``_BEYOND``


def play(model: JEPA, env_id: str, env_kwargs: dict[str, Any], mode: str, episodes: int, steps: int, seed: int) -> Judged:
    """Play episodes side by side, past their time limit until what follows is discounted away.

    Args:
        model: The agent; its mode is changed.
        env_id: Of the environment.
        env_kwargs: Its arguments.
        mode: Who acts.
        episodes: How many.
        steps: States of each that are judged, at most.
        seed: Of the first episode; each later one has the next.
    """
    player, gamma = TrainedAgent(model, "audited", env_id, env_kwargs), model.world_model.gamma
    model.set_mode(mode)
    beyond = math.ceil(math.log(_BEYOND) / math.log(gamma)) if gamma else 1
    limit = steps + beyond
    rows: list[list[Row]] = [[] for _ in range(episodes)]
    ended = [False] * episodes
    with side_by_side(lambda: gym.make(env_id, max_episode_steps=limit, **env_kwargs), episodes) as made:
        envs = [SeededEpisodes(env, seed + k) for k, env in enumerate(made)]
        obs = [env.reset()[0] for env in envs]
        state, running = player.begin(episodes), list(range(episodes))
        while running:
            actions, promises, state = player.decide(stacked([obs[k] for k in running]), state)
            latents, chosen = state[:2]  # working memory: the present latent, and the action that was decided on
            going = []
            for row, k in enumerate(running):
                obs[k], reward, ended[k], truncated, _ = envs[k].step(actions[row])
                rows[k].append((latents[row], chosen[row], float(promises[row]), -float(reward)))
                if not (ended[k] or truncated):
                    going.append(row)
            running, state = [running[row] for row in going], tuple(field[going] for field in state)
    kept = [_judged(row, gamma, steps, 1 if end else beyond) for row, end in zip(rows, ended, strict=True)]
    z, z_next, action, promised, realised = (np.concatenate(column) for column in zip(*kept, strict=True))
    here, there, taken = (torch.as_tensor(part, device=model.device) for part in (z, z_next, action))
    return Judged(here, there, taken, promised, realised)


def _judged(
    rows: list[tuple[np.ndarray, np.ndarray, float, float]], gamma: float, steps: int, beyond: int
) -> list[np.ndarray]:
    """The first steps of an episode of which enough of the future was seen, as the columns of `Judged`."""
    z, action, promised, cost = (np.array(column) for column in zip(*rows, strict=True))
    realised, ahead = np.empty(len(cost)), 0.0
    for t in reversed(range(len(cost))):
        realised[t] = ahead = cost[t] + gamma * ahead
    count = max(min(steps, len(cost) - max(beyond, 1)), 0)
    return [z[:count], z[1 : count + 1], action[:count], promised[:count], realised[:count]]


Energy = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From latents ``(N, D)``, actions ``(N, A)`` and the latents that followed to energies ``(N,)``; lower is better."""


def energies(model: JEPA, best: Tensor) -> dict[str, Energy]:
    """The energies that an agent has, by the names of ``_ENERGIES``.

    Args:
        model: The agent.
        best: A latent ``(D,)`` to be reached.
    """
    world, horizon = model.world_model, model.settings.train_horizon
    found: dict[str, Energy] = {
        "value": lambda z, action, z_next: world.cost_to_go(z, action).mean(0),
        "cost": lambda z, action, z_next: world.cost(z, action).cost,
    }
    if world.cost_module.energy_net is not None:
        found["energy"] = lambda z, action, z_next: world.cost_module.energy(z)
    active = [term for term in model.terms if term.weight]
    if contrast := next((term for term in active if isinstance(term, TransitionContrast)), None):
        found["transition"] = partial(contrast.energy, world)
    if reach := next((term for term in active if isinstance(term, Reachability)), None):
        found["reach"] = lambda z, action, z_next: -logsigmoid(reach.logit(world, z, best, horizon))
    if metric := next((term for term in active if isinstance(term, Quasimetric)), None):
        found["distance"] = lambda z, action, z_next: metric.distance(world, z, best)
    return found


@torch.no_grad()
def judge(model: JEPA, acted: Judged, planned: Judged) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Compare what the agent expects with what came.

    Args:
        model: The agent.
        acted: States of episodes that the actor played.
        planned: States of episodes that the planner played.

    Returns:
        Numbers by the names of `MEANING`, NaN where nothing varies; and for the figure each energy of visited latents by
        its name, and the cost-to-go of visited, imagined and random latents.
    """
    world = model.world_model
    generator = torch.Generator().manual_seed(0)
    shuffled = acted.action[torch.randperm(len(acted.action), generator=generator)]
    away = acted.z
    for turn in range(model.policy.planner.horizon):
        away = world.predict(away, shuffled.roll(turn, 0))
    anywhere = random_latents(len(acted.z), acted.z.shape[1], generator, acted.z.device)
    kinds = {"visited": acted.z, "imagined": away, "random": anywhere}
    costs = {name: world.cost_to_go(z).mean(0).numpy(force=True) for name, z in kinds.items()}
    cheap = np.quantile(costs["visited"], _CHEAP)
    found, own = {"steps": float(len(acted.z))}, dict[str, np.ndarray]()
    for name, energy in energies(model, acted.z[int(acted.realised.argmin())]).items():
        own[name] = on = energy(acted.z, acted.action, acted.z_next).numpy(force=True)
        found[f"{name}_rank"] = _rank_correlation(on, acted.realised)
        for where in ("imagined", "random"):
            # Of a transition, what is off the data is where it leads.
            z = acted.z if name == "transition" else kinds[where]
            off = energy(z, acted.action, kinds[where]).numpy(force=True)
            found[f"{name}_{where}"] = _chance_higher(off, on)
    pairs = torch.stack([acted.z, acted.z_next], dim=1)
    found |= {
        "value_slope": _slope(own["value"], acted.realised),
        "value_bias": float((own["value"] - acted.realised).mean() / _spread(acted.realised)),
        "plan_rank": _rank_correlation(planned.promised, planned.realised),
        "plan_slope": _slope(planned.promised, planned.realised),
        "plan_gap": float((planned.promised - planned.realised).mean() / _spread(planned.realised)),
        "cheap_imagined": float((costs["imagined"] < cheap).mean()),
        "cheap_random": float((costs["random"] < cheap).mean()),
        "std": float(acted.z.std(0).mean()),
        "rank": float(effective_rank(acted.z)),
        "resolution": float(resolution(pairs)),
    }
    return found, {**own, **costs}


def audit(
    model: JEPA, env_id: str, env_kwargs: dict[str, Any], episodes: int = 10, steps: int = 200, seed: int = 20_000
) -> tuple[dict[str, float], Figure]:
    """Play, judge and draw.

    Args:
        model: A trained agent; its mode is changed.
        env_id: Of the environment.
        env_kwargs: Its arguments.
        episodes: Episodes by the actor, and as many by the planner.
        steps: States of each that are judged, at most.
        seed: Of the first episode; other seeds than evaluations and training use.

    Returns:
        Numbers by the names of `MEANING`, and the figure.

    Raises:
        ValueError: No episode was long enough to be judged.
    """
    acted, planned = (play(model, env_id, env_kwargs, mode, episodes, steps, seed) for mode in ("actor", "planner"))
    if min(len(acted.z), len(planned.z)) < 2:
        raise ValueError(f"{episodes} episodes have {min(len(acted.z), len(planned.z))} states to be judged: play more")
    found, costs = judge(model, acted, planned)
    return found, _draw(acted, planned, costs)


def _draw(acted: Judged, planned: Judged, costs: dict[str, np.ndarray]) -> Figure:
    """Expected against realised costs, energies against them by rank, and cost-to-go on and off the data."""
    others = [name for name in _ENERGIES if name in costs and name != "value"]
    figure = Figure(figsize=(3.8 * (3 + len(others)), 3.8), layout="constrained")
    panels = figure.subplots(1, 3 + len(others))
    for axes, expected, realised, title in (
        (panels[0], costs["value"], acted.realised, "cost-to-go, the actor acting"),
        (panels[1], planned.promised, planned.realised, "plans, the planner acting"),
    ):
        axes.scatter(expected, realised, s=6, alpha=0.4, color="#0072B2", linewidths=0)
        axes.axline((float(np.median(realised)),) * 2, slope=1, color="black", linewidth=0.8)
        axes.set(title=title, xlabel="expected cost", ylabel="realised cost")
    for (name, colour), line in zip(
        {"visited": "#0072B2", "imagined": "#D55E00", "random": "#000000"}.items(), ("-", "--", ":"), strict=True
    ):
        panels[2].hist(costs[name], bins=40, density=True, histtype="step", color=colour, linestyle=line, label=name)
    panels[2].set(title="learned cost-to-go of latents", xlabel="expected cost", ylabel="density")
    panels[2].legend(frameon=False)
    for axes, name in zip(panels[3:], others, strict=True):
        axes.scatter(costs[name], acted.realised, s=6, alpha=0.4, color="#0072B2", linewidths=0)
        axes.set(title=name, xlabel="energy", ylabel="realised cost")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, NaN where one of the two is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(stats.spearmanr(one, other).statistic)


def _slope(expected: np.ndarray, realised: np.ndarray) -> float:
    """Realised cost per expected cost, by linear regression; NaN where one of the two is constant."""
    if np.ptp(expected) == 0 or np.ptp(realised) == 0:
        return float("nan")
    return float(np.cov(expected, realised)[0, 1] / expected.var(ddof=1))


def _chance_higher(one: np.ndarray, other: np.ndarray) -> float:
    """The chance that a draw of one is higher than a draw of the other, ties counted half (Mann and Whitney's U)."""
    return float(stats.mannwhitneyu(one, other).statistic / (len(one) * len(other)))


def _spread(values: np.ndarray) -> float:
    """Standard deviation; NaN where nothing varies."""
    return float(values.std(ddof=1)) or float("nan")
