"""Nothing that is not finite is learned from, stored or returned; observations have the form their space promises."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from jepa_agent import JEPA, agent
from jepa_agent.cli import main
from jepa_agent.environments.guards import EndOnBadObservation
from jepa_agent.model.blocks import RunningNorm
from jepa_agent.model.cost import CostModule, PerActionCostToGo
from jepa_agent.persistence import agent_file

BOX = spaces.Box(-10, 10, (2,))


class Spoiled(gym.Env):
    """Episodes of five steps; ``bad`` stands at step ``when`` of an episode, step 0 being the reset's."""

    def __init__(self, bad=None, when=99, reward=0.0, space=BOX):
        self.observation_space, self.action_space = space, spaces.Discrete(2)
        self.bad, self.when, self.bad_reward, self.episodes = bad, when, reward, 0

    def _see(self):
        return self.bad if self.t == self.when and self.episodes > 4 else self.observation_space.sample()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.episodes = 0, self.episodes + 1
        return self._see(), {}

    def step(self, action):
        self.t += 1
        reward = self.bad_reward if self.t == self.when and self.episodes > 4 else 1.0
        return self._see(), reward, self.t == 5, False, {}


NAN = np.full(2, np.nan, np.float32)
PARTS = spaces.Dict({"good": BOX, "other": BOX})


def all_finite(model):
    tensors = [*model.policy.state_dict().values(), model.value_spread]
    return all(torch.isfinite(tensor).all() for tensor in tensors if tensor.is_floating_point())


@pytest.mark.parametrize(
    ("env", "says"),
    [
        (lambda: Spoiled(NAN, 0), "first observation is not finite|observation is not finite"),
        (lambda: Spoiled(NAN, 3), "environment 0, step 23: the observation is not finite"),
        (lambda: Spoiled(NAN, 5), "environment 0, step 25: the last observation is"),
        (lambda: Spoiled(NAN * np.inf, 5), "the last observation is not finite"),
        (
            lambda: Spoiled({"good": BOX.sample(), "other": NAN}, 5, space=PARTS),
            "the last observation 'other' is not finite",
        ),
        (lambda: Spoiled({"good": NAN, "other": NAN}, 0, space=PARTS), "observation 'good' is not finite"),
        (lambda: Spoiled(BOX.sample(), 2, np.nan), "the reward is not finite"),
        (lambda: Spoiled(BOX.sample(), 5, -np.inf), "the reward is not finite"),
    ],
)
def test_what_is_not_finite_is_refused_where_it_comes(small, env, says):
    model = small(env(), learning_starts=10, batch_size=8)
    with pytest.raises(ValueError, match=says):
        model.learn(100)
    buffer = model.replay_buffer
    for stored in (buffer.observations, buffer.next_observations):
        for part in stored.values() if isinstance(stored, dict) else [stored]:
            assert np.isfinite(part[: buffer.pos]).all()
    assert np.isfinite(buffer.rewards[: buffer.pos]).all()
    assert all_finite(model)


def test_the_very_first_observation_is_checked_too(small):
    env = Spoiled(NAN, 0)
    env.episodes = 9
    with pytest.raises(ValueError, match="first observation is not finite"):
        small(env).learn(10)


def test_a_huge_reward_ruins_nothing(small):
    model = small(Spoiled(BOX.sample(), 3, -1e20), learning_starts=10, batch_size=8).learn(60)
    assert all_finite(model)
    assert model._n_updates > 0


def test_running_counts_go_on_beyond_what_a_float_can_count():
    norm = RunningNorm(1)
    cost = CostModule(2, 1, [4], PerActionCostToGo(2, 1, [4], 1), 0.9)
    norm.count.fill_(2**24)
    cost.cost_count.fill_(2**24)
    for _ in range(3):
        norm.update(torch.ones(1, 1))
        cost.observe_cost(torch.ones(1))
    assert norm.count == cost.cost_count == 2**24 + 3
    assert norm.mean == pytest.approx(3 / 2**24)


def test_counts_of_older_files_are_read(small, tmp_path):
    from jepa_agent.persistence import archive

    model = small("CartPole-v1").learn(30)
    manifest, tensors = agent_file.contents(model)
    old = {name: t.float() if name.endswith("count") else t for name, t in tensors.items()}
    assert any(name.endswith("count") for name in old)
    archive.write(tmp_path / "old.zip", "agent", {**manifest, "format": 3}, {"tensors": old})
    again = JEPA.load(tmp_path / "old.zip", env="CartPole-v1")
    assert again.world_model.cost_module.cost_count == 30
    again.set_parameters(tmp_path / "old.zip")
    again.learn(30)


def spoil_losses(model, monkeypatch, times):
    """Let the next ``times`` updates have a gradient of NaN."""
    left, learn = [times], agent.critic_loss

    def spoiled(*args):
        left[0] -= 1
        if left[0] >= 0:
            model._parameters[0].grad.mul_(torch.nan)
        return learn(*args)

    monkeypatch.setattr(agent, "critic_loss", spoiled)


def test_an_update_that_is_not_finite_is_skipped_and_counted(small, monkeypatch, tmp_path):
    model = small("CartPole-v1").learn(30)
    before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    spread, updates = model.value_spread.clone(), model._n_updates
    spoil_losses(model, monkeypatch, 3)
    model.train(3, 32)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.policy.state_dict().items())
    assert torch.equal(model.value_spread, spread)
    assert (model._n_updates, model._skipped_updates) == (updates, 3)
    model.train(1, 32)
    assert model._n_updates == updates + 1
    assert model.logger.name_to_value["train/skipped_updates"] == 3
    model.save(tmp_path / "agent")
    assert JEPA.load(tmp_path / "agent")._skipped_updates == 3


def test_ten_updates_in_a_row_that_are_not_finite_end_the_run(small, monkeypatch):
    model = small("CartPole-v1").learn(30)
    spoil_losses(model, monkeypatch, 9)
    model.train(10, 32)
    spoil_losses(model, monkeypatch, 99)
    with pytest.raises(FloatingPointError, match="10 updates in a row"):
        model.train(20, 32)
    assert all_finite(model)


@pytest.mark.parametrize("mode", ["actor", "auto"])
def test_predict_refuses_what_is_not_finite(small, mode):
    model = small("CartPole-v1", mode=mode)
    for obs in (np.array([0, np.nan, 0, 0], np.float32), np.full((2, 4), np.inf, np.float32)):
        with pytest.raises(ValueError, match="not finite"):
            model.predict(obs, deterministic=True)
    named = small(Spoiled(space=PARTS), mode=mode)
    with pytest.raises(ValueError, match=r"given to predict\(\) is not finite"):
        named.predict({"good": BOX.sample(), "other": NAN})


@pytest.mark.parametrize(("bad", "reward"), [(NAN, 1.0), (BOX.sample(), np.nan)])
def test_evaluate_says_in_one_line_what_is_not_finite(small, tmp_path, capsys, bad, reward):
    small(Spoiled()).save(tmp_path / "agent.zip")
    gym.register("SpoiledNow-v0", lambda: Spoiled(bad, 3, reward))
    call = ["evaluate", str(tmp_path / "agent.zip"), "--env", "SpoiledNow-v0", "--episodes", "8", "--modes", "actor"]
    try:
        assert main(call) == 2
    finally:
        del gym.registry["SpoiledNow-v0"]
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert "not finite" in told


# ---------------------------------------------------------------------- going on all the same


def test_a_first_observation_that_is_bad_again_and_again_ends_the_run(small):
    with pytest.raises(ValueError, match="10 episodes in a row began"):
        small(EndOnBadObservation(Spoiled(NAN, 0))).learn(60)


@pytest.mark.parametrize("when", [3, 5])
def test_a_bad_observation_may_end_the_episode_instead(small, when):
    env = EndOnBadObservation(Spoiled(NAN, when))
    model = small(env, learning_starts=10, batch_size=8)
    with pytest.warns(UserWarning, match="was not finite: the episode ends"):
        model.learn(60)
    buffer = model.replay_buffer
    assert np.isfinite(buffer.next_observations[: buffer.pos]).all()
    assert env.bad_observations == buffer.timeouts[: buffer.pos].sum() > 5
    assert all_finite(model)


def test_train_takes_the_choice(tmp_path, capsys):
    gym.register("SpoiledLater-v0", lambda: Spoiled(NAN, 3))
    call = ["train", "--env", "SpoiledLater-v0", "-n", "60", "--eval-freq", "0", "--agent.learning_starts", "40"]
    try:
        assert main([*call, "--output", str(tmp_path / "error")]) == 1
        assert "is not finite" in capsys.readouterr().out
        assert main([*call, "--on-bad-obs", "end-episode", "--output", str(tmp_path / "on")]) == 0
    finally:
        del gym.registry["SpoiledLater-v0"]


# ---------------------------------------------------------------------- forms


@pytest.mark.parametrize(
    ("space", "bad", "says"),
    [
        (BOX, np.zeros(1, np.float32), r"shape \(2,\), found \(1,\)"),
        (BOX, np.float32(1), r"shape \(2,\), found \(\)"),
        (BOX, np.zeros((3, 2), np.float32), r"shape \(2,\), found \(3, 2\)"),
        (PARTS, {"good": BOX.sample()}, r"parts \['good', 'other'\], found \['good'\]"),
        (PARTS, {"good": np.zeros(2), "other": np.zeros(1)}, r"'other' must have the shape"),
        (spaces.Discrete(3), 3, r"must be of Discrete\(3\), found 3"),
        (spaces.MultiDiscrete([2, 2]), np.array([0, 5]), "must be of MultiDiscrete"),
    ],
)
@pytest.mark.parametrize("when", [0, 2, 5])
def test_an_observation_of_another_form_is_refused_not_broadcast(small, space, bad, says, when):
    with pytest.raises(ValueError, match=says):
        small(Spoiled(bad, when, space=space)).learn(60)


def test_workers_with_other_spaces_are_refused(small):
    mixed = DummyVecEnv([lambda: Spoiled(), lambda: Spoiled(space=spaces.Box(-1, 1, (2,)))])
    with pytest.raises(ValueError, match="environment 1 has the observation_space"):
        small(mixed)


def test_a_buffer_smaller_than_a_window_is_refused(small):
    with pytest.raises(ValueError, match=r"buffer_size 5 keeps 5 steps .* windows of .* = 6: give at least 6"):
        small("CartPole-v1", buffer_size=5).learn(30)
    small("CartPole-v1", buffer_size=6).learn(30)


def test_raw_infinities_do_not_hide_behind_normalisation(small):
    env = VecNormalize(DummyVecEnv([lambda: Spoiled(np.full(2, np.inf, np.float32), 3)]))
    with pytest.raises(ValueError, match="not finite"):
        small(env).learn(60)
