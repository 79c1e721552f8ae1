import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from jepa_agent.config import PlannerConfig
from jepa_agent.costs import LatentCost
from jepa_agent.trials import Trials, caution_after
from jepa_agent.types import Plan


def episode(trials: Trials, reward: float, due: bool = True, planned: bool = True) -> list[bool]:
    """One episode of two steps in a single environment, with a plan in its first unless the actor plays alone."""
    for over in (False, True):
        executed = np.array([planned and not over and not trials.alone[0]])
        harms = trials.step(np.array([reward / 2]), np.array([over]), executed, due)
    return harms


def test_the_actor_plays_each_second_episode_alone_and_neighbours_are_compared() -> None:
    trials = Trials(1)
    assert episode(trials, 5.0, due=False) == []
    assert not trials.alone.any()
    assert episode(trials, 1.0) == []  # both with plans
    assert trials.alone.all()
    assert episode(trials, 4.0) == [True]
    assert trials.lead == -3.0
    assert not trials.alone.any()
    assert episode(trials, 104.0, due=False) == [False]
    assert trials.lead == pytest.approx(0.8 * -3.0 + 0.2 * 100.0)
    assert not trials.alone.any()


def test_plans_harm_while_they_are_behind_in_the_mean() -> None:
    trials = Trials(1)
    returns = [10.0, 8.0] * 3 + [9.0, 9.5, 9.0, 8.0]  # with plans, alone, with plans, ...
    harms = [harm for one in returns for harm in episode(trials, one)]
    assert harms == [False] * 9  # half a point behind, twice, does not make up for two ahead, five times
    assert [harm for _ in range(4) for one in (0.0, 2.0) for harm in episode(trials, one)][-6:] == [True] * 6


def test_where_no_plan_was_executed_there_was_neither_gain_nor_harm() -> None:
    trials = Trials(1)
    episode(trials, 1.0, planned=False)
    assert episode(trials, 4.0) == [False]
    assert episode(trials, 2.0, planned=False) == [False]
    assert episode(trials, 6.0) == [False]
    assert trials.lead.isnan()
    assert episode(trials, 0.0) == [True]
    assert episode(trials, 9.0) == [True]
    assert episode(trials, 0.0, planned=False) == [False]  # its own plans count, not those of the one before the last


def test_an_episode_cut_short_is_compared_with_nothing() -> None:
    trials = Trials(1)
    episode(trials, 5.0)
    trials.step(np.array([90.0]), np.array([False]), np.array([False]), True)
    trials.cut()
    assert episode(trials, 4.0) == []
    assert episode(trials, 5.0) == [False]
    assert trials.lead == 1.0


def test_environments_are_tried_each_by_itself() -> None:
    trials, both = Trials(2), np.array([True, True])
    trials.step(np.array([1.0, 9.0]), np.array([True, False]), both, True)
    assert trials.alone.tolist() == [True, False]
    assert trials.step(np.array([3.0, 9.0]), both, both, True) == [True]
    assert trials.alone.tolist() == [False, True]


def test_a_trial_goes_on_where_it_was_left() -> None:
    one, other, yes, no = Trials(1), Trials(1), np.array([True]), np.array([False])
    episode(one, 1.0)
    one.step(np.array([2.0]), no, no, True)
    other.load_state_dict(one.state_dict())
    one.step(np.array([99.0]), no, no, True)  # changes nothing of the other
    assert other.step(np.array([2.0]), yes, no, True) == [True]
    assert other.lead == -3.0


def test_caution_rises_by_harm_and_falls_without() -> None:
    caution = torch.zeros(())
    assert caution_after(caution, [False, False]) == 0.0
    assert caution_after(caution, [True, True]) == pytest.approx(1.5**2)
    assert caution_after(torch.tensor(4.0), [False]) == pytest.approx(4.0 / 1.1)
    assert caution_after(torch.tensor(1.05), [False]) == 0.0
    assert caution_after(caution, [True] * 50) == 100.0
    assert caution == 0.0


def test_plans_must_be_as_sure_as_experience_asks(small) -> None:
    model = small("Pendulum-v1", mode="planner", planner=PlannerConfig(num_samples=8, num_elites=4))
    obs = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
    usual, _ = model.predict(obs, deterministic=True)
    model.policy.caution.fill_(1e6)
    sure, _ = model.predict(obs, deterministic=True)
    model.set_mode("actor")
    own, _ = model.predict(obs, deterministic=True)
    assert np.abs(usual - own).max() > 1e-3
    np.testing.assert_allclose(sure, own, atol=1e-5)


def test_whole_episodes_are_the_actors_once_there_was_time_to_learn(small) -> None:
    env = make_vec_env("CartPole-v1", 1, seed=0)
    model = small(env, learning_starts=20)
    kinds: list[tuple[int, bool]] = []

    def watch(local, _):
        decision = model.last_decision
        if decision is not None:
            kinds.append((model._episode_num, bool(decision.searched.item())))
        return True

    model.learn(400, callback=watch)
    searched = {number: {one for episode, one in kinds if episode == number} for number, _ in kinds}
    assert all(len(found) == 1 for found in searched.values())  # all of an episode or nothing
    late = [found.pop() for number, found in sorted(searched.items())][-4:]
    assert late in ([True, False, True, False], [False, True, False, True])


def test_a_switch_that_always_plans_is_left_alone(small) -> None:
    model = small(make_vec_env("CartPole-v1", 1, seed=0), learning_starts=20)
    model._trials.alone.fill_(True)  # as of an episode that was begun in another mode
    model.set_mode("planner")
    searched: list[bool] = []

    def watch(local, _):
        if model.last_decision is not None:
            searched.append(bool(model.last_decision.searched.item()))
        return True

    model.learn(300, callback=watch)
    assert len(searched) > 200
    assert all(searched)


class Fined(gym.Env):
    """Four steps an episode, each of which returns ``fine`` times the action, and -5."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, fine: float = 1.0):
        self.fine, self.steps = fine, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), self.fine * float(action[0]) - 5.0, False, self.steps == 4, {}


def planning(model, action: float):
    """The agent, sure that nothing is better than ``action``, and at a loss without it."""

    def deliberate(z, warm_start, generator):
        sequence = torch.full_like(warm_start, action)
        gain = torch.ones(len(z))
        return Plan(sequence, sequence, torch.zeros_like(sequence), -gain, torch.zeros(len(z))), gain, torch.zeros(len(z))

    model.policy.deliberate = deliberate
    model.policy.world_model.actor.forward = lambda z: torch.zeros(len(z), 1)
    return model


@pytest.mark.parametrize(("action", "harms"), [(-1.0, True), (1.0, False)])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_an_agent_whose_plans_return_less_than_its_actor_grows_cautious(
    small, action: float, harms: bool, n_envs: int
) -> None:
    env = make_vec_env(Fined, n_envs)
    model = planning(small(env, learning_starts=8, train_freq=1000), action).learn(200)
    assert (model.policy.caution > 1.5) == harms
    assert (model._trials.lead < 0.0) == harms
    assert abs(float(model._trials.lead)) > 3.0


def test_rewards_are_held_against_each_other_as_the_environment_gives_them(small) -> None:
    env = VecNormalize(make_vec_env(Fined, 1, env_kwargs={"fine": 0.0}), norm_obs=False)
    model = planning(small(env, learning_starts=8, train_freq=1000), -1.0).learn(200)
    assert model._trials.lead == 0.0
    assert model.policy.caution == 0.0


def test_nothing_of_an_episode_that_a_checkpoint_ends_goes_into_the_next(small, tmp_path) -> None:
    model = planning(small(make_vec_env(Fined, 1), learning_starts=8, train_freq=17), -1.0).learn(102)
    assert model._trials.returned.item() < 0.0
    model.save_checkpoint(tmp_path)
    assert model._trials.returned.item() == 0.0
    assert model._trials.had_returned.isnan().all()


def test_what_experience_taught_is_of_the_reward_not_of_another_cost(small) -> None:
    model = small("Pendulum-v1", mode="planner", planner=PlannerConfig(num_samples=8, num_elites=4))
    obs = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
    model.set_cost(LatentCost(lambda z: z.square().sum(-1)))
    fearless, _ = model.predict(obs, deterministic=True)
    model.policy.caution.fill_(1e6)
    asked, _ = model.predict(obs, deterministic=True)
    np.testing.assert_array_equal(fearless, asked)
