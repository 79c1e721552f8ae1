import gymnasium as gym
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from jepa_agent.costs import LearnedCost
from jepa_agent.envs.shifts import DelayedActions, Physics, WeakActuators


@pytest.fixture
def model(small):
    return small("Pendulum-v1", mode="actor", batch_size=8).learn(30)


def weights(part):
    return torch.nn.utils.parameters_to_vector(part.parameters()).detach().clone()


def heavy():
    return Physics(gym.make("Pendulum-v1"), {"g": 2.0})


def test_no_steps_change_nothing(model):
    before, stored = weights(model.policy), model.replay_buffer.size()
    assert model.adapt(heavy(), 0) is model
    assert torch.equal(weights(model.policy), before)
    assert (model.num_timesteps, model.replay_buffer.size()) == (30, stored)


def test_the_steps_are_counted_and_stored_all_networks_learn_and_the_own_environment_comes_back(model):
    env, updates = model.env, model._n_updates
    before = {name: weights(getattr(model.world_model, name)) for name in ("encoder", "predictor", "cost_module", "actor")}
    model.adapt(heavy(), 12)
    assert model.env is env
    assert model.num_timesteps == 42
    assert model._n_updates == updates + 12
    assert model.replay_buffer.size() == 12
    for name, old in before.items():
        assert not torch.equal(weights(getattr(model.world_model, name)), old), name
    model.learn(5, reset_num_timesteps=False)
    assert model.num_timesteps == 47


def test_the_steps_are_taken_in_the_other_world(model):
    class Counted(gym.Wrapper):
        steps = 0

        def step(self, action):
            self.steps += 1
            return super().step(action)

    world = Counted(gym.make("Pendulum-v1"))
    model.adapt(world, 12)
    assert world.steps == 12


def test_the_world_model_alone_adapts_and_the_actor_stays(model):
    actor, predictor = weights(model.world_model.actor), weights(model.world_model.predictor)
    model.adapt(heavy(), 12, representation_only=True)
    assert torch.equal(weights(model.world_model.actor), actor)
    assert not torch.equal(weights(model.world_model.predictor), predictor)
    assert model.gradient_steps == -1
    assert model.num_timesteps == 42


def test_whatever_happens_there_the_own_environment_comes_back(model):
    class Breaks(gym.Wrapper):
        def step(self, action):
            raise RuntimeError("broken")

    env = model.env
    with pytest.raises(RuntimeError, match="broken"):
        model.adapt(Breaks(gym.make("Pendulum-v1")), 5)
    assert model.env is env
    assert model.num_timesteps == 30


@pytest.mark.parametrize(
    ("world", "n_steps", "message"),
    [
        (heavy, -1, "n_steps must be a whole number of at least 0, got -1"),
        (heavy, 0.5, "n_steps must be a whole number"),
        (lambda: "Pendulum-v1", 5, "must be an environment, such as gym.make.* returns, got 'Pendulum-v1'"),
        (lambda: None, 5, "must be an environment"),
        (lambda: gym.make("CartPole-v1"), 5, "another world must have the agent's spaces"),
        (lambda: make_vec_env("Pendulum-v1", 2), 5, r"side by side, got 2: give as many"),
        (lambda: VecNormalize(make_vec_env("Pendulum-v1", 1)), 5, "VecNormalize must be around both"),
    ],
)
def test_a_world_that_does_not_fit_is_refused_before_anything_is_forgotten(model, world, n_steps, message):
    with pytest.raises(ValueError, match=message):
        model.adapt(world(), n_steps)
    assert model.replay_buffer.size() == 30


def test_while_a_cost_is_set_there_is_no_adapting(model):
    model.set_cost(LearnedCost())
    with pytest.raises(ValueError, match="another cost is set"):
        model.adapt(WeakActuators(DelayedActions(gym.make("Pendulum-v1")), 0.5), 5)
    assert model.replay_buffer.size() == 30
