"""The exact models make the steps that gymnasium makes."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from jepa_agent.experiments.exact_models import CartPole, Pendulum


def stepped(env, actions, to_model):
    """States, actions as the model takes them, rewards and ends along an episode of ``env``."""
    env.reset(seed=3)
    states, rewards, ends = [np.array(env.unwrapped.state, dtype=np.float64)], [], []
    for action in actions:
        _, reward, terminated, _, _ = env.step(action)
        states.append(np.array(env.unwrapped.state, dtype=np.float64))
        rewards.append(float(reward))
        ends.append(terminated)
        if terminated:
            break
    given = torch.stack([to_model(action) for action in actions[: len(rewards)]])
    return torch.as_tensor(np.stack(states)), given, torch.tensor(rewards, dtype=torch.float64), torch.tensor(ends)


def test_the_pendulum_steps_as_gymnasiums():
    env = gym.make("Pendulum-v1")
    torques = np.random.default_rng(0).uniform(-2, 2, (60, 1))
    states, actions, rewards, _ = stepped(env, torques, lambda torque: torch.as_tensor(torque / 2.0))
    model = Pendulum()
    torch.testing.assert_close(model.imagine(states[0], actions), states, rtol=0, atol=1e-11)
    torch.testing.assert_close(model.cost(states[:-1], actions).cost, -rewards, rtol=0, atol=1e-11)
    total = model.trajectory_cost(states[:1].float(), actions[None, None].float())
    assert total.item() == pytest.approx(-rewards.sum().item(), rel=1e-4)


def test_the_pendulum_reads_its_state_from_what_is_observed():
    env = gym.make("Pendulum-v1")
    obs, _ = env.reset(seed=1)
    np.testing.assert_allclose(Pendulum().encode(torch.as_tensor(obs)).numpy(), env.unwrapped.state, atol=1e-6)


def test_the_cart_pole_steps_and_falls_as_gymnasiums():
    env = gym.make("CartPole-v1")
    pushes = [1, 0, 1, 1, 0, *[1] * 30]
    states, actions, rewards, ends = stepped(env, pushes, lambda push: torch.eye(2, dtype=torch.float64)[push])
    model = CartPole()
    assert ends[-1]
    torch.testing.assert_close(model.imagine(states[0], actions), states, rtol=0, atol=1e-11)
    step = model.cost(states[:-1], actions)
    torch.testing.assert_close(step.cost, -rewards)
    assert torch.equal(step.terminated.bool(), ends)
    beyond = torch.cat([actions, actions[-1:].expand(5, 2)])  # nothing is paid after the end
    assert model.trajectory_cost(states[:1], beyond[None, None]).item() == -len(rewards)


@pytest.mark.parametrize("model", [Pendulum(), CartPole()])
def test_slopes_reach_the_actions(model):
    z = torch.zeros(1, 4)[:, : 2 if isinstance(model, Pendulum) else 4] + 0.1
    actions = model.actor_sequence(z, 4).requires_grad_(True)
    model.imagine(z, actions)[..., -1, :].sum().backward()
    assert (actions.grad != 0).any(dim=-1).all()


def test_the_least_cost_is_nothing_upright_and_what_a_known_swing_up_pays_hanging():
    model, steps = Pendulum(), 60
    upright, hanging = model.least_cost(torch.tensor([[0.0, 0.0], [np.pi, 0.0]]), steps, angles=120, speeds=81, torques=9)
    assert upright.item() == pytest.approx(0.0, abs=1e-3)
    doing_nothing = steps * np.pi**2
    assert 0.3 * doing_nothing < hanging.item() < 0.75 * doing_nothing


def test_with_one_step_to_go_the_least_cost_is_that_of_no_torque():
    z = torch.tensor([[1.0, 2.0], [-2.0, 0.5]])
    expected = z[:, 0].square() + 0.1 * z[:, 1].square()
    torch.testing.assert_close(Pendulum().least_cost(z, 1), expected, rtol=0, atol=2e-3)
