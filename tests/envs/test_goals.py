import gymnasium as gym
import numpy as np
import pytest
import torch

from jepa_agent.envs.goals import CartPosition, PendulumAngle, PendulumSpin, RewardedBy

REWARDS = {
    PendulumAngle(0.3, 0.1): ([np.cos(0.3), np.sin(0.3), 5.0], [np.cos(0.4), np.sin(0.4), 5.0]),
    PendulumSpin(6.0, 1.0): ([1.0, 0.0, 6.0], [0.0, 1.0, 5.0]),
    CartPosition(1.0, 0.2): ([1.0, 3.0, 0.1, 0.0], [0.8, 3.0, 0.1, 0.0]),
}


@pytest.mark.parametrize("reward", REWARDS)
def test_a_reward_is_one_at_its_goal_and_a_half_a_width_away_for_arrays_and_tensors(reward):
    points = np.array(REWARDS[reward])
    np.testing.assert_allclose(reward(points), [1.0, 0.5], atol=1e-3)
    torch.testing.assert_close(reward(torch.tensor(points)), torch.tensor(reward(points)))


def test_points_off_the_circle_gain_nothing():
    beyond = np.array([3 * np.cos(0.3), 3 * np.sin(0.3), 0.0])
    assert 0 < PendulumAngle(0.3)(beyond) < 0.01


def test_an_environment_is_rewarded_for_where_a_step_leads():
    env = RewardedBy(gym.make("CartPole-v1"), CartPosition(0.0, 0.1))
    env.reset(seed=0)
    obs, reward, terminated, truncated, _ = env.step(1)
    assert reward == pytest.approx(1 / (1 + (obs[0] / 0.1) ** 2))
    assert not terminated
    assert not truncated


@pytest.mark.parametrize(
    ("env_id", "settings", "steps"),
    [
        ("JEPA/PendulumAngle-v0", {"angle": -0.2, "width": 0.3}, 200),
        ("JEPA/PendulumSpin-v0", {"speed": 5.0, "width": 2.0}, 200),
        ("JEPA/CartPosition-v0", {"position": -1.0, "width": 0.4}, 500),
    ],
)
def test_the_registered_tasks_take_their_goal_and_end_as_the_plain_ones_do(env_id, settings, steps):
    env = gym.make(env_id, **settings)
    assert env.spec.max_episode_steps == steps
    goal, width = settings.values()
    reward = env.get_wrapper_attr("reward")
    assert tuple(vars(reward).values()) == (goal, width)
