import math

import numpy as np
import pytest
import torch

from jepa_agent.objectives.costs import (
    ActionCost,
    Experience,
    FeatureCost,
    GoalCost,
    LatentCost,
    LearnedCost,
    SmoothnessCost,
    as_cost,
)
from jepa_agent.objectives.experience import gather_experience
from jepa_agent.objectives.objective import make_objective


@pytest.fixture
def agent(small):
    return small("CartPole-v1", learning_starts=1_000).learn(200)  # random actions only: there is no need to be good


@pytest.fixture
def world(agent):
    return agent.world_model.requires_grad_(False)


@pytest.fixture
def experience(agent):
    return gather_experience(agent.policy, agent.replay_buffer, agent._vec_normalize_env, 3)


def speed(latents):
    return latents[..., 0].square()


def random_actions(*shape):
    return torch.eye(2)[torch.randint(2, shape, generator=torch.Generator().manual_seed(0))]


def test_a_function_of_latents_is_asked_about_those_that_steps_lead_to(world, experience):
    objective = make_objective(LatentCost(speed), world, experience)
    z, actions = experience.z[:2], random_actions(2, 5, 3)
    latents = world.imagine(z[:, None].expand(2, 5, -1), actions)
    torch.testing.assert_close(objective.steps(latents, actions), latents[..., 1:, 0].square())


def test_an_objective_discounts_over_the_horizon_and_charges_for_the_steps_after_an_end(world, experience):
    objective = make_objective(LatentCost(lambda z: torch.ones(z.shape[:-1])), world, experience, end_cost=10.0)
    z, actions = experience.z[:2], random_actions(2, 5, 3)
    [cost] = objective(z, actions)
    latents = world.imagine(z[:, None].expand(2, 5, -1), actions)
    alive, expected = torch.ones(2, 5), torch.zeros(2, 5)
    for t in range(3):
        expected += world.gamma**t * (alive + 10.0 * (1.0 - alive))  # the step that ends an episode costs its own
        alive = alive * (1.0 - world.cost(latents[:, :, t], actions[:, :, t]).terminated)
    torch.testing.assert_close(cost, expected)
    assert (cost > 1.0 + world.gamma + world.gamma**2).all()


def test_ending_costs_as_much_as_the_worst_that_was_met_and_never_pays(world, experience):
    bad, good = (LatentCost(lambda z, cost=cost: torch.full(z.shape[:-1], cost)) for cost in (3.0, -1.0))
    assert make_objective(bad, world, experience).end_cost == pytest.approx(3.0)
    assert make_objective(good, world, experience).end_cost == 0.0


def test_a_goal_is_where_its_cost_is_zero(world, experience):
    goal = experience.obs[7]
    steps = GoalCost(goal).of_steps(world, experience)
    latents = experience.encode(experience.obs[5:9]).unsqueeze(1).expand(-1, 2, -1)
    cost = steps(latents, random_actions(4, 1)).squeeze(-1)
    assert cost.argmin() == 2
    assert cost[2] == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(cost[0], (latents[0, 0] - latents[2, 0]).square().mean())


def test_features_are_read_from_latents_by_index_by_function_and_all_together(world, experience):
    latents = experience.z.unsqueeze(1).expand(-1, 2, -1)
    actions = random_actions(len(latents), 1)
    angle = torch.as_tensor(experience.obs[:, 2])

    def off(cost):
        return (cost.of_steps(world, experience)(latents, actions).squeeze(-1) - 2.0 * angle).abs().mean() / angle.std()

    assert off(FeatureCost(lambda x: 2.0 * x[..., 0], features=[2])) < 0.2
    assert off(FeatureCost(lambda x: x.squeeze(-1), features=lambda obs: 2.0 * obs[:, 2])) < 0.2
    assert off(FeatureCost(lambda x: 2.0 * x[..., 2])) < 0.2


def test_what_latents_do_not_tell_is_warned_of(world, experience):
    noise = np.random.default_rng(0).normal(size=len(experience.obs))
    with pytest.warns(UserWarning, match="missed is .*% of feature 0"):
        FeatureCost(lambda x: x[..., 0], features=lambda obs: noise).of_steps(world, experience)


def test_costs_add_up_with_their_weights(world, experience):
    latents = experience.z[:12].reshape(2, 6, -1)
    actions = random_actions(2, 5)
    learned = LearnedCost().of_steps(world, experience)(latents, actions)
    torch.testing.assert_close(learned, world.cost(latents[:, :-1], actions).cost)
    both = (LearnedCost() + 0.5 * LatentCost(speed)) * 2.0 + LatentCost(speed)
    expected = 2.0 * learned + 2.0 * latents[:, 1:, 0].square()
    torch.testing.assert_close(both.of_steps(world, experience)(latents, actions), expected)


def test_a_function_may_be_added_and_what_is_no_cost_or_weight_is_refused(world, experience):
    both = ActionCost() + (lambda z: z[..., 0])
    assert (
        both.terms[1][1].of_steps(world, experience)(torch.ones(2, 4, 8), torch.zeros(2, 3, 1)).tolist() == [[1.0] * 3] * 2
    )
    for make, message in (
        (lambda: ActionCost() * LearnedCost(), "a cost is multiplied by a number, got LearnedCost"),
        (lambda: float("nan") * LearnedCost(), "must be a finite number, got nan"),
        (lambda: LearnedCost() + 1.0, "a cost must be a function of latents .* got 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_with_the_learned_cost_in_a_sum_its_cost_to_go_stays_and_the_ensemble_with_it(world, experience):
    z, actions = experience.z[:2], random_actions(2, 5, 3)
    learned = make_objective(LearnedCost(), world, experience)(z, actions)
    torch.testing.assert_close(learned, world.member_costs(z, actions))
    one = make_objective(LatentCost(speed), world, experience)(z, actions)
    both = make_objective(2.0 * LearnedCost() + 0.5 * LatentCost(speed), world, experience)(z, actions)
    assert both.shape == (2, 2, 5)  # members, rows, candidates
    torch.testing.assert_close(both, 2.0 * learned + 0.5 * one)


def test_actions_cost_by_a_function_and_effort_is_for_numbers_only(small, world, experience):
    latents, actions = experience.z[:12].reshape(2, 6, -1), random_actions(2, 5)
    second = ActionCost(lambda action: action[..., 1])
    torch.testing.assert_close(second.of_steps(world, experience)(latents, actions), actions[..., 1])
    with pytest.raises(ValueError, match="choices take no effort"):
        ActionCost().of_steps(world, experience)
    pushed = torch.tensor([[[0.5, -1.0], [0.0, 0.0]]])
    of_numbers = ActionCost().of_steps(small("Pendulum-v1").world_model, experience)
    assert of_numbers(latents[:1, :3], pushed).tolist() == [[1.25, 0.0]]


def test_smoothness_holds_a_plans_first_action_against_the_one_before_it(world, experience):
    actions = torch.eye(2)[torch.tensor([[[0, 0, 1], [1, 1, 1]]])]  # (1, 2, 3, 2)
    objective = make_objective(3.0 * SmoothnessCost(), world, experience, end_cost=0.0)
    z = experience.z[:1]
    alive, discount = torch.ones(2, 3), world.gamma ** torch.arange(3)
    latents = world.imagine(z[:, None].expand(1, 2, -1), actions)
    for t in range(2):
        alive[:, t + 1] = alive[:, t] * (1.0 - world.cost(latents[0, :, t], actions[0, :, t]).terminated)
    for before, changes in (
        (None, [[1.0, 0.0, 2.0], [1.0, 0.0, 0.0]]),
        (torch.tensor([[1.0, 0.0]]), [[0.0, 0.0, 2.0], [2.0, 0.0, 0.0]]),
    ):
        expected = (3.0 * torch.tensor(changes) * alive * discount).sum(-1)
        torch.testing.assert_close(objective(z, actions, before)[0, 0], expected)


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (lambda z: z, r"the cost returned shape \(2, .*, 3, 16\) for latents .* must take latents \(\.\.\., 16\)"),
        (lambda z: z.square().mean(), r"the cost returned shape \(\)"),
        (lambda z: z.square().sum(-1, keepdim=True), r"the cost returned shape \(2, .*, 3, 1\)"),
        (lambda z: 0.0, "the cost returned float"),
        (lambda z: z[..., 99], "the cost raised IndexError"),
        (lambda z: z[..., 0] * math.nan, "the cost is not finite on"),
        (lambda z: (z[..., 0] - 100.0).log(), "the cost is not finite on"),
        (FeatureCost(lambda x: x[..., 0] / 0.0), "the cost is not finite on"),
        (FeatureCost(lambda x: x), r"for features of shape .* must take features \(\.\.\., 4\)"),
        (FeatureCost(lambda x: x[..., 0], [7]), r"features \[7\] are no indices into an observation of 4 numbers"),
        (FeatureCost(lambda x: x[..., 0], lambda obs: obs[:3]), r"the features of .* observations must be"),
        (FeatureCost(lambda x: x[..., 0], lambda obs: 1 / 0), "the features raised ZeroDivisionError"),
        (GoalCost([1.0, 2.0]), r"the goal must be one observation of the environment, got \[1.0, 2.0\]"),
    ],
)
def test_a_cost_that_cannot_be_used_is_refused_with_the_reason(world, experience, cost, message):
    with pytest.raises(ValueError, match=message):
        make_objective(as_cost(cost), world, experience)


def test_features_need_experience_and_other_costs_do_not(agent, world, experience):
    nothing = Experience(None, experience.z, experience.encode)
    with pytest.raises(ValueError, match="replay buffer tells, which is empty"):
        FeatureCost(lambda x: x[..., 0]).of_steps(world, nothing)
    with pytest.raises(ValueError, match="a cost must be a function of latents"):
        as_cost(3.0)
