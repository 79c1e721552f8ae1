"""Episodes of Minari data sets, made here: stored as they were, learned from, and refused where they do not fit."""

import gymnasium as gym
import numpy as np
import pytest

from jepa_agent import JEPA
from jepa_agent.cli import main

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")
EpisodeBuffer = pytest.importorskip("minari.data_collector.episode_buffer").EpisodeBuffer
TINY = {"latent_dim": 8, "net_arch": [16], "head_arch": [8], "ensemble_size": 2}


class Count(gym.Env):
    """Shows the step beside a picture of it and rewards it; ends after five, or is cut after four."""

    observation_space = gym.spaces.Dict(
        {"picture": gym.spaces.Box(0, 255, (2, 2), np.uint8), "step": gym.spaces.Box(0, 9, (1,), np.float32)}
    )
    action_space = gym.spaces.Box(-2.0, 4.0, (1,), np.float32)

    def __init__(self, broken=False):
        self.broken, self.at = broken, 0

    def show(self):
        value = np.nan if self.broken and self.at == 2 else self.at
        return {"picture": np.full((2, 2), self.at, np.uint8), "step": np.array([value], np.float32)}

    def reset(self, *, seed=None, options=None):
        self.at = 0
        return self.show(), {}

    def step(self, action):
        self.at += 1
        return self.show(), float(self.at), self.at == 5, False, {}


def played(env, length):
    """An episode; Minari's own collector would need jax."""
    seen, steps = [env.reset(seed=0)[0]], []
    for step in range(length):
        discrete = isinstance(env.action_space, gym.spaces.Discrete)
        action = step % 2 if discrete else np.full(env.action_space.shape, step, np.float32)
        obs, reward, terminated, _, _ = env.step(action)
        seen.append(obs)
        steps.append((action, reward, terminated, step + 1 == length and not terminated))
    actions, rewards, terminations, truncations = map(list, zip(*steps, strict=True))
    named = {key: [obs[key] for obs in seen] for key in seen[0]} if isinstance(seen[0], dict) else seen
    return EpisodeBuffer(None, 0, None, named, actions, rewards, terminations, truncations)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Make a data set: ``made(name, env, lengths)``; the actions of an episode are the steps."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def make(name, env, lengths):
        episodes = [played(env, length) for length in lengths]
        own = {"action_space": env.action_space, "observation_space": env.observation_space}
        return minari.create_dataset_from_buffers(name, episodes, env if env.spec else None, **own)

    return make


def agent(env, **settings):
    policy = "MultiInputPolicy" if isinstance(env.observation_space, gym.spaces.Dict) else "MlpPolicy"
    return JEPA(policy, env, policy_kwargs=TINY, batch_size=8, seed=0, device="cpu", **settings)


def test_every_step_is_stored_with_its_successor_its_end_and_what_acted(made):
    env = Count()
    dataset = made("test/count-v0", env, [5, 4])
    model = agent(env)
    model.load_minari(dataset)
    buffer = model.replay_buffer
    assert buffer.size() == 9
    column = {name: getattr(buffer, name)[:9, 0] for name in ("rewards", "dones", "timeouts", "actions")}
    np.testing.assert_array_equal(buffer.observations["step"][:9, 0, 0], [0, 1, 2, 3, 4, 0, 1, 2, 3])
    np.testing.assert_array_equal(buffer.next_observations["picture"][:9, 0, 1, 1], [1, 2, 3, 4, 5, 1, 2, 3, 4])
    np.testing.assert_array_equal(column["rewards"], [1, 2, 3, 4, 5, 1, 2, 3, 4])
    np.testing.assert_array_equal(column["dones"], [0, 0, 0, 0, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(column["timeouts"], [0, 0, 0, 0, 0, 0, 0, 0, 1])
    np.testing.assert_allclose(column["actions"][:3, 0], [-1 / 3, 0.0, 1 / 3], atol=1e-6)  # 0, 1 and 2 of [-2, 4]
    assert model.world_model.has_observed
    small = agent(env, buffer_size=8)
    small.load_minari("test/count-v0")
    assert sorted(small.replay_buffer.rewards[:, 0]) == [1, 2, 2, 3, 3, 4, 4, 5]  # the oldest step has made way


def test_a_data_set_is_pretrained_on_by_its_name(made, tmp_path, capsys):
    made("test/cart-v0", gym.make("CartPole-v1"), [8, 8])
    call = ["pretrain", "--data", "minari:test/cart-v0", "--updates", "2", "--model.latent_dim", "8"]
    assert main([*call, "--output", str(tmp_path / "run")]) == 0
    assert "steps of CartPole-v1 to learn from" in capsys.readouterr().out
    assert JEPA.load(tmp_path / "run/last_model.zip")._n_representation_updates == 2


def test_what_does_not_fit_is_refused_and_the_buffer_stays(made, tmp_path, capsys):
    env = Count()
    model = agent(env)
    model.load_minari(made("test/count-v0", env, [5]))
    with pytest.raises(ValueError, match=r"test/broken-v0': episode 1 has observations 'step' that are not finite"):
        model.load_minari(made("test/broken-v0", Count(broken=True), [1, 4]))
    with pytest.raises(ValueError, match=r"test/cart-v0': expected the observation_space Dict.*found Box"):
        model.load_minari(made("test/cart-v0", gym.make("CartPole-v1"), [4]))
    assert model.replay_buffer.size() == 5
    with pytest.raises(ValueError, match="minari download test/none-v0"):
        model.load_minari("test/none-v0")
    assert main(["pretrain", "--data", "minari:test/none-v0", "--output", str(tmp_path / "run")]) == 2
    assert "no Minari data set 'test/none-v0' on this machine" in capsys.readouterr().err
