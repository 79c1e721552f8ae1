"""What an explanation says of an episode is what happened in it."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from jepa_agent.config import PlannerConfig
from jepa_agent.experiments.planner_figures import plot_explanation
from jepa_agent.pictures.episode import Explanation, explain


@pytest.fixture
def told(small):
    model = small("CartPole-v1", planner=PlannerConfig(horizon=4, replan_every=2), mode="planner")
    return model, explain(model.policy, gym.make("CartPole-v1"), "planner", seed=3)


def test_an_episode_is_told_step_by_step(told):
    model, told = told
    steps = len(told.cost)
    assert told.cost.tolist() == [-1.0] * steps
    assert told.searched.tolist() == [k % 2 == 0 for k in range(steps)]
    assert told.planned.all()
    assert told.latents.shape == (steps + 1, 16)
    assert told.imagined.shape == (steps, 5, 16)
    np.testing.assert_allclose(told.imagined[:, 0], told.latents[:-1], atol=1e-6)
    obs, _ = gym.make("CartPole-v1").reset(seed=3)
    np.testing.assert_allclose(told.latents[0], model.world_model.encode(obs[None])[0].detach(), atol=1e-6)


def test_surprise_is_the_miss_one_step_ahead(told):
    model, told = told
    memory, obs, env = model.policy.recall(None, 1), None, gym.make("CartPole-v1")
    obs, _ = env.reset(seed=3)
    surprises = []
    for _ in told.cost:
        seen, _ = model.policy.obs_to_tensor(obs)
        decision, memory = model.policy.act(seen, memory, deterministic=True)
        surprises.append(decision.surprise.item())
        obs = env.step(model.policy.to_env(decision.action)[0])[0]
    np.testing.assert_allclose(told.misses()[:-1, 0], surprises[1:], atol=1e-5)


def test_misses_compare_each_imagined_step_with_what_was_seen_then():
    latents = np.arange(5.0)[:, None] * np.ones((1, 2))
    imagined = latents[:4, None] + np.array([0.0, 1.0, 3.0])[None, :, None]  # right one step ahead, one too far at two
    told = Explanation("E", "auto", *[np.zeros(4)] * 5, latents, np.broadcast_to(imagined, (4, 3, 2)))
    np.testing.assert_array_equal(told.misses(), [[0, 1], [0, 1], [0, 1], [0, np.nan]])


def test_the_principal_plane_keeps_distances_of_latents_that_lie_in_a_plane():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(30, 2)) @ np.linalg.qr(rng.normal(size=(6, 2)))[0].T
    told = Explanation("E", "auto", *[np.zeros(29)] * 5, latents, np.stack([latents[:-1], latents[1:]], axis=1))
    observed, imagined, share = told.plane()
    assert share == pytest.approx(1.0)
    distances = [np.linalg.norm(np.diff(points, axis=0), axis=1) for points in (observed, latents)]
    np.testing.assert_allclose(*distances)
    np.testing.assert_allclose(imagined[:, 1], observed[1:], atol=1e-12)


def test_the_picture_is_drawn_for_every_mode(small, tmp_path):
    model = small("Pendulum-v1")
    env = gym.wrappers.TimeLimit(gym.make("Pendulum-v1").unwrapped, 6)
    env.unwrapped.spec = gym.spec("Pendulum-v1")
    for mode in ("actor", "auto"):
        model.set_mode(mode)
        with torch.no_grad():
            plot_explanation(explain(model.policy, env, mode, seed=0), tmp_path / f"{mode}.png")
        assert (tmp_path / f"{mode}.png").stat().st_size > 10_000


def test_an_episode_that_ends_before_a_plan_would_is_told_too(small):
    told = explain(small("CartPole-v1", mode="actor").policy, gym.make("CartPole-v1"), "actor", seed=3, most=2)
    told = told._replace(imagined=np.zeros((2, 6, told.latents.shape[1])))
    misses = told.misses()
    assert misses.shape == (2, 5)
    assert np.isfinite(misses[:, 0]).all()
    assert np.isnan(misses[:, 2:]).all()
