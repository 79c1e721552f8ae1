"""Probe environments with known values, each in both modes; the first that fails tells which part is broken."""

import gymnasium as gym
import numpy as np
import pytest
import torch

CONTINUOUS = pytest.mark.parametrize("continuous", [False, True], ids=["Discrete", "Box"])


def train(small, name, continuous=None, steps=500, **settings):
    env = gym.make(f"JEPA/{name}-v0", **({} if continuous is None else {"continuous": continuous}))
    return small(env, **{"learning_starts": 100, "batch_size": 64, "learning_rate": 3e-3, **settings}).learn(steps)


def cost_to_go(model, obs):
    with torch.no_grad():
        return model.world_model.cost_to_go(model.world_model.encode(np.array([[obs]]))).mean().item()


def planned_cost(model, obs):
    """What the plan from here is expected to cost, closing with the learned cost-to-go."""
    with torch.no_grad():
        z = model.world_model.encode(np.array([[obs]], dtype=np.float32))
        warm = torch.zeros(1, model.policy.planner.horizon, model.policy.action_dim)
        plan, _, _ = model.policy.deliberate(z, warm, torch.Generator().manual_seed(0))
        return model.world_model.trajectory_cost(z, plan.actions.unsqueeze(1)).item()


def action(model, mode, obs):
    model.set_mode(mode)
    found = model.predict(np.array([obs], dtype=np.float32), deterministic=True)[0]
    return float(np.asarray(found).reshape(-1)[0])


@CONTINUOUS
def test_constant_reward(small, continuous):
    model = train(small, "ConstantReward", continuous)
    assert cost_to_go(model, 0.0) == pytest.approx(-1.0, abs=0.1)
    assert planned_cost(model, 0.0) == pytest.approx(-1.0, abs=0.15)


@CONTINUOUS
def test_the_value_follows_the_observation(small, continuous):
    model = train(small, "ObservationIsValue", continuous)
    for obs in (-1.0, 1.0):
        assert cost_to_go(model, obs) == pytest.approx(-obs, abs=0.15)
        assert planned_cost(model, obs) == pytest.approx(-obs, abs=0.3)


@CONTINUOUS
def test_the_future_is_discounted(small, continuous):
    model = train(small, "Discounting", continuous, gamma=0.5)
    assert cost_to_go(model, 1.0) == pytest.approx(-1.0, abs=0.1)
    assert cost_to_go(model, 0.0) == pytest.approx(-0.5, abs=0.1)
    assert planned_cost(model, 0.0) == pytest.approx(-0.5, abs=0.15)


@CONTINUOUS
@pytest.mark.parametrize("mode", ["actor", "planner"])
def test_the_action_matters(small, continuous, mode):
    assert action(train(small, "ActionMatters", continuous), mode, 0.0) > 0.8


@CONTINUOUS
@pytest.mark.parametrize("mode", ["actor", "planner"])
def test_the_right_action_depends_on_the_observation(small, continuous, mode):
    model = train(small, "ActionFollowsObservation", continuous, steps=700)
    low, high = action(model, mode, -1.0), action(model, mode, 1.0)
    assert (low, high) == (0.0, 1.0) if not continuous else (low < -0.8 and high > 0.8)


def rewards(model, mode, values=(-1.0, 1.0)):
    """What the actions of a mode bring, given each of the values to see."""
    model.set_mode(mode)
    env = model.get_env().envs[0].unwrapped
    found = []
    for env.value in values:
        chosen, _ = model.predict(env.observation(), deterministic=True)
        found.append(env.reward(env.read(chosen)))
    return found


@pytest.mark.parametrize("name", ["ChoicesTogether", "BitsDiffer"])
def test_choices_that_are_worth_nothing_alone_are_found_together(small, name):
    model = train(small, name, steps=700)
    for mode in ("actor", "planner"):
        assert rewards(model, mode) == [1.0, 1.0], mode
    assert cost_to_go(model, 1.0) == pytest.approx(-1.0, abs=0.15)


@pytest.mark.parametrize("name", ["BrightOrDark", "PictureAndNumber"])
def test_pictures_are_seen_alone_and_beside_numbers(small, name):
    model = train(small, name, steps=1000, train_freq=2, buffer_size=1000, learning_rate=1e-3)
    env = model.get_env().envs[0].unwrapped
    for mode in ("actor", "planner"):
        model.set_mode(mode)
        for _ in range(8):
            obs, _ = env.reset()
            chosen, _ = model.predict(obs, deterministic=True)
            assert env.reward(env.read(chosen)) == 1.0, mode
    z = model.world_model.encode(env.observation() if name == "PictureAndNumber" else np.moveaxis(env.observation(), -1, 0))
    with torch.no_grad():
        assert model.world_model.cost_to_go(z[None]).mean().item() == pytest.approx(-1.0, abs=0.25)


@pytest.mark.parametrize("kind", ["gru", "attention"])
def test_what_was_shown_at_first_is_remembered(small, kind):
    model = train(small, "CueAtFirst", False, steps=450, memory=kind)
    assert recalled(model, "actor") == recalled(model, "planner") == [0.0, 1.0]


def test_without_a_memory_network_what_was_shown_at_first_is_lost(small):
    low, high = recalled(train(small, "CueAtFirst", False, steps=300), "actor")
    assert low == high


def recalled(model, mode):
    """The last action of an episode after either cue."""
    model.set_mode(mode)
    found = []
    for cue in (-1.0, 1.0):
        state = None
        for value in (cue, 0.0, 0.0, 0.0):
            acted, state = model.predict(np.array([value], dtype=np.float32), state, deterministic=True)
        found.append(float(acted))
    return found
