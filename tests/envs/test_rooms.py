import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_for_gymnasium
from stable_baselines3.common.env_checker import check_env as check_for_sb3

import jepa_agent  # noqa: F401
from jepa_agent.envs.rooms import CLEARANCE, DOOR, REACHED, STEP, TwoRooms, TwoRoomsPixels

BOTH = pytest.mark.parametrize("env_id", ["JEPA/TwoRooms-v0", "JEPA/TwoRoomsPixels-v0"])
CENTRE = [0.45, 0.2, 0.5, 0.5]  # left of a wall in the middle, below its door


def after(state, *actions):
    env = TwoRooms()
    env.reset(options={"state": state})
    for action in actions:
        env.step(np.array(action))
    return env.position


@BOTH
def test_passes_both_checks_and_is_the_same_again_under_a_seed(env_id, recwarn):
    env = gym.make(env_id, render_mode="rgb_array")
    check_for_gymnasium(env.unwrapped)
    check_for_sb3(env.unwrapped, warn=False)
    env.action_space.seed(3)
    actions = [env.action_space.sample() for _ in range(30)]

    def walk():
        obs = [env.reset(seed=5)[0], *(env.step(action)[0] for action in actions), env.reset()[0]]
        return np.stack(obs)

    first, again = walk(), walk()
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[-1]).any()
    assert env.spec.max_episode_steps == 100


def test_walls_and_doors_are_drawn_anew_and_options_change_no_later_draw():
    env, other = TwoRooms(), TwoRooms()
    seen = np.stack([env.reset(seed=0)[0], *(env.reset()[0] for _ in range(40))])
    assert (np.ptp(seen[:, 2:], axis=0) > [0.35, 0.6]).all()
    assert (abs(seen[:, 0] - seen[:, 2]) >= CLEARANCE - 1e-6).all() or (abs(seen[:, 1] - seen[:, 3]) < DOOR).any()
    other.reset(seed=0, options={"state": CENTRE, "goal": [0.1, 0.1]})
    np.testing.assert_array_equal(other.reset()[0], seen[1])


def test_a_free_move_is_the_action_times_the_step_and_larger_actions_are_cut():
    np.testing.assert_allclose(after(CENTRE, [-0.5, 1.0]), [0.45 - 0.5 * STEP, 0.2 + STEP])
    np.testing.assert_allclose(after(CENTRE, [-7.0, 0.0]), [0.45 - STEP, 0.2])


def test_the_wall_stops_what_is_at_right_angles_to_it_from_either_side():
    np.testing.assert_allclose(after([0.49, 0.2, 0.5, 0.5], [1.0, 0.4]), [0.5 - CLEARANCE, 0.2 + 0.4 * STEP])
    np.testing.assert_allclose(after([0.51, 0.9, 0.5, 0.5], [-1.0, -0.4]), [0.5 + CLEARANCE, 0.9 - 0.4 * STEP])
    np.testing.assert_allclose(after([0.02, 0.98, 0.5, 0.5], [-1.0, 1.0]), [0.0, 1.0])


def test_where_the_path_meets_the_wall_decides_not_where_it_ends():
    edge = 0.5 - DOOR  # the door begins here
    # Halfway across at edge - 0.01, beyond the edge at the end: stopped. Halfway at edge + 0.01: through.
    low, high = [0.48, edge - 0.02, 0.5, 0.5], [0.48, edge, 0.5, 0.5]
    np.testing.assert_allclose(after(low, [0.8, 0.4]), [0.5 - CLEARANCE, edge])
    np.testing.assert_allclose(after(high, [0.8, 0.4]), [0.52, edge + 0.02])
    # Through the door and past its end: the wall stands beside, on the other side.
    through = after([0.499, edge + 0.001, 0.5, 0.5], [0.04, -0.03])
    np.testing.assert_allclose(through, [0.5 + CLEARANCE, edge + 0.001 - 0.03 * STEP])


def test_small_steps_pass_the_door():
    assert after([0.495, 0.5, 0.5, 0.5], *[[0.05, 0.0]] * 4)[0] == pytest.approx(0.505)


def test_no_step_leads_through_the_wall():
    rng = np.random.default_rng(0)
    env, crossed = TwoRooms(), 0
    for _ in range(40):
        env.reset(seed=int(rng.integers(1 << 30)))
        for action in np.repeat(rng.uniform(-1, 1, (10, 2)), 20, axis=0):
            before = env.position
            env.step(action)
            assert (env.position >= 0).all()
            assert (env.position <= 1).all()
            if (before[0] < env.wall) != (env.position[0] < env.wall):
                # The heights on the way lie between both ends: if none is in the door, it went through the wall.
                lowest, highest = sorted([before[1], env.position[1]])
                assert lowest < env.door + DOOR
                assert highest > env.door - DOOR
                crossed += 1
    assert crossed > 10


def test_reward_is_nothing_without_a_goal_and_the_episode_ends_at_one():
    env = TwoRooms()
    env.reset(options={"state": [0.2, 0.2, 0.5, 0.5]})
    assert env.step(np.zeros(2))[1:4] == (0.0, False, False)
    env.reset(options={"state": [0.2, 0.2, 0.5, 0.5], "goal": [0.2, 0.2 + REACHED + 1.5 * STEP]})
    assert env.step(np.array([0.0, 1.0]))[1:3] == (0.0, False)
    assert env.step(np.array([0.0, 1.0]))[1:3] == (1.0, True)
    env.reset()
    assert env.goal is None
    always = TwoRooms(goal=(0.2, 0.25))
    always.reset(options={"state": [0.2, 0.2, 0.5, 0.5]})
    assert always.step(np.zeros(2))[1:3] == (1.0, True)


def test_what_a_goal_would_look_like_is_what_is_seen_there():
    for env in (TwoRooms(), TwoRoomsPixels()):
        env.reset(seed=1)
        goal = env.observation([0.1, 0.9])
        state = [0.1, 0.9, env.wall, env.door]
        np.testing.assert_array_equal(goal, env.reset(options={"state": state})[0])
        assert env.observation_space.contains(goal)


def test_the_picture_shows_the_wall_but_for_its_door_and_the_point_where_it_is():
    env = TwoRoomsPixels()
    obs, _ = env.reset(options={"state": [0.25, 0.75, 0.5, 0.3]})
    wall, point = obs[..., 0], obs[..., 1]
    shut = np.flatnonzero(wall[:, 24])
    assert set(range(48)) - set(shut) == {row for row in range(48) if abs((47.5 - row) / 48 - 0.3) < DOOR}
    assert not wall[:, :22].any()
    rows, columns = np.nonzero(point > 128)
    assert (rows.mean(), columns.mean()) == pytest.approx((11.5, 11.5))
    shown = TwoRooms(goal=(0.9, 0.1), render_mode="rgb_array")
    shown.reset(seed=0)
    assert shown.render().shape == (384, 384, 3)
    assert shown.render()[-40, -40, 2] > 200
    assert TwoRooms().render() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": [0.2, 0.2]}, r"state must be 4 numbers between 0 and 1, got \[0.2, 0.2\]"),
        ({"goal": [0.2, 1.2]}, "goal must be 2 numbers between 0 and 1"),
        ({"goal": "there"}, "goal must be 2 numbers"),
        ({"state": [0.2, 0.2, 1.0, 0.5]}, "the wall, must leave room on both sides, got 1"),
        ({"start": [0.2, 0.2]}, "options state and goal, got start"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TwoRooms().reset(options=options)
    with pytest.raises(ValueError, match="render_mode must be"):
        TwoRooms(render_mode="human")
