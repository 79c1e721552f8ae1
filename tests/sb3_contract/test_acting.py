"""What SB3's evaluation and rl_zoo3 take for granted about ``predict``."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from jepa_agent.planning import GradientPlanner

MODES = ("actor", "planner", "auto")


def observations(model, count, seed=0):
    model.observation_space.seed(seed)
    return np.stack([np.clip(model.observation_space.sample(), -1, 1) for _ in range(count)])


@pytest.fixture(params=["CartPole-v1", "Pendulum-v1"])
def model(request, small):
    return small(request.param)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_what_one_environment_sees_changes_no_bit_of_anothers_action(model, mode, deterministic):
    model.set_mode(mode)
    obs = observations(model, 4)
    changed = np.concatenate([obs[:2], observations(model, 2, seed=1)])
    found = []
    for seen in (obs, changed):
        model.policy.generator.manual_seed(1)
        _, state = model.predict(seen, deterministic=deterministic)
        found.append(model.predict(seen, state, deterministic=deterministic))
    (first, state), (second, other_state) = found
    np.testing.assert_array_equal(first[:2], second[:2])
    for ours, theirs in zip(state, other_state, strict=True):
        np.testing.assert_array_equal(ours[:2], theirs[:2])


@pytest.mark.parametrize("mode", MODES)
def test_nothing_but_the_state_lasts_between_calls(model, mode):
    model.set_mode(mode)
    first, second = observations(model, 3), observations(model, 3, seed=1)

    def follow(*streams):
        states, actions = [None] * len(streams), [[] for _ in streams]
        for step in range(3):
            for i, stream in enumerate(streams):
                action, states[i] = model.predict(stream[step], states[i], deterministic=True)
                actions[i].append(action)
        return actions

    np.testing.assert_array_equal(follow(first, second), [*follow(first), *follow(second)])


def test_the_state_is_a_tuple_of_arrays_with_the_environments_first(model):
    _, state = model.predict(observations(model, 4))
    assert isinstance(state, tuple)
    assert all(isinstance(array, np.ndarray) and len(array) == 4 for array in state)


def test_one_observation_gives_one_action_in_an_array(model):
    action, _ = model.predict(observations(model, 1)[0])
    assert isinstance(action, np.ndarray)
    assert action.shape == model.action_space.shape
    assert model.action_space.contains(action)


def test_a_state_for_another_number_of_environments_is_refused(model):
    _, state = model.predict(observations(model, 4))
    with pytest.raises(ValueError, match="this policy for 3 env"):
        model.predict(observations(model, 3), state)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_planning_by_gradients_works_in_any_grad_mode_and_leaves_gradients_alone(small, context):
    model = small("Pendulum-v1", planner=GradientPlanner(horizon=2, num_iterations=2), mode="planner", plan_pessimism=0.0)
    obs = observations(model, 2)
    expected, _ = model.predict(obs, deterministic=True)
    for parameter in model.policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    with context():
        found, _ = model.predict(obs, deterministic=True)
    np.testing.assert_array_equal(found, expected)
    assert all((parameter.grad == 1).all() for parameter in model.policy.parameters())


@pytest.mark.parametrize("mode", ["planner", "auto"])
def test_evaluate_policy_threads_memory_through_every_environments_episodes(small, mode):
    model = small("CartPole-v1", mode=mode)
    seen = []

    def look(local, _):
        seen.append((local["states"][-1][local["i"]], local["current_lengths"][local["i"]]))

    evaluate_policy(model, make_vec_env("CartPole-v1", 2, seed=0), n_eval_episodes=4, callback=look)
    remembered, lengths = zip(*seen, strict=True)
    assert remembered == lengths
    assert lengths.count(1) >= 4


def test_acting_stochastically_is_not_acting_deterministically(small):
    model = small("Pendulum-v1")
    obs = np.zeros((1, 3), dtype=np.float32)
    chosen, _ = model.predict(obs, deterministic=True)
    assert len({model.predict(obs)[0].item() for _ in range(4)} | {chosen.item()}) == 5
