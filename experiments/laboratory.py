"""Planner benchmark: measures planners on one world model, at equal compute and as their settings vary.

Results are written one by one to a JSON file, so that an interrupted benchmark can be continued.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from jepa_agent.config import PlannerConfig, as_kwargs
from jepa_agent.experiments.evaluation import side_by_side
from jepa_agent.experiments.machine import cpu_model, versions
from jepa_agent.experiments.players import Obs, Player, gap, play, stacked
from jepa_agent.experiments.records import write_json
from jepa_agent.planning import FOR_BOX, FOR_CHOICES, ExhaustivePlanner, Planner, make_planner
from jepa_agent.types import CostFn, Plan, PlanInit

_MOST_CANDIDATES = 4096  # limit for planners fitted to a compute budget
_REFINEMENTS = 4
_MOST_SEQUENCES = 1024  # limit for exhaustive search where its horizon is varied
NO_SEARCH = "no search"
HORIZONS = {"agent": 3, "pendulum": 15, "cartpole": 8}  # imagined steps; more for exact models, which have no cost-to-go
UNIT = "matrix products by torch.utils.flop_counter, and one for each number that any other operation makes"
Make = Callable[[], gym.Env]
Row = dict[str, Any]


@dataclass(frozen=True)
class Design:
    """What is to be measured.

    Args:
        planners: Kinds of planners, by the names of `PlannerConfig.kind`.
        horizon: Imagined steps, except where the horizon is varied.
        budgets: Compute at which planners are compared, in multiples of the default planner's.
        samples: Numbers of candidates per iteration to try; the gradient planner gets a tenth of each as starts.
        iterations: Numbers of iterations to try.
        horizons: Numbers of imagined steps to try.
        episodes: Episodes per measurement.
        seed: Seed of the first episode; later episodes have the seeds that follow.
    """

    planners: tuple[str, ...]
    horizon: int
    budgets: tuple[float, ...] = (1.0, 4.0)
    samples: tuple[int, ...] = (10, 40, 160)
    iterations: tuple[int, ...] = (1, 2, 4)
    horizons: tuple[int, ...] = (1, 3, 6)
    episodes: int = 10
    seed: int = 20_000


class Price(NamedTuple):
    """The compute of one decision for one environment."""

    mflop: float  # million floating-point operations, counted as in `UNIT`
    ms: float  # CPU milliseconds
    candidates: int  # action sequences evaluated


# ---------------------------------------------------------------------- what a decision takes


class Counted(Planner):
    """Wraps a planner and counts the action sequences that it evaluates.

    Args:
        planner: Planner to wrap.
    """

    def __init__(self, planner: Planner):
        self.planner, self.candidates = planner, 0
        self.horizon, self.actor_samples, self.replan_every = planner.horizon, planner.actor_samples, planner.replan_every

    def plan(self, cost_fn: CostFn, init: PlanInit) -> Plan:
        """Plan with the wrapped planner, adding ``B * N`` for each evaluation of candidates ``(B, N, H, A)``."""

        def counted(actions: Tensor) -> Tensor:
            """Add the candidates to the count and evaluate them."""
            self.candidates += actions.shape[0] * actions.shape[1]
            return cost_fn(actions)

        return self.planner.plan(counted, init)


class Elements(TorchDispatchMode):
    """Counts the elements of all tensors that operations produce, without views and matrix products.

    Matrix products, which `FlopCounterMode` counts, would otherwise be counted twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.known = FlopCounterMode(display=False).flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket not in self.known and not func.is_view:
            made = result if isinstance(result, (tuple, list)) else (result,)
            self.total += sum(one.numel() for one in made if isinstance(one, Tensor))
        return result


def flop_of(call: Callable[[], Any]) -> int:
    """Count the floating-point operations of a call, as defined in `UNIT`; ``call`` is executed once."""
    with FlopCounterMode(display=False) as products, Elements() as elements:
        call()
    return products.get_total_flops() + elements.total


def price(player: Player, planner: Planner | None, obs: Obs, repeats: int = 12) -> Price:
    """Measure the compute of one decision.

    Args:
        player: Player to measure; it uses ``planner`` afterwards.
        planner: Planner to use; None to act without a search.
        obs: Observation of one environment, ``(1, ...)``.
        repeats: Number of timed decisions; the minimum is reported, since other load on the machine can only add time.
    """
    counted = None if planner is None else Counted(planner)
    player.use(counted)
    state = player.begin(1)
    # Also warms up: the first decision is not timed.
    mflop = flop_of(lambda: player.decide(obs, state)) / 1e6
    times = []
    for _ in range(repeats):
        began = time.process_time()
        player.decide(obs, state)
        times.append(1e3 * (time.process_time() - began))
    return Price(mflop, min(times), counted.candidates // (repeats + 1) if counted else 0)


def fitted(kind: str, space: spaces.Space, horizon: int, cost: Callable[[Planner], float], target: float) -> Planner:
    """Search for the planner of a kind whose compute is closest to a target.

    The number of candidates is varied first, at the default number of iterations. If that misses the target, the number of
    iterations is doubled or halved up to three times. Exhaustive search has no candidates to vary: it gets the longest
    horizon within 1.1 times the target.

    Args:
        kind: Kind of planner.
        space: Action space.
        horizon: Imagined steps; exhaustive search ignores it.
        cost: Measures the compute of a planner, in the unit of ``target``.
        target: Compute to come close to.

    Returns:
        The closest planner tried; dearer than the target where even the smallest setting is.
    """
    if kind == "exhaustive":
        affordable = [make_planner(_setting(kind, 1), space)]
        while cost(longer := make_planner(_setting(kind, len(affordable) + 1), space)) <= 1.1 * target:
            affordable.append(longer)
        return affordable[-1]
    default: Any = make_planner(_setting(kind, horizon), space)
    tried = _by_candidates(kind, space, horizon, default.num_iterations, cost, target)
    counts = [default.num_iterations * 2**n for n in range(1, 4)]
    if tried[0].cost > target:  # with a single candidate
        counts = sorted({max(default.num_iterations // 2**n, 1) for n in range(1, 4)}, reverse=True)
    for count in counts:
        # Within 10% of the target, timing noise matters more than a better fit.
        if abs(math.log(_nearest(tried, target).cost / target)) < 0.1:
            break
        tried += _by_candidates(kind, space, horizon, count, cost, target)
    return _nearest(tried, target).planner


def _nearest(tried: list[_Fit], target: float) -> _Fit:
    """Return the try whose cost is closest to the target by ratio."""
    return min(tried, key=lambda one: abs(math.log(one.cost / target)))


class _Fit(NamedTuple):
    """A planner that was tried, with its number of candidates and its measured cost."""

    planner: Planner
    candidates: int
    cost: float


def _by_candidates(
    kind: str, space: spaces.Space, horizon: int, iterations: int, cost: Callable[[Planner], float], target: float
) -> list[_Fit]:
    """Try numbers of candidates closer and closer to the target by the method of false position.

    Cost grows about linearly with the number of candidates, so a few steps are enough.
    """
    tried: list[_Fit] = []

    def attempt(candidates: float) -> _Fit:
        """Measure a planner with about so many candidates and add it to ``tried``."""
        count = int(min(max(round(candidates), 1), _MOST_CANDIDATES))
        planner = make_planner(_setting(kind, horizon, count, iterations), space)
        tried.append(_Fit(planner, count, cost(planner)))
        return tried[-1]

    low, high = attempt(1), attempt(24 if kind == "gradient" else 160)
    for _ in range(_REFINEMENTS):
        # Noise may make more candidates look cheaper; the bounds keep the slope positive and finite.
        slope = max(high.cost - low.cost, 0.01 * low.cost) / max(high.candidates - low.candidates, 1)
        # Stop where the step proposes a number already tried, or the cost is within 5% of the target.
        known = {one.candidates for one in tried}
        newest = attempt(low.candidates + (target - low.cost) / slope)
        if newest.candidates in known or abs(newest.cost / target - 1.0) < 0.05:
            break
        low, high = sorted((newest, low if newest.cost > target else high), key=lambda one: one.candidates)
        if low.candidates == high.candidates:
            break
    return tried


def _setting(kind: str, horizon: int, candidates: int | None = None, iterations: int | None = None) -> PlannerConfig:
    """Return a planner's settings with so many candidates (starts, for gradient), at most half of them elites.

    Candidates and iterations that are None keep their defaults.
    """
    config = PlannerConfig(kind=kind, horizon=horizon)  # type: ignore[arg-type]
    if kind == "exhaustive":
        return replace(config, max_sequences=10**6)
    if candidates is not None:
        gradient = kind == "gradient"
        config = replace(config, num_starts=candidates) if gradient else replace(config, num_samples=candidates)
        if kind in ("cem", "icem", "mppi"):  # with all candidates as elites there is no selection
            config = replace(config, num_elites=max(min(config.num_elites, candidates // 2), 1))
    return config if iterations is None else replace(config, num_iterations=iterations)


# ---------------------------------------------------------------------- what is measured


class Laboratory:
    """Measures a player's planners and writes every result at once; what the file already holds is not measured again.

    Args:
        player: Plays with each planner in turn.
        make: Builds the environment to play in, with its spec.
        design: What to measure.
        path: JSON file of the results.
        command: Shell command that reproduces the results, stored in the file.

    Raises:
        ValueError: ``path`` holds measurements of another player or design.
    """

    def __init__(self, player: Player, make: Make, design: Design, path: Path, command: str):
        self.player, self.make, self.design, self.path = player, make, design, path
        with closing(make()) as env:
            self.space = env.action_space
            self.obs = stacked([env.reset(seed=design.seed)[0]])
            assert env.spec is not None
            self.steps = env.spec.max_episode_steps or 0
        known = {"name": player.name, "identity": player.identity, "env": player.env_id}
        # Through JSON and back, so that tuples equal the lists that were read from the file.
        asked = json.loads(json.dumps({**known, "design": as_kwargs(design)}))
        self.result: dict[str, Any] = {"command": command, **asked, "unit": UNIT, "cpu": cpu_model(), "versions": versions()}
        self.result["rows"] = []
        if path.exists():
            before = json.loads(path.read_text())
            if any(before.get(key) != value for key, value in asked.items()):
                raise ValueError(f"{path} holds measurements of something else: name another --output, or remove it")
            self.result = before

    def run(self, report: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
        """Measure what is missing.

        Args:
            report: Called with a short text before each measurement.

        Returns:
            The content of the file: player, environment, design, machine, ``best`` returns by episode (None if unknown), and
            ``rows``, one per measurement.
        """
        if "best" not in self.result:
            with side_by_side(self.make, self.design.episodes) as envs:
                firsts = [env.reset(seed=self.design.seed + k)[0] for k, env in enumerate(envs)]
            best = self.player.best_returns(stacked(firsts), self.steps)
            self.result["best"] = None if best is None else best.tolist()
        self._measure("none", NO_SEARCH, 0, lambda: None, report)
        for study, kind, value, planner in self._measurements():
            self._measure(study, kind, value, planner, report)
        return self.result

    def _measurements(self) -> Iterator[tuple[str, str, float, Callable[[], Planner]]]:
        """Yield the study, kind, value and a function that makes the planner, for each measurement."""
        design = self.design
        for measure in ("mflop", "ms"):
            for budget in design.budgets:
                for kind in design.planners:
                    yield f"equal {measure}", kind, budget, partial(self._planner_at_budget, measure, budget, kind)
        for kind in design.planners:
            if kind != "exhaustive":
                for n in design.samples:
                    # Each start of the gradient planner is evaluated many times, so it gets fewer of them.
                    count = max(n // 10, 1) if kind == "gradient" else n
                    yield "samples", kind, count, partial(self._planner, kind, design.horizon, count)
                for n in design.iterations:
                    yield "iterations", kind, n, partial(self._planner, kind, design.horizon, None, n)
            for n in design.horizons:
                planner = self._planner(kind, n)
                # The number of sequences grows exponentially with the horizon.
                if isinstance(planner, ExhaustivePlanner) and math.prod(planner.num_choices) ** n > _MOST_SEQUENCES:
                    continue
                yield "horizon", kind, n, partial(self._planner, kind, n)

    def _planner(self, kind: str, horizon: int, candidates: int | None = None, iterations: int | None = None) -> Planner:
        """Make a planner; settings that are None keep their defaults."""
        return make_planner(_setting(kind, horizon, candidates, iterations), self.space)

    def _planner_at_budget(self, measure: str, budget: float, kind: str) -> Planner:
        """Return the planner of a kind whose compute is ``budget`` times the default planner's."""

        def cost(planner: Planner) -> float:
            """Measure the compute of a planner."""
            return float(getattr(price(self.player, planner, self.obs), measure))

        yardstick = make_planner(PlannerConfig(horizon=self.design.horizon), self.space)
        standard = self.result.setdefault("standard", {})
        if measure not in standard:  # stored, so that a continued benchmark has the same target
            standard[measure] = cost(yardstick)
        if budget == 1.0 and type(yardstick) is type(self._planner(kind, self.design.horizon)):
            return yardstick
        return fitted(kind, self.space, self.design.horizon, cost, budget * standard[measure])

    def _measure(
        self, study: str, kind: str, value: float, planner: Callable[[], Planner | None], report: Callable[[str], None]
    ) -> None:
        """Measure one row and write the file, unless the file already has the row."""
        key = {"study": study, "planner": kind, "value": value}
        if any(all(row[name] == key[name] for name in key) for row in self.result["rows"]):
            return
        report(f"{study} {value:g}: {kind}")
        chosen = planner()
        settings = {name: v for name, v in vars(chosen).items() if name != "num_choices"} if chosen else {}
        # Two studies may meet in the same planner: it is measured once and entered twice.
        same = [row for row in self.result["rows"] if (row["planner"], row["settings"]) == (kind, settings)]
        row = {**same[0], **key} if same else {**key, "settings": settings, **self._measure_planner(chosen)}
        self.result["rows"].append(row)
        write_json(self.path, self.result)

    def _measure_planner(self, planner: Planner | None) -> Row:
        """Return a planner's compute, its return in every episode, and its gap between predicted and realised cost."""
        taken = price(self.player, planner, self.obs)
        self.player.use(planner)
        episodes = play(self.player, self.make, self.design.episodes, self.design.seed)
        returns = [-float(episode.costs.sum()) for episode in episodes]
        return {**taken._asdict(), "returns": returns, "gap": gap(self.player, episodes) if planner else None}


def planners_for(space: spaces.Space) -> tuple[str, ...]:
    """Return the kinds of planners that can be compared in an action space.

    Exhaustive search is left out where the default planner would not try every choice.
    """
    if isinstance(space, spaces.Box):
        return tuple(FOR_BOX)
    few = isinstance(make_planner(PlannerConfig(), space), ExhaustivePlanner)
    return tuple(kind for kind in FOR_CHOICES if few or kind != "exhaustive")


def design_for(
    planners: tuple[str, ...], horizon: int, budgets: tuple[float, ...], episodes: int, seed: int, quick: bool
) -> Design:
    """Return the full design around a horizon, or a reduced one.

    Args:
        planners: Kinds of planners.
        horizon: Imagined steps; a third of it and twice as many are tried as well.
        budgets: Compute at which planners are compared, in multiples of the default planner's.
        episodes: Episodes per measurement.
        seed: Seed of the first episode.
        quick: Whether to keep only the first budget, few settings and at most three episodes.
    """
    horizons = tuple(sorted({max(round(share * horizon), 1) for share in (1 / 3, 1.0, 2.0)}))
    if quick:
        return Design(planners, horizon, budgets[:1], (10, 40), (1, 2), horizons, min(episodes, 3), seed)
    return Design(planners, horizon, budgets, horizons=horizons, episodes=episodes, seed=seed)


def compared(result: dict[str, Any]) -> Iterator[tuple[str, list[Row]]]:
    """Yield the comparisons at equal compute.

    Args:
        result: Content of a results file, as `Laboratory.run` returns it.

    Yields:
        The title and the rows of a comparison, by falling mean return, with the row without a search last.
    """
    for measure, unit in (("mflop", "MFLOP"), ("ms", "ms")):
        for budget in result["design"]["budgets"]:
            chosen = [row for row in result["rows"] if (row["study"], row["value"]) == (f"equal {measure}", budget)]
            chosen.sort(key=lambda row: -float(np.mean(row["returns"])))
            bare = [row for row in result["rows"] if row["planner"] == NO_SEARCH]
            yield f"at about {budget * result['standard'][measure]:.3g} {unit} per plan", chosen + bare
