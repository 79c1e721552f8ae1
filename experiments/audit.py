"""Audit of a trained agent on episodes that it has not learned from: does what it expects come true?

``python -m jepa_agent.experiments.audit RUN``
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from jepa_agent.agent import JEPA
from jepa_agent.experiments.evaluation import SeededEpisodes, side_by_side
from jepa_agent.experiments.figures import save
from jepa_agent.experiments.folders import saved_to
from jepa_agent.experiments.players import TrainedAgent, stacked
from jepa_agent.experiments.records import BEST_AGENT, LAST_AGENT, SPEC, write_json
from jepa_agent.extras import needs
from jepa_agent.learning.diagnostics import resolution, signs_of_collapse
from jepa_agent.model.encoders import random_latents
from jepa_agent.persistence.plain_data import check_import
from jepa_agent.persistence.yaml_file import read_yaml
from jepa_agent.tensor_ops import effective_rank

with needs("compare"):
    from matplotlib.figure import Figure
    from scipy import stats

_BEYOND = 0.05  # share of the discounted future that is left out
_CHEAP = 0.05  # share of the visited latents that count as cheap
_HELP = "Audit a trained agent on episodes it has not learned from: does what it expects come true?"
_MEANING = {
    "steps": "states judged, of all episodes",
    "value_rank": "rank correlation of the learned cost-to-go with the cost that came, the actor acting; 1 is perfect",
    "value_bias": "learned less realised cost-to-go, in standard deviations of the realised",
    "plan_rank": "rank correlation of what plans promise with what came, the planner acting; 1 is perfect",
    "plan_slope": "realised cost per promised cost, by linear regression; 1 is calibrated",
    "plan_gap": "promised less realised cost, in standard deviations of the realised; below 0 plans are exploited",
    "cheap_imagined": f"share of latents imagined along random actions below the cheapest {_CHEAP:.0%} of those visited",
    "cheap_random": f"share of random latents below the cheapest {_CHEAP:.0%} of those visited",
    "energy_rank": "rank correlation of the contrastive energy with the cost that came",
    "energy_random": "chance that a random latent has more contrastive energy than a visited one",
    "std": "standard deviation of latents over observations; 0 is collapse to a point",
    "rank": "effective rank of latents; 1 is collapse to a line",
    "resolution": "median distance between latents of consecutive observations",
}


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


@torch.no_grad()
def judge(model: JEPA, acted: Judged, planned: Judged) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Compare what the agent expects with what came.

    Args:
        model: The agent.
        acted: States of episodes that the actor played.
        planned: States of episodes that the planner played.

    Returns:
        Numbers by the names of ``_MEANING``, NaN where nothing varies; and cost-to-go as learned, of visited, imagined and
        random latents, for the figure.
    """
    world = model.world_model
    generator = torch.Generator().manual_seed(0)
    value = world.cost_to_go(acted.z, acted.action).mean(0).numpy(force=True)
    shuffled = acted.action[torch.randperm(len(acted.action), generator=generator)]
    away = acted.z
    for turn in range(model.policy.planner.horizon):
        away = world.predict(away, shuffled.roll(turn, 0))
    anywhere = random_latents(len(acted.z), acted.z.shape[1], generator, acted.z.device)
    kinds = {"visited": acted.z, "imagined": away, "random": anywhere}
    costs = {name: world.cost_to_go(z).mean(0).numpy(force=True) for name, z in kinds.items()}
    cheap = np.quantile(costs["visited"], _CHEAP)
    pairs = torch.stack([acted.z, acted.z_next], dim=1)
    found = {
        "steps": float(len(value)),
        "value_rank": _rank_correlation(value, acted.realised),
        "value_bias": float((value - acted.realised).mean() / _spread(acted.realised)),
        "plan_rank": _rank_correlation(planned.promised, planned.realised),
        "plan_slope": float(np.cov(planned.promised, planned.realised)[0, 1] / _spread(planned.promised) ** 2),
        "plan_gap": float((planned.promised - planned.realised).mean() / _spread(planned.realised)),
        "cheap_imagined": float((costs["imagined"] < cheap).mean()),
        "cheap_random": float((costs["random"] < cheap).mean()),
        "std": float(acted.z.std(0).mean()),
        "rank": float(effective_rank(acted.z)),
        "resolution": float(resolution(pairs)),
    }
    if world.energy_weight:
        here, there = (world.cost_module.energy(z).numpy(force=True) for z in (acted.z, anywhere))
        found["energy_rank"] = _rank_correlation(here, acted.realised)
        found["energy_random"] = float((there[:, None] > here).mean())
    return found, {**costs, "value": value}


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
        Numbers by the names of ``_MEANING``, and the figure.

    Raises:
        ValueError: No episode was long enough to be judged.
    """
    acted, planned = (play(model, env_id, env_kwargs, mode, episodes, steps, seed) for mode in ("actor", "planner"))
    if min(len(acted.z), len(planned.z)) < 2:
        raise ValueError(f"{episodes} episodes have {min(len(acted.z), len(planned.z))} states to be judged: play more")
    found, costs = judge(model, acted, planned)
    return found, _draw(acted, planned, costs)


def _draw(acted: Judged, planned: Judged, costs: dict[str, np.ndarray]) -> Figure:
    """Expected against realised costs, and cost-to-go on and off the data."""
    figure = Figure(figsize=(11.5, 3.8), layout="constrained")
    panels = figure.subplots(1, 3)
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
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, NaN where one of the two is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(stats.spearmanr(one, other).statistic)


def _spread(values: np.ndarray) -> float:
    """Standard deviation; NaN where nothing varies."""
    return float(values.std(ddof=1)) or float("nan")


def find(target: Path, env: str | None) -> tuple[Path, str, dict[str, Any]]:
    """The agent's file, its environment and that one's arguments.

    Args:
        target: A run folder, whose best agent is taken, else its last; or a file.
        env: Id of the environment; None is the run's.

    Raises:
        ValueError: There is no agent, or nothing says which environment it was trained on.
    """
    path = next((file for file in (target, target / BEST_AGENT, target / LAST_AGENT) if file.is_file()), None)
    if path is None:
        raise ValueError(f"no agent at {target}: expected a .zip file, or a folder with {BEST_AGENT} or {LAST_AGENT}")
    if env is not None:
        return path, env, {}
    for config in (path.parent / SPEC, path.parent / "config.yml"):
        found = read_yaml(config) if config.is_file() else None
        if isinstance(found, dict) and isinstance(found.get("env"), str):
            check_import(found["env"], str(config), "--env")
            return path, found["env"], found.get("env_kwargs") or {}
    raise ValueError(f"nothing beside {path} says which environment it was trained on: name it with --env")


def main(argv: Sequence[str] | None = None) -> None:
    """Audit an agent, print the table, write ``audit.json`` and ``audit.png``."""
    parser = argparse.ArgumentParser(
        prog="python -m jepa_agent.experiments.audit", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("run", type=Path, help="run folder or agent file")
    parser.add_argument("--env", help="the environment, if nothing beside the agent says which")
    parser.add_argument("--episodes", type=int, default=10, help="by the actor, and as many by the planner")
    parser.add_argument("--steps", type=int, default=200, help="states of each episode that are judged, at most")
    parser.add_argument("--seed", type=int, default=20_000, help="of the first episode")
    parser.add_argument("--output", type=Path, help="folder of audit.json and audit.png; the agent's own if not given")
    options = parser.parse_args(argv)
    if min(options.episodes, options.steps) < 1:
        parser.error(f"--episodes and --steps must be at least 1, got {options.episodes} and {options.steps}")
    try:
        path, env_id, env_kwargs = find(options.run, options.env)
        model = JEPA.load(path, env=gym.make(env_id, **env_kwargs))
        found, figure = audit(model, env_id, env_kwargs, options.episodes, options.steps, options.seed)
    except (ValueError, OSError, gym.error.Error) as error:
        parser.error(str(error))
    for name, value in found.items():
        print(f"{name:<16} {value:>10.3g}  {_MEANING[name]}")
    for sign in signs_of_collapse(found, {}).values():
        print(f"collapse: {sign}")
    folder = options.output or path.parent
    known = {name: value if math.isfinite(value) else None for name, value in found.items()}
    where = saved_to(folder / "audit.json")
    write_json(folder / "audit.json", {"agent": path.name, "env": env_id, "seed": options.seed, **known})
    save(figure, folder / "audit.png")
    print(f"{where} and audit.png")


if __name__ == "__main__":
    main()
