import gymnasium as gym
import numpy as np
import pytest

import jepa_agent  # noqa: F401
from jepa_agent.envs.partial import HideFeatures


@pytest.mark.parametrize(
    ("ours", "theirs", "shown", "action"),
    [("JEPA/CartPoleNoVel-v1", "CartPole-v1", [0, 2], 1), ("JEPA/PendulumNoVel-v1", "Pendulum-v1", [0, 1], [0.5])],
)
def test_is_the_known_task_without_what_is_hidden(ours, theirs, shown, action):
    env, whole = gym.make(ours), gym.make(theirs)
    assert env.spec.max_episode_steps == whole.spec.max_episode_steps
    obs, full = env.reset(seed=3)[0], whole.reset(seed=3)[0]
    for _ in range(4):
        np.testing.assert_array_equal(obs, full[shown])
        assert env.observation_space.contains(obs)
        obs, *rest, _ = env.step(np.array(action) if theirs.startswith("P") else action)
        full, *same, _ = whole.step(np.array(action) if theirs.startswith("P") else action)
        assert rest == same


def test_what_cannot_be_hidden_is_refused():
    with pytest.raises(ValueError, match=r"hidden names \[4\], but there are features 0 to 3 only"):
        HideFeatures(gym.make("CartPole-v1"), [1, 4])
    with pytest.raises(ValueError, match="leave one"):
        HideFeatures(gym.make("CartPole-v1"), range(4))
    with pytest.raises(ValueError, match="one axis, not in Discrete"):
        HideFeatures(gym.make("FrozenLake-v1"), [0])
