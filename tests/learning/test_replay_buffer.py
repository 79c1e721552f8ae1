"""Windows, checked by arithmetic: the observation is the number of the step, the reward its negative."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from jepa_agent.learning.replay_buffer import SequenceReplayBuffer

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


def test_windows_are_read_without_a_warning(recwarn):
    torch.set_warn_always(True)  # torch warns once only of arrays that are not writable
    try:
        assert window(filled(20), age=7).obs[:, 0:3].shape == (1, 3, 1)
    finally:
        torch.set_warn_always(False)
    assert not recwarn.list


def test_a_window_holds_consecutive_steps():
    batch = window(filled(20), age=7)
    assert batch.obs[0, :][..., 0].tolist() == [7, 8, 9, 10, 11]
    assert batch.cost[0].tolist() == [7, 8, 9, 10]
    np.testing.assert_allclose(batch.action[0, :, 0], [0.07, 0.08, 0.09, 0.10], atol=1e-6)
    assert batch.mask[0].tolist() == [1, 1, 1, 1]


def test_what_follows_a_termination_is_masked_and_its_successor_is_the_real_one():
    batch = window(filled(20, ends=[8]), age=7)
    assert batch.mask[0].tolist() == [1, 1, 0, 0]
    assert batch.terminated[0, :2].tolist() == [0, 1]
    assert batch.obs[0, 2][..., 0] == 8.5


def test_a_time_limit_ends_the_window_but_is_no_termination():
    batch = window(filled(20, limits=[8]), age=7)
    assert batch.mask[0].tolist() == [1, 1, 0, 0]
    assert batch.terminated[0].sum() == 0


def test_cutting_ends_episodes_under_way_as_by_a_time_limit():
    buffer = filled(3, n_envs=2)
    buffer.dones[2, 1] = 1.0  # the second environment's has just ended by itself
    buffer.cut()
    assert buffer.dones[2].tolist() == [1.0, 1.0]
    assert buffer.timeouts[2].tolist() == [1.0, 0.0]
    assert window(buffer, age=2, length=1).terminated.item() == 0.0
    assert window(buffer, age=2, length=1, env=1).terminated.item() == 1.0


def test_windows_stop_at_the_newest_transition():
    batch = window(filled(20), age=18)
    assert batch.mask[0].tolist() == [1, 1, 0, 0]


def test_a_full_ring_counts_from_its_oldest_and_never_crosses_the_seam():
    buffer = filled(25, size=10)  # holds steps 15..24, the seam in the middle of the array
    assert window(buffer, age=0).obs[0, :][..., 0].tolist() == [15, 16, 17, 18, 19]
    batch = window(buffer, age=8)
    assert batch.obs[0, :3][..., 0].tolist() == [23, 24, 25]
    assert batch.mask[0].tolist() == [1, 1, 0, 0]


def test_environments_are_kept_apart():
    batch = window(filled(20, n_envs=3), age=2, env=2)
    assert batch.obs[0, :][..., 0].tolist() == [2002, 2003, 2004, 2005, 2006]


def test_windows_start_more_often_the_newer_the_step():
    starts = filled(145, size=100).sample_sequences(20_000, 3).obs[:, 0][..., 0] - 45
    share = np.histogram(starts, bins=[0, 50, 100])[0] / 20_000
    np.testing.assert_allclose(share, [0.25, 0.75], atol=0.02)


def test_every_stored_transition_can_start_a_window():
    np.random.seed(0)
    starts = filled(25, size=10).sample_sequences(500, 3).obs[:, 0][..., 0]
    assert sorted(set(starts.tolist())) == list(range(15, 25))


def test_discrete_actions_become_one_hot_from_where_they_start():
    batch = window(filled(9, action_space=spaces.Discrete(3, start=5)), age=4)
    assert batch.action[0].argmax(-1).tolist() == [1, 2, 0, 1]
    assert batch.action.shape == (1, 4, 3)


def test_a_staged_plan_stands_beside_its_own_transition_only():
    buffer = filled(3)
    buffer.stage_plan(np.array([[0.5]]), np.array([True]))
    obs = np.array([[3.0]], dtype=np.float32)
    for _ in range(2):
        buffer.add(obs, obs, np.zeros((1, 1)), np.zeros(1), np.zeros(1), [{}])
    assert window(buffer, age=3).plan_mean.item() == 0.5
    assert [window(buffer, age=age).planned.item() for age in (2, 3, 4)] == [False, True, False]


def before(buffer, age, count=3, env=0):
    return buffer.window(np.array([age]), np.array([env]), 2, past=count).past


def test_the_past_is_what_came_just_before_the_window():
    past = before(filled(20), age=7)
    assert past.obs[0, :][..., 0].tolist() == [4, 5, 6]
    np.testing.assert_allclose(past.action[0, :, 0], [0.04, 0.05, 0.06], atol=1e-6)
    assert past.mask[0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("end", ["ends", "limits"])
def test_the_past_never_reaches_into_an_earlier_episode(end):
    buffer = filled(20, **{end: [5]})
    assert before(buffer, age=6).mask[0].tolist() == [0, 0, 0]
    past = before(buffer, age=8)
    assert past.mask[0].tolist() == [0, 1, 1]
    assert past.obs[0, 1:][..., 0].tolist() == [6, 7]
    assert before(buffer, age=5).mask[0].tolist() == [1, 1, 1]


def test_the_past_ends_at_the_oldest_transition_also_in_a_full_ring():
    assert before(filled(20), age=1).mask[0].tolist() == [0, 0, 1]
    ring = filled(25, size=10)  # holds steps 15..24, the seam in the middle of the array
    assert before(ring, age=0).mask[0].tolist() == [0, 0, 0]
    past = before(ring, age=2)
    assert past.mask[0].tolist() == [0, 1, 1]
    assert past.obs[0, 1:][..., 0].tolist() == [15, 16]
    assert before(ring, age=7).obs[0, :][..., 0].tolist() == [19, 20, 21]  # across the seam


def test_the_past_of_one_environment_is_not_anothers():
    assert before(filled(20, n_envs=3), age=4, env=2).obs[0, :][..., 0].tolist() == [2001, 2002, 2003]


def test_asking_for_a_past_draws_the_same_windows():
    buffer, found = filled(50), []
    for past in (0, 4):
        np.random.seed(0)
        found.append(buffer.sample_sequences(30, 3, past=past).obs[:, :])
    assert found[0].equal(found[1])


@pytest.mark.parametrize("count", [50, 99, 1_000])
def test_what_is_spread_over_time_is_spread_over_environments_too(count):
    buffer = filled(100, n_envs=4)
    age, envs = buffer.spread(count)
    assert len(set(zip(age.tolist(), envs.tolist(), strict=True))) == len(age) == min(count, 400)
    assert np.bincount(envs, minlength=4).min() >= len(age) // 4
    assert (age.min(), age.max()) == (0, 99)
