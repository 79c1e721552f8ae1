"""Planners on a cost whose optimum is known: ``|a_t - target_t|^2`` summed over time."""

import time
from dataclasses import fields

import pytest
import torch
from gymnasium import spaces

from jepa_agent.config import PlannerConfig, as_kwargs
from jepa_agent.planning import (
    CEM,
    FOR_BOX,
    FOR_CHOICES,
    ICEM,
    MPPI,
    CategoricalCEM,
    ExhaustivePlanner,
    GradientPlanner,
    HybridPlanner,
    RandomChoices,
    RandomShooting,
    check_planner,
    make_planner,
)
from jepa_agent.planning.base import soft_weights, within
from jepa_agent.planning.sampling import coloured
from jepa_agent.types import PlanInit

HORIZON, DIM = 3, 2
TARGET = torch.tensor([[0.5, -0.5], [0.0, 0.25], [-0.3, 0.9]])
EXACT = [
    MPPI(horizon=HORIZON, num_iterations=8, num_samples=256),
    CEM(horizon=HORIZON, num_iterations=8, num_samples=256, num_elites=32),
    ICEM(horizon=HORIZON, num_iterations=8, num_samples=256, num_elites=32, decay=1.0),
    GradientPlanner(horizon=HORIZON, num_iterations=60),
    GradientPlanner(horizon=HORIZON, num_iterations=60, descent="plain", step_size=0.05),
    HybridPlanner(horizon=HORIZON, num_iterations=60),
]
CONTINUOUS = [*EXACT, RandomShooting(horizon=HORIZON, num_samples=4000)]
CHOICES = [
    ExhaustivePlanner((DIM,), horizon=HORIZON),
    CategoricalCEM((DIM,), horizon=HORIZON, num_iterations=5),
    RandomChoices(horizon=HORIZON, num_choices=(DIM,)),
]
ITERATIVE = [
    CEM(3, budget_ms=60, num_iterations=50),
    GradientPlanner(3, budget_ms=60, num_iterations=50),
    RandomShooting(3, budget_ms=60, num_iterations=50),
]


def quadratic(actions):
    return (actions - TARGET).square().sum((-1, -2))


def start(batch=1, seed=0, value=0.0):
    return PlanInit(torch.full((batch, 2, HORIZON, DIM), value), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("planner", EXACT)
def test_finds_the_known_minimum(planner):
    plan = planner.plan(quadratic, start())
    assert plan.cost.item() < 0.02
    torch.testing.assert_close(plan.actions[0], TARGET, atol=0.12, rtol=0)


@pytest.mark.parametrize("planner", CONTINUOUS)
def test_reports_the_cost_of_what_it_returns(planner):
    plan = planner.plan(quadratic, start())
    torch.testing.assert_close(plan.cost, quadratic(plan.actions), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("planner", [*CONTINUOUS, *CHOICES])
def test_never_dearer_than_the_actors_own_sequence(planner):
    own = torch.eye(DIM)[[0, 1, 0]].expand(1, 1, HORIZON, DIM)

    def only_own_is_good(actions):
        return (actions - own).abs().sum((-1, -2)) - 5.0 * ((actions - own).abs().sum((-1, -2)) == 0)

    plan = planner.plan(only_own_is_good, PlanInit(own, torch.Generator().manual_seed(0)))
    assert torch.equal(plan.actions, own[:, 0])
    assert plan.cost.item() == -5.0


@pytest.mark.parametrize("planner", CONTINUOUS)
def test_stays_within_bounds_when_the_minimum_lies_outside(planner):
    plan = planner.plan(lambda a: (a - 3.0).square().sum((-1, -2)), start())
    assert plan.actions.abs().max() <= 1.0
    assert plan.actions.mean() > (0.9 if planner in EXACT else 0.7)


@pytest.mark.parametrize("planner", [*CONTINUOUS, *CHOICES])
def test_nan_costs_rank_last(planner):
    def poisoned(actions):
        cost = actions[..., 0].sum(-1)
        return torch.where(actions[..., 0, 0] < 0.5, torch.nan, cost)  # the cheapest half is NaN

    own = torch.zeros(1, 1, HORIZON, DIM)
    own[..., 0] = 1.0
    plan = planner.plan(poisoned, PlanInit(own, torch.Generator().manual_seed(0)))
    assert torch.isfinite(plan.cost).all()
    assert (plan.actions[:, 0, 0] >= 0.5).all()
    assert plan.mean.isfinite().all()


@pytest.mark.parametrize("planner", CONTINUOUS)
def test_all_nan_falls_back_to_the_actor(planner):
    plan = planner.plan(lambda a: a.sum((-1, -2)) * torch.nan, start(value=0.25))
    assert torch.equal(plan.actions, torch.full((1, HORIZON, DIM), 0.25))
    assert plan.mean.isfinite().all()


@pytest.mark.parametrize("planner", CONTINUOUS)
def test_a_row_does_not_depend_on_its_neighbours(planner):
    shift = torch.tensor([0.0, 0.4, -0.4])

    def cost(rows):
        return lambda a: (a - TARGET - shift[rows].view(-1, 1, 1, 1)).square().sum((-1, -2))

    together = planner.plan(cost([0, 1, 2]), start(batch=3))
    alone = planner.plan(cost([1]), start(batch=1))
    torch.testing.assert_close(together.actions[1], alone.actions[0])


@pytest.mark.parametrize("planner", [*CONTINUOUS, *CHOICES])
def test_draws_come_from_the_given_generator_alone(planner):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, second = (planner.plan(quadratic, start(seed=3)).actions for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("switch", [torch.no_grad, torch.inference_mode])
def test_gradient_planner_works_where_gradients_are_off_and_touches_no_parameter(switch):
    weight = torch.nn.Parameter(torch.ones(()))
    with switch():
        plan = GradientPlanner(horizon=HORIZON, num_iterations=40).plan(lambda a: quadratic(a) * weight, start())
    assert plan.cost.item() < 0.02
    assert weight.grad is None


def test_exhaustive_search_is_exact():
    torch.manual_seed(0)
    table = torch.randn(3, 3, 3)
    planner = ExhaustivePlanner((3,), horizon=3)

    def cost(actions):
        a, b, c = actions.argmax(-1).unbind(-1)
        return table[a, b, c]

    plan = planner.plan(cost, PlanInit(torch.eye(3)[[0, 0, 0]].expand(1, 1, 3, 3), torch.Generator()))
    assert plan.cost.item() == table.min().item()
    torch.testing.assert_close(plan.mean.sum(-1), torch.ones(1, 3))


def test_temperature_divides_so_a_smaller_one_is_sharper():
    cost = torch.tensor([[0.0, 1.0, 2.0]])
    sharp, soft = soft_weights(cost, 0.1), soft_weights(cost, 10.0)
    assert sharp[0, 0] > soft[0, 0] > 1 / 3
    torch.testing.assert_close(soft_weights(1e3 * cost, 0.5), soft_weights(1e-3 * cost, 0.5))


def test_planners_fit_their_action_space():
    box, discrete = spaces.Box(-1, 1, (2,)), spaces.Discrete(4)
    assert isinstance(make_planner(PlannerConfig(), box), MPPI)
    planner = make_planner(PlannerConfig(horizon=9, max_sequences=100), discrete)
    assert planner == ExhaustivePlanner((4,), horizon=3)
    assert make_planner(PlannerConfig(kind="gradient", horizon=7, step_size=0.2), box) == GradientPlanner(7, step_size=0.2)
    with pytest.raises(ValueError, match="does not fit"):
        make_planner(PlannerConfig(kind="mppi"), discrete)
    assert isinstance(make_planner(PlannerConfig(kind="icem", noise_beta=2.0), box), ICEM)
    assert make_planner(PlannerConfig(kind="cem", num_samples=9), discrete) == CategoricalCEM((4,), num_samples=9)
    with pytest.raises(ValueError, match="cem has no noise_beta: it takes actor_samples, budget_ms"):
        make_planner(PlannerConfig(kind="cem", noise_beta=2.0), box)


def test_random_shooting_draws_from_all_of_the_box_alike():
    seen = []
    RandomShooting(horizon=HORIZON, num_samples=4000).plan(lambda a: seen.append(a) or quadratic(a), start())
    share = torch.histc(seen[0][:, 2:], bins=4, min=-1.0, max=1.0) / seen[0][:, 2:].numel()
    torch.testing.assert_close(share, torch.full((4,), 0.25), atol=0.02, rtol=0)


@pytest.mark.parametrize(("beta", "correlation"), [(0.0, 0.0), (2.0, 0.8)])
def test_coloured_noise_has_unit_variance_and_the_asked_for_memory(beta, correlation):
    init = PlanInit(torch.zeros(1, 1, 8, 2), torch.Generator().manual_seed(0))
    noise = coloured(init, 20_000, beta)
    assert noise.shape == (20_000, 8, 2)
    torch.testing.assert_close(noise.var(0), torch.ones(8, 2), atol=0.05, rtol=0)
    measured = (noise[:, :-1] * noise[:, 1:]).mean()
    assert measured == pytest.approx(correlation, abs=0.1)


def test_elites_of_icem_compete_again():
    asked = []
    planner = ICEM(horizon=HORIZON, num_samples=20, num_elites=10, num_iterations=2, kept_elites=0.5)
    planner.plan(lambda a: asked.append(a) or quadratic(a), start())
    first, second = asked
    best = first[0, quadratic(first)[0].topk(5, largest=False).indices]
    assert all((second[0] == sequence).all(-1).all(-1).any() for sequence in best)
    assert second.shape[1] == 2 + 5 + 1 + 20  # proposals, elites, the mean, drawn: never fewer than twice the elites


def test_choices_side_by_side_are_planned_as_their_product():
    wanted = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0, 1.0]])  # of 2 and of 3

    def cost(actions):
        assert (actions[..., :2].sum(-1) == 1.0).all()
        assert (actions[..., 2:].sum(-1) == 1.0).all()
        return (actions - wanted).square().sum((-1, -2))

    own = torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.0]]).expand(1, 1, 2, 5)
    for planner in (ExhaustivePlanner((2, 3), horizon=2), CategoricalCEM((2, 3), horizon=2, num_iterations=5)):
        plan = planner.plan(cost, PlanInit(own, torch.Generator().manual_seed(0)))
        torch.testing.assert_close(plan.actions[0], wanted)
        torch.testing.assert_close(plan.mean.sum(-1), torch.full((1, 2), 2.0))


def test_descent_minds_no_cliff():
    """One step away the slope is a thousand times steeper; the sequence may not be thrown across the box."""

    def cost(actions):
        x = actions[..., 0, 0]
        return torch.where(x > -0.05, -x.neg(), 1000.0 * (x + 0.05) - 0.05).abs()

    init = PlanInit(torch.full((1, 1, 1, 1), 0.5), torch.Generator().manual_seed(0))
    planner = GradientPlanner(1, num_starts=1, num_iterations=20, descent="plain", step_size=0.02)
    assert planner.plan(cost, init).actions.abs().item() < 0.2


@pytest.mark.parametrize("planner", ITERATIVE)
def test_a_budget_of_time_is_kept_and_the_best_so_far_returned(planner):
    calls = []

    def slow(actions):
        calls.append(time.sleep(0.015))
        return quadratic(actions)

    plan = planner.plan(slow, start())
    assert 1 <= len(calls) <= 4
    assert plan.cost.item() < quadratic(torch.zeros(HORIZON, DIM)).item()


def test_exhaustive_search_ends_in_time_with_the_best_of_what_it_has_counted():
    planner, asked = ExhaustivePlanner((DIM,), horizon=10, budget_ms=60), []

    def slow(actions):
        time.sleep(0.015)
        asked.append(actions)
        return actions[..., :4, 0].sum(-1)

    own = torch.eye(DIM)[[0] * 10].expand(1, 1, 10, DIM)
    plan = planner.plan(slow, PlanInit(own, torch.Generator()))
    assert 1 <= len(asked) <= 4
    assert plan.cost.item() == 0.0  # the actor's own costs more
    torch.testing.assert_close(plan.mean.sum(-1), torch.ones(1, 10))


def test_random_shooting_keeps_the_best_of_all_its_rounds():
    plans = [RandomShooting(HORIZON, num_samples=20, num_iterations=n).plan(quadratic, start()) for n in (1, 5, 25)]
    costs = [plan.cost.item() for plan in plans]
    assert costs[0] > costs[1] > costs[2]


def test_a_plan_cannot_be_followed_beyond_its_end():
    with pytest.raises(ValueError, match="replan_every must lie between 1 and 3, got 4"):
        PlannerConfig(replan_every=4)
    with pytest.raises(ValueError, match="exceeds the 2 actions of a plan that max_sequences 20 affords"):
        make_planner(PlannerConfig(horizon=5, replan_every=5, max_sequences=20), spaces.Discrete(4))


def test_a_budget_too_small_for_anything_still_buys_one_round():
    assert list(within(1e-9, 5)) == [0]
    assert list(within(0.0, 3)) == [0, 1, 2]


@pytest.mark.parametrize("planner", [*FOR_BOX.values(), *FOR_CHOICES.values()])
def test_a_setting_means_the_same_whether_it_is_given_or_left(planner):
    """Only the number of iterations has a default of its own for each planner."""
    shared = {field.name: field.default for field in fields(planner) if field.name in as_kwargs(PlannerConfig())}
    shared.pop("num_iterations", None)
    assert shared == {name: getattr(PlannerConfig(), name) for name in shared}


def test_a_budget_counts_what_a_hybrid_search_draws_before_it_descends():
    calls = []

    def slow(actions):
        calls.append(len(actions[0]))
        time.sleep(0.01 if len(calls) > 1 else 0.1)
        return quadratic(actions)

    HybridPlanner(HORIZON, num_iterations=50, budget_ms=100).plan(slow, start())
    assert calls[0] > 40  # the draws
    assert len(calls) == 2


@pytest.mark.parametrize("planner", [*ITERATIVE, CategoricalCEM((DIM,), 3, budget_ms=60, num_iterations=50)])
def test_a_budget_counts_what_was_done_before_the_search(planner):
    calls = []

    def slow(actions):
        calls.append(time.sleep(0.015))
        return quadratic(actions)

    planner.plan(slow, start(value=0.5)._replace(began=time.perf_counter() - 0.05))
    assert len(calls) == 1


def test_random_choices_are_all_as_likely_and_each_is_a_choice():
    asked = []

    def cost(actions):
        asked.append(actions)
        return actions[..., 0].sum(-1)

    init = PlanInit(torch.tensor([1.0, 0, 0, 1, 0]).view(1, 1, 1, 5), torch.Generator().manual_seed(0))
    plan = RandomChoices(1, num_samples=3000, num_choices=(3, 2)).plan(cost, init)
    drawn = asked[0][0, 1:, 0]
    torch.testing.assert_close(drawn.mean(0), torch.tensor([1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2]), atol=0.04, rtol=0)
    assert (drawn[:, :3].sum(-1) == 1).all()
    assert plan.cost.item() == 0.0


def test_the_chance_of_any_choice_is_at_most_one():
    with pytest.raises(ValueError, match="init_std is the chance of any choice at all, at most 1, got 2"):
        make_planner(PlannerConfig(kind="cem", init_std=2.0), spaces.Discrete(3))


def test_of_choices_without_a_finite_cost_nothing_is_learned():
    def cost(actions):
        wrong = actions[..., 0, 0] > 0
        return torch.where(wrong, torch.inf, actions[..., 1:, 0].sum(-1))

    plan = CategoricalCEM((DIM,), HORIZON, num_samples=8, num_elites=40, num_iterations=1).plan(cost, start(value=0.5))
    assert plan.mean[0, 0, 0] < 0.05


@pytest.mark.parametrize(
    ("planner", "space", "reason"),
    [
        (MPPI(), spaces.Discrete(2), "searches numbers"),
        (CategoricalCEM((3,)), spaces.Discrete(2), r"choices among \(3,\)"),
        (ExhaustivePlanner((2,)), spaces.Box(-1, 1, (2,)), "are numbers"),
        (MPPI(horizon=3, replan_every=10), spaces.Box(-1, 1, (2,)), "exceeds the 3 actions"),
    ],
)
def test_a_planner_that_cannot_act_in_a_space_is_refused(planner, space, reason):
    with pytest.raises(ValueError, match=reason):
        check_planner(planner, space)


@pytest.mark.parametrize("planner", [MPPI, CEM, ICEM])
def test_the_spread_of_a_search_neither_dies_out_nor_outgrows_its_first(planner):
    # A single elite has no spread of its own.
    certain = planner(HORIZON, num_elites=1, num_iterations=4, min_std=0.07).plan(quadratic, start())
    torch.testing.assert_close(certain.std, torch.full_like(certain.std, 0.07))
    # Elites at either end lie further apart than the first draw was wide.
    split = planner(HORIZON, num_elites=20, num_iterations=3, init_std=0.3, num_samples=200)
    plan = split.plan(lambda actions: -actions.abs().sum((-1, -2)), start())
    assert plan.std.max() <= 0.3


def test_a_cliff_on_the_way_does_not_spoil_the_steps_after_it():
    def slope_with_a_drop(actions):
        x = actions.flatten(-2)
        return ((x - 0.63).square() + 1e5 * (x.clamp(0.72, 0.8) - 0.72)).sum(-1)

    # Adam divides by the largest gradients it remembers: unclipped, it would step too little to reach the minimum.
    plan = GradientPlanner(HORIZON, num_starts=2, num_iterations=60).plan(slope_with_a_drop, start(value=0.9))
    assert (plan.actions - 0.63).abs().max() < 0.005


@pytest.mark.parametrize("planner", [MPPI(horizon=HORIZON, num_iterations=3), CEM(horizon=HORIZON, num_iterations=3)])
def test_a_search_that_gets_worse_returns_the_best_it_has_met(planner):
    rounds = []

    def worse_every_time(actions):
        rounds.append(len(rounds))
        return quadratic(actions) + 100.0 * rounds[-1]

    plan = planner.plan(worse_every_time, start())
    assert plan.cost.item() < quadratic(torch.zeros(HORIZON, DIM)).item()
    torch.testing.assert_close(plan.cost, quadratic(plan.actions))


def test_a_search_among_choices_keeps_every_choice_possible():
    planner = CategoricalCEM((4,), horizon=2, num_iterations=4, min_std=0.2)
    own = torch.eye(4)[[0, 0]].expand(1, 1, 2, 4)
    plan = planner.plan(lambda actions: -actions[..., 0].sum(-1), PlanInit(own, torch.Generator().manual_seed(0)))
    assert plan.mean.min().item() == pytest.approx(0.2 / 4)
    assert plan.actions[0].argmax(-1).tolist() == [0, 0]
