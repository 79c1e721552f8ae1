import numpy as np
import pytest
import torch

from jepa_agent.config import PlannerConfig
from jepa_agent.costs import LatentCost, LearnedCost, keep
from jepa_agent.objectives.experience import gather_experience
from jepa_agent.objectives.objective import make_objective


@pytest.fixture
def agent(small):
    return small("Pendulum-v1", learning_starts=1_000).learn(220)


@pytest.fixture
def experience(agent):
    return gather_experience(agent.policy, agent.replay_buffer, agent._vec_normalize_env, 3)


def candidates(experience, count=40):
    drawn = torch.rand(2, count, 3, 1, generator=torch.Generator().manual_seed(0))
    return experience.z[:2], 2.0 * drawn - 1.0


def test_whatever_leaves_the_range_costs_more_than_all_that_does_not_and_the_least_is_the_best_of_it(agent, experience):
    world, (z, actions) = agent.world_model, candidates(experience)
    latents = world.imagine(z[:, None].expand(2, 40, -1), actions)
    [speeds] = [keep(2).bind(experience).readout(latents[..., 1:, :])[..., 0]]
    limit = float(speeds.amax(-1).median())  # half of the sequences go faster
    cost = LatentCost(lambda z: 5.0 * z[..., 0])
    plain = make_objective(cost, world, experience)(z, actions)[0]
    kept = make_objective(cost, world, experience, constraints=[keep(2, high=limit)])(z, actions)[0]
    out = (speeds - limit).clamp(min=0.0).sum(-1)
    for row in range(2):
        fine = out[row] == 0
        torch.testing.assert_close(kept[row][fine], plain[row][fine])
        if fine.any() and not fine.all():
            assert kept[row][~fine].min() > kept[row][fine].max()
            assert kept[row][~fine].argmin() == out[row][~fine].argmin()
    assert 0 < (out == 0).sum() < out.numel()


def test_a_priced_range_costs_its_distance_in_deviations_of_the_feature(agent, experience):
    world, (z, actions) = agent.world_model, candidates(experience)
    latents = world.imagine(z[:, None].expand(2, 40, -1), actions)
    bound = keep([2], -0.1, 0.1).bind(experience)
    speeds = bound.readout(latents[..., 1:, :])[..., 0]
    expected = (speeds.abs() - 0.1).clamp(min=0.0) / float(np.std(experience.obs[:, 2]))
    steps = (10.0 * keep(2, -0.1, 0.1)).of_steps(world, experience)
    torch.testing.assert_close(steps(latents, actions), 10.0 * expected, rtol=1e-4, atol=1e-4)


def test_violations_are_counted_on_what_was_met():
    obs = np.array([[0.0, 1.0], [0.5, 1.0], [2.0, 1.0], [-2.0, 1.0]])
    limit = keep(0, -1.0, 1.0)
    assert limit.violated(obs).tolist() == [False, False, True, True]
    assert limit.violation_rate(obs) == 0.5
    assert keep(lambda obs: obs[:, 0] * obs[:, 1], high=0.2).violation_rate(obs) == 0.5
    assert keep([0, 1], -1.0, 0.9).violation_rate(obs) == 1.0


def test_plans_keep_to_a_range_while_it_is_set(agent):
    few = PlannerConfig(kind="cem", num_samples=16, num_elites=4, horizon=3)
    obs = agent.replay_buffer.observations[:30, 0]

    def actions():
        return agent.predict(obs, deterministic=True)[0]

    with agent.using_cost(LearnedCost(), few):
        free = actions()
    with agent.using_cost(LearnedCost(), few, constraints=[keep(2, -0.5, 0.5)]):
        held = actions()
    assert not np.array_equal(free, held)
    assert agent.cost is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: keep(0, 1.0, 1.0), "keep needs low below high, got 1.0 and 1.0"),
        (lambda: keep(0, float("nan"), 1.0), "keep needs low below high"),
        (lambda: keep([0, 2], [-1.0, -4.0], [1.0, 4.0]), "keep needs numbers as low and high"),
        (lambda: keep("speed", 0.0, 1.0), "keep needs an index into the observation, several, or a function, got 'speed'"),
        (lambda: keep(2.5, 0.0, 1.0), "keep needs an index"),
    ],
)
def test_what_is_no_range_of_features_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_feature_or_no_constraint_is_refused_and_nothing_changes(agent):
    with pytest.raises(ValueError, match=r"features \[7\] are no indices into an observation of 3 numbers"):
        agent.set_cost(LearnedCost(), constraints=[keep(7, 0.0, 1.0)])
    with pytest.raises(ValueError, match=r"constraints must be made by keep\(feature, low, high\)"):
        agent.set_cost(LearnedCost(), constraints=[LearnedCost()])
    with pytest.raises(ValueError, match="a list of what keep"):
        agent.set_cost(LearnedCost(), constraints=keep(0, 0.0, 1.0))
    assert agent.cost is None


def test_an_index_may_come_from_numpy(experience):
    assert keep(np.int64(2), 0.0, 1.0) == keep(np.array([2]), 0.0, 1.0) == keep(2, 0.0, 1.0)


def test_a_range_that_nothing_met_lies_in_is_warned_of(agent, recwarn):
    agent.set_cost(LearnedCost(), constraints=[keep(0, 5.0, 6.0)])
    [told] = [warning for warning in recwarn if "no observation met lies within 5 and 6" in str(warning.message)]
    assert told.filename == __file__
    recwarn.clear()
    agent.set_cost(LearnedCost(), constraints=[keep(0, -1.0, 1.0)])
    assert not [warning for warning in recwarn if "lies within" in str(warning.message)]


def test_what_would_be_left_out_beside_a_cost_of_none_is_refused(agent):
    for beside in ({"constraints": [keep(2, -1.0, 1.0)]}, {"end_cost": 0.0}, {"planner": PlannerConfig()}):
        with pytest.raises(ValueError, match=r"a cost of None takes no other arguments: LearnedCost\(\)"):
            agent.set_cost(None, **beside)
