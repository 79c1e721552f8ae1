import math

import numpy as np
import pytest
import torch

from jepa_agent.config import PlannerConfig
from jepa_agent.costs import FittedCostToGo, LatentCost, LearnedCost
from jepa_agent.objectives.cost_to_go import _Learner

FEW = PlannerConfig(kind="cem", num_samples=16, num_elites=4, horizon=2)


@pytest.fixture(params=["CartPole-v1", "Pendulum-v1"])
def model(request, small):
    return small(request.param, learning_starts=1_000).learn(100)


def latents(model, count=64):
    return model.world_model.encode(model.replay_buffer.observations[:count, 0]).detach()


def constant(z, actions):
    return torch.full(actions.shape[:-1], 3.0)


@pytest.mark.parametrize(("logit", "low", "high"), [(-20.0, -330.0, -160.0), (0.0, -150.0, 0.0)])
def test_the_cost_to_go_of_a_constant_cost_is_its_discounted_sum_over_a_life(model, logit, low, high):
    """Costs are told less the cost of an end: -2 at each step, for ever (-200), or for a life of two steps (-4)."""
    last = model.world_model.cost_module.step_net[-1]
    with torch.no_grad():
        last.weight[1], last.bias[1] = 0.0, logit
    z = latents(model)
    world = FittedCostToGo(50).fit(model.policy, z, constant, end_cost=5.0)
    assert low < world.cost_to_go(z).mean() < high


def test_returns_along_a_walk_are_discounted_and_mixed_as_the_formula_says(model):
    z = latents(model, 4)
    learner = _Learner(model.policy, z, constant, 0.0, FittedCostToGo(1, walk=3, trace=1.0))
    walk, _, cost, _ = learner.imagined(z)
    ended = torch.zeros_like(cost)
    ended[:, 1] = 1.0
    found, gamma = learner.returns(walk, cost, ended), model.gamma
    torch.testing.assert_close(found[:, 0], torch.full((4,), 3.0 + 3.0 * gamma))  # nothing after the second step
    torch.testing.assert_close(found[:, 1], torch.full((4,), 3.0))


def test_what_is_fitted_is_the_same_every_time_and_leaves_the_agent_and_all_draws_alone(model):
    z = latents(model)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    drawn, numpy_drawn = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, other = (FittedCostToGo(3).fit(model.policy, z, constant, 0.0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert np.array_equal(np.random.get_state()[1], numpy_drawn)
    assert all(torch.equal(value, before[name]) for name, value in model.policy.state_dict().items())
    assert all(weight.requires_grad for weight in model.world_model.parameters())
    for kept in ("encoder", "predictor"):
        pairs = zip(getattr(one, kept).parameters(), getattr(model.world_model, kept).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_plans_count_what_follows_their_end(model):
    cost = LatentCost(lambda z: z[..., 0])
    obs = model.replay_buffer.observations[:20, 0]
    with model.using_cost(cost, FEW):
        near = model.policy.objective
    with model.using_cost(cost, FEW, cost_to_go=FittedCostToGo(5)):
        far = model.policy.objective
        assert np.isfinite(model.predict(obs, deterministic=True)[0]).all()
    z = latents(model, 3)
    actions = model.world_model.actor_sequence(z, 2).unsqueeze(1)
    walk = model.world_model.imagine(z.unsqueeze(1), actions)
    alive = (1.0 - model.world_model.cost(walk[..., :-1, :], actions).terminated).prod(-1)[:, 0]
    ahead = model.gamma**2 * alive * far.ahead.cost_to_go(walk[:, 0, -1]).mean(0)
    torch.testing.assert_close(far(z, actions)[0, :, 0] - near(z, actions)[0, :, 0], ahead, rtol=1e-3, atol=1e-3)
    assert far.proposer is far.ahead
    assert near.proposer is model.world_model


def test_what_cannot_be_fitted_is_refused_with_the_way_out(model):
    with pytest.raises(ValueError, match="num_updates must be a whole number of at least 1, got 0"):
        FittedCostToGo(0)
    with pytest.raises(ValueError, match="walk must be a whole number"):
        FittedCostToGo(walk=2.5)
    with pytest.raises(ValueError, match="learning_rate must be above 0, got -1"):
        FittedCostToGo(learning_rate=-1)
    with pytest.raises(ValueError, match="tau must lie above 0 and be at most 1, got 2"):
        FittedCostToGo(tau=2)
    with pytest.raises(ValueError, match=r"cost_to_go must be a FittedCostToGo, such as FittedCostToGo\(\), got True"):
        model.set_cost(lambda z: z[..., 0], FEW, cost_to_go=True)
    with pytest.raises(ValueError, match="trace must lie between 0 and 1"):
        FittedCostToGo(trace=math.nan)
    with pytest.raises(ValueError, match="brings its own cost-to-go: leave cost_to_go out"):
        model.set_cost(LearnedCost(), FEW, cost_to_go=FittedCostToGo(1))
    assert model.cost is None
