"""The planner laboratory: what it counts, what it holds equal, what it remembers."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from jepa_agent.config import PlannerConfig
from jepa_agent.experiments.exact_models import CartPole, Pendulum
from jepa_agent.experiments.laboratory import Design, Laboratory, compared, fitted, flop_of, planners_for, price
from jepa_agent.experiments.planner_figures import _values, plot_compute
from jepa_agent.experiments.players import Episode, ExactPlayer, TrainedAgent, gap, play, stacked
from jepa_agent.planning import CEM, ExhaustivePlanner, make_planner

TINY = Design(("exhaustive", "cem"), 2, (1.0,), (4, 8), (1,), (1, 2), episodes=2)


def laboratory(path, design=TINY, command="as tested"):
    return Laboratory(ExactPlayer(CartPole(), "exact"), lambda: gym.make("CartPole-v1"), design, path, command)


def test_operations_are_products_twice_over_and_one_for_each_other_number():
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    assert flop_of(lambda: a @ b) == 2 * 3 * 4 * 5
    assert flop_of(lambda: (a.exp() + 1.0)[:2].view(-1)) == 24  # views make nothing


def test_a_price_counts_every_sequence_scored():
    player, obs = ExactPlayer(CartPole(), "exact"), np.zeros((1, 4), np.float32)
    assert price(player, ExhaustivePlanner((2,), horizon=3), obs).candidates == 9  # and the first proposal
    nothing = price(player, None, obs)
    assert nothing.candidates == 0 < nothing.ms
    short, long = (price(player, ExhaustivePlanner((2,), horizon=h), obs).mflop for h in (3, 6))
    assert long > 10 * short


@pytest.mark.parametrize("kind", ["cem", "gradient", "random"])
def test_the_fitted_planner_takes_what_it_was_given(kind):
    player, obs = ExactPlayer(Pendulum(), "exact"), np.zeros((1, 3), np.float32)

    def cost(planner):
        return price(player, planner, obs, repeats=1).mflop

    planner = fitted(kind, spaces.Box(-2, 2, (1,)), 5, cost, target=0.1)
    assert planner.horizon == 5
    assert cost(planner) == pytest.approx(0.1, rel=0.1)


def test_the_gap_is_what_was_promised_less_what_was_paid():
    player = ExactPlayer(CartPole(), "exact")
    player.use(CEM(horizon=2))
    costs = np.array([1.0, 2.0, 4.0])
    cut = Episode(costs, np.array([2.0, 6.0, 0.0]), False)  # the last plan outlasts the time limit
    assert gap(player, [cut]) == pytest.approx(((2 - 3) + (6 - 6)) / 2)
    assert gap(player, [cut._replace(terminated=True)]) == pytest.approx(((2 - 3) + (6 - 6) + (0 - 4)) / 3)


def cartpole_after(episode, player, seed):
    """What is seen after the steps of an episode that was acted by ``player``."""
    env, state = gym.make("CartPole-v1"), player.begin(1)
    obs, _ = env.reset(seed=seed)
    for _ in episode.costs:
        action, _, state = player.decide(obs[None], state)
        obs = env.step(action[0])[0]
    return obs[None]


def test_a_trained_agents_plans_are_held_against_discounted_costs_and_what_lies_beyond_a_time_limit(small):
    player = TrainedAgent(small("CartPole-v1", gamma=0.5), "agent", "CartPole-v1", {})
    episode = Episode(np.array([-1.0, -1.0, -1.0]), np.zeros(3), True)
    np.testing.assert_allclose(player.realised(episode), [-1.75, -1.5, -1.0])
    player.use(None)
    [cut] = play(player, lambda: gym.wrappers.TimeLimit(gym.make("CartPole-v1").unwrapped, 2), 1, seed=0)
    assert cut.beyond == pytest.approx(player.beyond(cartpole_after(cut, player, seed=0), player.begin(1)).item(), rel=1e-4)
    np.testing.assert_allclose(player.realised(cut), [-1.5 + 0.25 * cut.beyond, -1.0 + 0.5 * cut.beyond])


def test_episodes_side_by_side_are_those_played_alone(small):
    players = ExactPlayer(CartPole(), "exact"), TrainedAgent(small("CartPole-v1"), "agent", "CartPole-v1", {})
    for player in players:
        player.use(make_planner(PlannerConfig(kind="cem", num_samples=8), spaces.Discrete(2)))
        together = play(player, lambda: gym.make("CartPole-v1"), 3, seed=5)
        [alone] = play(player, lambda: gym.make("CartPole-v1"), 1, seed=6)
        assert together[1].costs.tolist() == alone.costs.tolist()
        np.testing.assert_allclose(together[1].predicted, alone.predicted, atol=1e-4)


def test_observations_of_several_environments_become_one():
    assert stacked([np.zeros(3), np.ones(3)]).tolist() == [[0.0] * 3, [1.0] * 3]
    together = stacked([{"a": np.zeros(2), "b": 1}, {"a": np.ones(2), "b": 2}])
    assert together["a"].tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert together["b"].tolist() == [1, 2]


def test_it_goes_on_where_it_was_stopped_and_draws(tmp_path):
    path = tmp_path / "results.json"
    reports = []

    def stop(what):
        reports.append(what)
        if len(reports) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        laboratory(path).run(stop)
    assert len(json.loads(path.read_text())["rows"]) == 3
    before = json.loads(path.read_text())["rows"]
    result = laboratory(path).run(reports.append)
    assert result["rows"][:3] == before
    assert len(set(reports)) == len(reports) - 1 == len(result["rows"])  # the one that was stopped twice
    assert result["best"] == [500.0, 500.0]
    titles = dict(compared(result))
    assert len(titles) == 2
    assert all([row["planner"] for row in rows][-1] == "no search" for rows in titles.values())
    assert all(len(row["returns"]) == 2 for row in result["rows"])
    plot_compute(result, tmp_path / "compute.png")
    assert (tmp_path / "compute.png").stat().st_size > 10_000


def test_a_panel_says_which_values_were_tried():
    rows = [{"planner": kind, "mflop": value, "value": value} for kind in ("cem", "mppi") for value in (40, 10)]
    assert _values(rows) == "10, 40"
    assert _values([*rows, {"planner": "gradient", "mflop": 1, "value": 4}]) == "10, 40; gradient 4"


def test_measurements_of_something_else_are_not_mixed_in(tmp_path):
    path = tmp_path / "results.json"
    laboratory(path, Design(("cem",), 1, (), (4,), (), (), episodes=1)).run()
    with pytest.raises(ValueError, match="something else"):
        laboratory(path)


def test_agents_of_one_name_are_told_apart(tmp_path):
    def bench(identity):
        player = ExactPlayer(CartPole(), "exact")
        player.identity = identity
        design = Design(("cem",), 1, (), (4,), (), (), episodes=1)
        return Laboratory(player, lambda: gym.make("CartPole-v1"), design, tmp_path / "results.json", "as tested")

    bench("one").run()
    bench("one")
    with pytest.raises(ValueError, match="something else"):
        bench("another")


def test_kinds_that_fit_leave_out_what_would_have_to_look_at_too_many_choices():
    assert planners_for(spaces.Discrete(3)) == ("exhaustive", "cem", "random")
    assert planners_for(spaces.MultiDiscrete([10] * 7)) == ("cem", "random")


def test_with_a_model_that_makes_no_mistake_nothing_promised_is_missed():
    player = ExactPlayer(CartPole(), "exact")
    player.use(ExhaustivePlanner((2,), horizon=4))
    assert gap(player, play(player, lambda: gym.make("CartPole-v1"), 1, seed=0)) >= 0.0
