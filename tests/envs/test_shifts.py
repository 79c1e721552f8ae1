import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from jepa_agent.envs.shifts import DelayedActions, NoisySensors, Physics, WeakActuators


def first_steps(env, actions):
    env.reset(seed=0)
    return np.stack([env.step(action)[0] for action in actions])


def pendulum():
    return gym.make("Pendulum-v1")


ACTIONS = np.array([[2.0], [-1.0], [0.5]], np.float32)


def test_constants_are_multiplied_and_what_is_computed_of_them_is_renewed():
    world = Physics(gym.make("CartPole-v1"), {"length": 2.0, "masspole": 3.0}).unwrapped
    assert (world.length, world.masspole) == (1.0, pytest.approx(0.3))
    assert world.total_mass == pytest.approx(1.3)
    assert world.polemass_length == pytest.approx(0.3)
    assert gym.make("CartPole-v1").unwrapped.length == 0.5


def test_weak_actuators_do_what_a_smaller_action_does():
    weak = first_steps(WeakActuators(pendulum(), 0.5), ACTIONS)
    np.testing.assert_array_equal(weak, first_steps(pendulum(), 0.5 * ACTIONS))


def test_actions_arrive_a_step_later_and_a_new_episode_begins_with_none():
    late = DelayedActions(pendulum())
    expected = first_steps(pendulum(), np.concatenate([np.zeros((1, 1), np.float32), ACTIONS[:-1]]))
    np.testing.assert_array_equal(first_steps(late, ACTIONS), expected)
    np.testing.assert_array_equal(first_steps(late, ACTIONS), expected)


def test_noise_is_of_the_given_size_and_of_the_seed():
    one, other = (first_steps(NoisySensors(pendulum(), [0.0, 0.0, 0.3]), np.tile(ACTIONS, (30, 1))) for _ in range(2))
    clean = first_steps(pendulum(), np.tile(ACTIONS, (30, 1)))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one[:, :2], clean[:, :2])
    assert 0.2 < (one - clean)[:, 2].std() < 0.4


@pytest.mark.parametrize(
    "make",
    [
        lambda: Physics(gym.make("CartPole-v1"), {"gravity": 1.5}),
        lambda: WeakActuators(pendulum(), [0.5]),
        lambda: DelayedActions(gym.make("CartPole-v1"), 2),
        lambda: NoisySensors(pendulum(), 0.1),
    ],
)
def test_gymnasium_takes_them(make):
    check_env(make(), skip_render_check=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Physics(pendulum(), {"weight": 2.0}), "PendulumEnv has no number 'weight' to be multiplied"),
        (lambda: Physics(pendulum(), {"g": 0.0}), "factor of g must be above zero"),
        (lambda: WeakActuators(gym.make("CartPole-v1"), 0.5), "weakened of Box actions"),
        (lambda: WeakActuators(pendulum(), [0.5, 0.5]), "2 factors were given"),
        (lambda: DelayedActions(pendulum(), 0), "steps must be at least 1, got 0"),
        (lambda: NoisySensors(gym.make("FrozenLake-v1"), 0.1), "added to Box observations"),
        (lambda: NoisySensors(pendulum(), -0.1), "std must be at least 0"),
    ],
)
def test_what_cannot_be_shifted_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
