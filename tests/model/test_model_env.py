"""A world model steps like a Gymnasium environment."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from jepa_agent import WorldModel
from jepa_agent.model.actor import BoundedActor
from jepa_agent.model.cost import CostModule, JointCostToGo
from jepa_agent.model.encoders import Encoder, VectorObservation
from jepa_agent.model.features import FeatureEncoder, PartFeatures
from jepa_agent.model.predictor import Predictor
from jepa_agent.spaces import action_code

D = 8
BOX = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([6.0, 1.0], np.float32))
STARTS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def world_model(action_space=BOX, observation=None, encoder=None):
    torch.manual_seed(0)
    size = action_code(action_space).dim
    return WorldModel(
        observation or VectorObservation(spaces.Box(-1, 1, (3,))),
        encoder or Encoder(3, D, [16]),
        Predictor(D, size, [16]),
        CostModule(D, size, [16], JointCostToGo(D, size, [16], ensemble_size=2), gamma=0.9),
        BoundedActor(D, size, [16]),
        gamma=0.9,
    )


def end_with(model, probability):
    """Let every step end the episode with this probability."""
    last = model.cost_module.step_net[-1]
    with torch.no_grad():
        last.weight[1].zero_()
        last.bias[1] = torch.tensor(probability).logit()
    return model


@pytest.fixture
def model():
    return end_with(world_model(), 0.0)


def play(env, seed, steps=30):
    """What one sees along actions that are always the same, episode after episode."""
    actions = np.random.default_rng(7).uniform(BOX.low, BOX.high, (steps, 2)).astype(np.float32)
    seen = [env.reset(seed=seed)[0]]
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        seen.append(np.append(obs, [reward, terminated, truncated]))
        if terminated or truncated:
            seen.append(env.reset()[0])
    return np.concatenate(seen)


def test_an_episode_is_what_the_model_imagines_and_the_reward_is_minus_its_cost(model):
    model.cost_module.cost_scale.fill_(7.0)
    env = model.as_env(BOX, STARTS)
    start, _ = env.reset(seed=0)
    taken = np.array([[6.0, 0.0], [2.0, 0.5], [-2.0, 1.0]], np.float32)
    seen = torch.tensor([[1.0, -1.0], [0.0, 0.0], [-1.0, 1.0]])  # the same actions as the networks see them
    path = model.imagine(start, seen)
    costs = model.cost(path[:-1], seen).cost
    assert costs.unique().numel() == 3
    for step, action in enumerate(taken):
        obs, reward, terminated, truncated, _ = env.step(action)
        np.testing.assert_allclose(obs, path[step + 1].detach(), atol=1e-5)
        assert reward == pytest.approx(-costs[step].item(), abs=1e-5)
        assert not terminated
        assert not truncated


def test_episodes_start_from_every_observation_given_and_from_no_other(model):
    env = model.as_env(BOX, STARTS)
    first = np.stack([env.reset(seed=seed)[0] for seed in range(60)])
    known = model.encode(STARTS).detach().numpy()
    nearest = np.abs(first[:, None] - known).max(-1)
    assert nearest.min(1).max() < 1e-5
    assert set(nearest.argmin(1)) == set(range(len(STARTS)))


@pytest.mark.parametrize(("probability", "mean_length"), [(1.0, 1.0), (0.5, 2.0), (0.2, 5.0)])
def test_episodes_are_as_long_in_the_mean_as_the_model_predicts(probability, mean_length):
    env = end_with(world_model(), probability).as_env(BOX, STARTS, max_steps=1_000)
    env.reset(seed=0)
    ends = []
    for _ in range(1_000):
        _, _, terminated, truncated, _ = env.step(BOX.low)
        ends.append(terminated)
        assert not truncated
        if terminated:
            env.reset()
    assert len(ends) / sum(ends) == pytest.approx(mean_length, rel=0.15)


def test_episodes_are_truncated_after_so_many_steps_and_must_then_be_begun_anew(model):
    env = model.as_env(BOX, STARTS, max_steps=3)
    with pytest.raises(ResetNeeded):
        env.step(BOX.low)
    for _ in range(2):
        env.reset(seed=0)
        assert [env.step(BOX.low)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]
        with pytest.raises(ResetNeeded):
            env.step(BOX.low)


def test_a_seed_fixes_starts_and_ends():
    env = end_with(world_model(), 0.3).as_env(BOX, STARTS)
    once = play(env, 1)
    np.testing.assert_array_equal(play(env, 1), once)
    np.testing.assert_array_equal(play(end_with(world_model(), 0.3).as_env(BOX, STARTS), 1), once)
    assert any(not np.array_equal(play(env, seed), once) for seed in range(2, 6))


@pytest.mark.parametrize("space", [BOX, spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)])
@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_both_checkers_pass(space, probability):
    env = end_with(world_model(space), probability).as_env(space, STARTS, max_steps=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Latents have no bounds, actions have those of the real environment, and nothing can be drawn.
        for known in (".*infinity", ".*symmetric and normalized", ".*render", ".*spec"):
            warnings.filterwarnings("ignore", known)
        check_env(env, skip_render_check=True)
        sb3_check_env(env)


def test_observations_may_have_parts():
    space = spaces.Dict({"n": spaces.Box(-1, 1, (2,)), "k": spaces.Discrete(3)})
    parts = PartFeatures(space)
    model = end_with(world_model(BOX, torch.nn.Identity(), FeatureEncoder(parts, D, [16])), 0.0).eval()
    starts = {"n": STARTS[:, :2], "k": np.array([0, 1, 2, 0, 1])}
    env = model.as_env(BOX, starts)
    known = model.encode(starts).detach().numpy()
    assert np.abs(env.reset(seed=0)[0] - known).max(-1).min() < 1e-5
    check_env(env, skip_render_check=True)
    with pytest.raises(ValueError, match="as many rows for each part"):
        model.as_env(BOX, {**starts, "k": np.array([0])})


def test_what_is_handed_out_and_what_was_given_may_be_written_into(model):
    given, env = STARTS.copy(), model.as_env(BOX, STARTS)
    expected = play(env, 0)
    env = model.as_env(BOX, given)
    given[:] = 100.0
    actions = np.random.default_rng(7).uniform(BOX.low, BOX.high, (30, 2)).astype(np.float32)
    obs, _ = env.reset(seed=0)
    obs[:] = 100.0
    obs, *_ = env.step(actions[0])
    np.testing.assert_array_equal(obs, expected[D : 2 * D])


def test_the_environment_follows_the_model_as_it_learns(model):
    env = model.as_env(BOX, STARTS[:1])
    before, _ = env.reset(seed=0)
    with torch.no_grad():
        for weight in model.encoder.parameters():
            weight.add_(torch.randn_like(weight))
    after, _ = env.reset(seed=0)
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, model.encode(STARTS[0]).detach(), atol=1e-5)


def test_actions_beyond_the_bounds_are_clipped_and_others_refused(model):
    env = model.as_env(BOX, STARTS)
    env.reset(seed=0)
    at_the_bound, *_ = env.step(BOX.high)
    env.reset(seed=0)
    np.testing.assert_array_equal(env.step(BOX.high + 5.0)[0], at_the_bound)
    for wrong in ([np.nan, 0.0], [0.0], 0.0):
        with pytest.raises(ValueError, match="is no action of Box"):
            env.step(wrong)
    chooser = end_with(world_model(spaces.Discrete(3)), 0.0).as_env(spaces.Discrete(3), STARTS)
    chooser.reset(seed=0)
    with pytest.raises(ValueError, match="is no action of Discrete"):
        chooser.step(3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"observations": STARTS[:0]}, "at least one observation"),
        ({"observations": STARTS[0]}, r"must be \(N, \*obs_shape\)"),
        ({"observations": STARTS[:, :2]}, r"must be \(N, \*obs_shape\)"),
        ({"observations": np.full((2, 3), np.nan)}, "finite"),
        ({"action_space": spaces.Discrete(3)}, "the world model takes 2"),
        ({"action_space": spaces.Box(-np.inf, np.inf, (2,))}, "unbounded"),
    ],
)
def test_what_cannot_be_stepped_is_refused_with_the_reason(model, given, message):
    with pytest.raises(ValueError, match=message):
        model.as_env(**{"action_space": BOX, "observations": STARTS, **given})


def test_it_is_a_gymnasium_environment_of_the_real_actions_without_gradient(model):
    env = model.as_env(BOX, STARTS)
    assert isinstance(env, gym.Env)
    assert env.action_space == BOX
    assert env.observation_space.shape == (D,)
    env.reset(seed=0)
    env.step(BOX.low)
    assert not env._z.requires_grad
