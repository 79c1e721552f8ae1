"""Windows, checked by arithmetic: the observation is the number of the step, the reward its negative."""

import numpy as np
import pytest
from gymnasium import spaces

from jepa_agent.replay_buffer import SequenceReplayBuffer

OBS = spaces.Box(-np.inf, np.inf, (1,), np.float32)


def filled(steps, size=100, ends=(), limits=(), n_envs=1, action_space=None):
    """Env e's observation at step k is ``k + 1000 e``; its successor ``+ 0.5`` where an episode ends there."""
    buffer = SequenceReplayBuffer(size * n_envs, OBS, action_space or spaces.Box(-1, 1, (1,)), device="cpu", n_envs=n_envs)
    for k in range(steps):
        obs = np.array([[k + 1000.0 * e] for e in range(n_envs)], dtype=np.float32)
        done = k in ends or k in limits
        infos = [{"TimeLimit.truncated": k in limits} for _ in range(n_envs)]
        action = np.full((n_envs, 1), 0.01 * k, dtype=np.float32)
        if isinstance(buffer.action_space, spaces.Discrete):
            action = np.full((n_envs, 1), 5 + k % 3)
        after = obs + (0.5 if done else 1.0)
        buffer.add(obs, after, action, -obs[:, 0], np.full(n_envs, done), infos)
    return buffer


def window(buffer, age, length=4, env=0):
    return buffer.window(np.array([age]), np.array([env]), length)


def test_a_window_holds_consecutive_steps():
    batch = window(filled(20), age=7)
    assert batch.obs[0, :, 0].tolist() == [7, 8, 9, 10, 11]
    assert batch.cost[0].tolist() == [7, 8, 9, 10]
    np.testing.assert_allclose(batch.action[0, :, 0], [0.07, 0.08, 0.09, 0.10], atol=1e-6)
    assert batch.mask[0].tolist() == [1, 1, 1, 1]


def test_what_follows_a_termination_is_masked_and_its_successor_is_the_real_one():
    batch = window(filled(20, ends=[8]), age=7)
    assert batch.mask[0].tolist() == [1, 1, 0, 0]
    assert batch.terminated[0, :2].tolist() == [0, 1]
    assert batch.obs[0, 2, 0] == 8.5


def test_a_time_limit_ends_the_window_but_is_no_termination():
    batch = window(filled(20, limits=[8]), age=7)
    assert batch.mask[0].tolist() == [1, 1, 0, 0]
    assert batch.terminated[0].sum() == 0


def test_windows_stop_at_the_newest_transition():
    batch = window(filled(20), age=18)
    assert batch.mask[0].tolist() == [1, 1, 0, 0]


def test_a_full_ring_counts_from_its_oldest_and_never_crosses_the_seam():
    buffer = filled(25, size=10)  # holds steps 15..24, the seam in the middle of the array
    assert window(buffer, age=0).obs[0, :, 0].tolist() == [15, 16, 17, 18, 19]
    batch = window(buffer, age=8)
    assert batch.obs[0, :3, 0].tolist() == [23, 24, 25]
    assert batch.mask[0].tolist() == [1, 1, 0, 0]


def test_environments_are_kept_apart():
    batch = window(filled(20, n_envs=3), age=2, env=2)
    assert batch.obs[0, :, 0].tolist() == [2002, 2003, 2004, 2005, 2006]


def test_windows_start_more_often_the_newer_the_step():
    starts = filled(145, size=100).sample_sequences(20_000, 3).obs[:, 0, 0] - 45
    share = np.histogram(starts, bins=[0, 50, 100])[0] / 20_000
    np.testing.assert_allclose(share, [0.25, 0.75], atol=0.02)


def test_every_stored_transition_can_start_a_window():
    np.random.seed(0)
    starts = filled(25, size=10).sample_sequences(500, 3).obs[:, 0, 0]
    assert sorted(set(starts.tolist())) == list(range(15, 25))


def test_discrete_actions_become_one_hot_from_where_they_start():
    batch = window(filled(9, action_space=spaces.Discrete(3, start=5)), age=4)
    assert batch.action[0].argmax(-1).tolist() == [1, 2, 0, 1]
    assert batch.action.shape == (1, 4, 3)


def test_a_staged_plan_stands_beside_its_own_transition_only():
    buffer = filled(3)
    buffer.stage_plan(np.array([[0.5]]), np.array([[0.1]]))
    obs = np.array([[3.0]], dtype=np.float32)
    for _ in range(2):
        buffer.add(obs, obs, np.zeros((1, 1)), np.zeros(1), np.zeros(1), [{}])
    assert window(buffer, age=3).plan_mean.item() == 0.5
    assert window(buffer, age=3).plan_std.item() == pytest.approx(0.1)
    assert window(buffer, age=4).plan_std.item() < 0
    assert window(buffer, age=2).plan_std.item() < 0
