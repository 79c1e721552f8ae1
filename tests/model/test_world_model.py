import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from jepa_agent import WorldModel
from jepa_agent.model.actor import BoundedActor
from jepa_agent.model.cost import CostModule, JointCostToGo
from jepa_agent.model.encoders import Encoder, VectorObservation
from jepa_agent.model.predictor import Predictor

D, A, GAMMA = 8, 2, 0.9


@pytest.fixture
def model():
    torch.manual_seed(0)
    observation = VectorObservation(spaces.Box(-1, 1, (3,)))
    return WorldModel(
        observation,
        Encoder(3, D, [16]),
        Predictor(D, A, [16]),
        CostModule(D, A, [16], JointCostToGo(D, A, [16], ensemble_size=3), gamma=GAMMA, energy=True),
        BoundedActor(D, A, [16]),
        gamma=GAMMA,
    )


def test_verbs_take_users_arrays_of_any_leading_shape(model):
    z = model.encode(np.zeros((4, 5, 3)))
    assert z.shape == (4, 5, D)
    assert model.encode([0.0, 0.0, 0.0]).shape == (D,)
    assert model.predict(z, np.zeros((4, 5, A))).shape == (4, 5, D)
    assert model.cost(z, np.zeros((4, 5, A))).cost.shape == (4, 5)
    assert model.imagine(z[:, 0], np.zeros((4, 6, A))).shape == (4, 7, D)
    assert model.cost_to_go(z[:, 0]).shape == (3, 4)
    assert model.trajectory_cost(z[:, 0], np.zeros((4, 9, 6, A))).shape == (4, 9)


def test_imagining_is_predicting_again_and_again(model):
    z, actions = model.encode(np.ones((1, 3))), torch.randn(1, 3, A).clamp(-1, 1)
    by_hand = [z]
    for t in range(3):
        by_hand.append(model.predict(by_hand[-1], actions[:, t]))
    torch.testing.assert_close(model.imagine(z, actions), torch.stack(by_hand, 1))


def test_trajectory_cost_averages_the_depths(model):
    model.cost_module.cost_scale.fill_(7.0)
    z, actions = model.encode(np.ones((1, 3))), torch.randn(1, 1, 2, A).clamp(-1, 1)
    path = model.imagine(z, actions[:, 0])
    paid, alive, depths = torch.zeros(1), torch.ones(1), []
    for k in range(3):
        action = actions[:, 0, k] if k < 2 else model.actor(path[:, k])
        depths.append(paid + alive * model.cost_to_go(path[:, k], action).mean(0))
        if k < 2:
            step = model.cost(path[:, k], action)
            paid, alive = paid + alive * step.cost, alive * GAMMA * (1 - step.terminated)
    torch.testing.assert_close(model.trajectory_cost(z, actions)[0], torch.stack(depths).mean(0))


def test_costs_carry_the_scale_of_the_rewards(model):
    z, actions = model.encode(np.ones((1, 3))), torch.zeros(1, 1, 2, A)
    small = model.trajectory_cost(z, actions)
    model.cost_module.cost_scale.fill_(100.0)
    torch.testing.assert_close(model.trajectory_cost(z, actions), 100.0 * small)


def test_energy_raises_the_cost_of_imagined_latents_by_its_weight(model):
    z, actions = model.encode(np.ones((1, 3))), torch.zeros(1, 1, 2, A)
    plain, energy = model.trajectory_cost(z, actions), model.cost_module.energy(model.imagine(z, actions[:, 0])).mean()
    model.energy_weight = 0.5
    torch.testing.assert_close(model.trajectory_cost(z, actions), plain + 0.5 * energy)


def test_the_actors_own_sequence_follows_the_imagined_path(model):
    z = model.encode(np.ones((2, 3)))
    own = model.actor_sequence(z, 3)
    torch.testing.assert_close(own[:, 2], model.actor(model.imagine(z, own)[:, 2]))


def test_a_disturbed_actor_answers_to_what_it_imagines(model):
    z, spreads = model.encode(np.random.default_rng(0).normal(size=(2, 3))), torch.tensor([[0.25], [1.0]])
    actions = model.disturbed_sequences(z, 3, 2, torch.Generator().manual_seed(0))
    path, again = model.imagine(z.unsqueeze(1).expand(-1, 2, -1), actions), torch.Generator().manual_seed(0)
    for t in range(3):
        expected = model.actor.explore(model.actor(path[:, :, t]), spreads, again)
        torch.testing.assert_close(actions[:, :, t], expected)
    alone = model.disturbed_sequences(z[1:], 3, 2, torch.Generator().manual_seed(0))
    torch.testing.assert_close(actions[1:], alone)  # whoever else there is


def test_many_candidates_cost_what_each_costs_alone(model):
    z, actions = model.encode(np.random.default_rng(0).normal(size=(5, 3))), torch.randn(5, 70, 2, A)  # several blocks
    alone = torch.stack([model.member_costs(z[i : i + 1], actions[i : i + 1])[:, 0] for i in range(5)], dim=1)
    assert alone.std() > 0
    torch.testing.assert_close(model.member_costs(z, actions), alone)


def test_ids_of_our_own_environments_are_registered():
    assert gym.make("JEPA/Discounting-v0").observation_space.shape == (1,)
