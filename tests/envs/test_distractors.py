"""Inputs that tell nothing of the task."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import jepa_agent  # noqa: F401 - registers the environments
from jepa_agent.envs.distractors import Distractors

IDS = [f"JEPA/{name}{kind}-v0" for name in ("Pendulum", "CartPole") for kind in ("Noise", "Others")]


def walk(env, seed, steps=30):
    seen = [env.reset(seed=seed)[0]]
    env.action_space.seed(seed)
    seen += [env.step(env.action_space.sample())[0] for _ in range(steps)]
    return np.array(seen)


@pytest.mark.parametrize("name", IDS)
def test_the_task_is_the_same_and_sixteen_inputs_follow(name):
    with gym.make(name) as env, gym.make(env.spec.kwargs["env"]) as plain:
        check_env(env.unwrapped, skip_render_check=True)
        seen, own = walk(env, 3), walk(plain, 3)
        assert env.spec.max_episode_steps == plain.spec.max_episode_steps
        assert env.observation_space.contains(seen[5])
    size = own.shape[1]
    assert seen.shape[1] == size + 16
    np.testing.assert_array_equal(seen[:, :size], own)
    assert (seen[1:, size:] != seen[:-1, size:]).any(0).all()  # each of them moves


@pytest.mark.parametrize("name", IDS)
def test_a_seed_fixes_what_is_appended(name):
    with gym.make(name) as env:
        first, second, other = walk(env, 3), walk(env, 3), walk(env, 4)
    np.testing.assert_array_equal(first, second)
    assert (first[0] != other[0]).all()


def test_white_noise_has_unit_variance_and_others_are_states_of_their_environment():
    with gym.make("JEPA/PendulumNoise-v0") as env:
        noise = walk(env, 0, 150)[:, 3:]
    assert noise.std() == pytest.approx(1.0, abs=0.05)
    with Distractors(gym.make("Pendulum-v1"), count=6, other="CartPole-v1") as env:
        carts = walk(env, 0, 5)[:, 3:]
        assert len(env.others) == 2
    with gym.make("CartPole-v1") as cart:
        np.testing.assert_array_equal(carts[0, :4], cart.reset(seed=0)[0])
        np.testing.assert_array_equal(carts[0, 4:], cart.reset(seed=1)[0][:2])


def test_others_begin_anew_when_their_episodes_end():
    with Distractors(gym.make("Pendulum-v1"), count=4, other="CartPole-v1") as env:
        angles = walk(env, 0, 150)[:, 5]
    assert np.abs(angles).max() < 0.6  # a pole that has fallen is put up again


def test_what_has_no_axis_is_refused():
    with pytest.raises(ValueError, match="a Box of one axis"):
        Distractors(gym.make("FrozenLake-v1"))
    with pytest.raises(ValueError, match="a Box of one axis"):
        Distractors(gym.make("CartPole-v1"), other="FrozenLake-v1")
    with pytest.raises(ValueError, match="count must be at least 1"):
        Distractors(gym.make("CartPole-v1"), 0)
