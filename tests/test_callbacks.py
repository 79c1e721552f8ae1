import re
import warnings
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import CallbackList, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env

from jepa_agent import JEPA
from jepa_agent.callbacks import LatentCallback
from jepa_agent.learning.diagnostics import latent_health
from jepa_agent.learning.representation import Cost, Prediction, RepresentationTerm, Termination
from jepa_agent.learning.watch import with_latents_watched
from jepa_agent.model.predictor import Predictor

FITTED = [Prediction(), Cost(), Termination()]


@dataclass(frozen=True)
class Together(RepresentationTerm):
    """Pulls latents to their mean: collapse to a point."""

    name = "together"

    def loss(self, seen):
        start = seen.z_hat[:, 0]
        return (start - start.mean(0).detach()).square().mean(-1, keepdim=True)


@dataclass(frozen=True)
class OneWay(RepresentationTerm):
    """Shrinks the share of the variance that lies beside the first principal axis: collapse to a low rank."""

    name = "one_way"

    def loss(self, seen):
        start = seen.z_hat[:, 0] - seen.z_hat[:, 0].mean(0)
        axis = torch.linalg.svd(start.detach(), full_matrices=False).Vh[0]
        beside = 1.0 - (start @ axis).square().sum() / start.square().sum()
        return beside.expand(len(start), 1)


class Blind(Predictor):
    """Goes the same way whatever the action."""

    def forward(self, z, action):
        return super().forward(z, torch.zeros_like(action))


def warned(model, steps):
    """The warnings of collapse, and what was logged of latents last."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.learn(steps, callback=LatentCallback(freq=40), log_interval=None)
    told = [str(one.message) for one in caught if "collapse begins" in str(one.message)]
    logged = {name: value for name, value in model.logger.name_to_value.items() if name.startswith("latent/")}
    return told, logged


def test_watching_the_latents_does_not_change_training(small):
    plain = small("CartPole-v1").learn(100, callback=LatentCallback(freq=0))
    watched = small("CartPole-v1").learn(100, callback=LatentCallback(freq=20))
    assert "latent/std" not in plain.logger.name_to_value
    assert "latent/std" in watched.logger.name_to_value
    for first, second in zip(plain.policy.parameters(), watched.policy.parameters(), strict=True):
        assert torch.equal(first, second)


def test_healthy_latents_are_measured_and_not_warned_of(small):
    told, logged = warned(small("CartPole-v1", mode="actor", learning_rate=3e-3), 120)
    assert not told
    names = {"std", "std_least", "rank", "resolution", "error_1", "error_3", "error_9", "collapse"}
    names |= {"action_sensitivity", "action_effect", "inverse_r2", "probe_r2"}
    assert {f"latent/{name}" for name in names} <= logged.keys()
    assert logged["latent/collapse"] == 0
    assert logged["latent/probe_r2"] > 0.8
    assert 0 < logged["latent/error_1"] < 1


@pytest.mark.parametrize(
    ("injected", "measure", "steps"),
    [
        ({"representation": [*FITTED, Together(100.0)]}, "latent/(std|resolution) is", 120),
        ({"representation": [*FITTED, OneWay(10.0)]}, "latent/rank is", 120),
        ({"policy_kwargs": {"predictor_class": Blind}}, "latent/action_sensitivity is", 240),
    ],
)
def test_each_kind_of_collapse_is_told_once(small, injected, measure, steps):
    told, logged = warned(small("CartPole-v1", mode="actor", learning_rate=3e-3, **injected), steps)
    assert sum(bool(re.search(measure, line)) for line in told) == 1
    assert logged["latent/collapse"] == len(told)


class Line(gym.Env):
    """A place and a goal on a line, eight steps of a quarter; the distance is the cost."""

    observation_space = spaces.Box(-2.0, 2.0, (2,))
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        (self.place, self.goal), self.steps = self.np_random.uniform(-1, 1, 2), 0
        return np.array([self.place, self.goal], np.float32), {}

    def step(self, action):
        self.steps += 1
        self.place = float(np.clip(self.place + 0.25 * (int(action) - 1), -2, 2))
        seen = np.array([self.place, self.goal], np.float32)
        return seen, -abs(self.place - self.goal), False, self.steps == 8, {}


def mean_return(model):
    """Of twenty episodes side by side, the same at every call."""
    envs, total = [Line() for _ in range(20)], 0.0
    obs = [env.reset(seed=seed)[0] for seed, env in enumerate(envs)]
    for _ in range(8):
        actions = model.policy.predict(np.stack(obs), deterministic=True)[0]
        stepped = [env.step(action) for env, action in zip(envs, actions, strict=True)]
        obs, total = [seen for seen, *_ in stepped], total + sum(reward for _, reward, *_ in stepped)
    return total / len(envs)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """The checkpoint of an agent that has learned `Line`, which was not warned of on the way."""
    folder, sizes = tmp_path_factory.mktemp("line"), {"latent_dim": 16, "net_arch": [32], "ensemble_size": 2}
    settings = {"learning_starts": 50, "batch_size": 32, "learning_rate": 3e-3, "mode": "actor", "policy_kwargs": sizes}
    model = JEPA("MlpPolicy", Line(), seed=0, device="cpu", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn(220, callback=LatentCallback(freq=10), log_interval=None)
    assert mean_return(model) > -3.5  # the best that was seen is -1.6; without learning -9
    model.save_checkpoint(folder)
    return folder


@pytest.mark.parametrize("injected", [Together(10.0), OneWay(1.0), None], ids=["point", "line", "blind to actions"])
def test_the_warning_comes_before_the_return_drops(healthy, injected):
    model, watch, returns, warned_at = JEPA.resume(healthy, Line()), LatentCallback(freq=2), [], None
    model.learn(10, callback=watch, reset_num_timesteps=False, log_interval=None)  # what health is
    if injected is None:
        own = model.world_model.predictor.forward
        model.world_model.predictor.forward = lambda z, action: own(z, torch.zeros_like(action))
    else:
        model.terms = [*model.terms, injected]
    before = mean_return(model)
    for _ in range(20):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.learn(2, callback=watch, reset_num_timesteps=False, log_interval=None)
        returns.append(mean_return(model))
        if warned_at is None and any("collapse begins" in str(one.message) for one in caught):
            warned_at = len(returns)
    dropped = [k for k, value in enumerate(returns, 1) if value < before - 2.0] or [len(returns) + 1]
    assert warned_at is not None
    assert warned_at < dropped[0]


def test_what_is_kept_is_from_before_learning_and_met_again(small):
    watch = LatentCallback(freq=10)
    model = small("CartPole-v1", learning_starts=45)
    model.learn(50, callback=watch)
    kept = watch._kept
    assert kept.shape[1:] == (2, 4)
    assert 30 < len(kept) <= 40  # of 40 steps; a pair across an episode's end is none
    model.learn(30, callback=watch, reset_num_timesteps=False)
    assert watch._kept is kept
    model.learn(10, callback=watch)
    assert watch._kept is not kept


def test_collapse_shows(small):
    model = small("CartPole-v1").learn(60)
    batch = model.replay_buffer.sample_sequences(64, 3)
    alive = latent_health(model.world_model, batch)
    with torch.no_grad():
        model.world_model.encoder.net[0].weight.zero_()  # every observation now looks the same
    dead = latent_health(model.world_model, batch)
    assert alive["std"] > 0.05 > dead["std"]
    assert alive["rank"] > 1.5
    assert alive["resolution"] > 0.02 > dead["resolution"]
    assert alive["probe_r2"] > 0.5 > dead["probe_r2"]


class Everything(gym.Env):
    """Pictures, choices and numbers at random; several choices at a time; episodes of five steps."""

    observation_space = spaces.Dict(
        picture=spaces.Box(0, 255, (16, 16, 3), np.uint8), choice=spaces.Discrete(3), numbers=spaces.Box(-1, 1, (2,))
    )
    action_space = spaces.MultiDiscrete([2, 3])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), float(action[0]), self.steps == 5, False, {}


def test_all_kinds_of_observations_are_watched_whose_episodes_are_shorter_than_windows(small):
    model = small(make_vec_env(Everything, 2, seed=0), memory="gru", mode="actor", batch_size=8)
    model.learn(40, callback=LatentCallback(freq=30), log_interval=None)
    logged = {name for name in model.logger.name_to_value if name.startswith("latent/")}
    assert {"latent/probe_r2", "latent/inverse_r2", "latent/resolution", "latent/error_3"} <= logged
    assert "latent/error_9" not in logged  # no episode lasts so long
    assert all(np.isfinite(model.logger.name_to_value[name]) for name in logged)


def test_a_run_that_learns_by_itself_is_watched_once(small):
    ours = LatentCallback()
    assert with_latents_watched(None, ours) == [ours]
    assert with_latents_watched([], ours) == [ours]
    assert len(with_latents_watched(lambda *_: True, ours)) == 2
    theirs = LatentCallback(freq=10)
    for given in (theirs, [theirs], CallbackList([theirs]), EveryNTimesteps(5, theirs)):
        assert ours not in with_latents_watched(given, ours)


def test_learning_without_callbacks_is_watched(small):
    model = small("CartPole-v1", mode="actor")
    model._watch.freq = 15  # not to wait for 250 steps
    model.learn(20, log_interval=None)
    assert "latent/rank" in model.logger.name_to_value


def test_what_cannot_be_watched_is_refused():
    with pytest.raises(ValueError, match="freq must be at least 1, or 0 to measure never, got -1"):
        LatentCallback(freq=-1)
    with pytest.raises(ValueError, match="batch_size must be at least 2, got 1"):
        LatentCallback(batch_size=1)
    with pytest.raises(ValueError, match="LatentCallback is for JEPA, got SAC"):
        SAC("MlpPolicy", "Pendulum-v1", learning_starts=5).learn(1, callback=LatentCallback())
