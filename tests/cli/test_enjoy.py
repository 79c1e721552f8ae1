"""`enjoy` shows an episode that is typical of the agent, and on each frame the step, the return so far and who acts."""

import re

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecNormalize

from jepa_agent.cli import main
from jepa_agent.cli.film import BAR, Captioned, captioned, play_episode, worth_watching
from jepa_agent.experiments.baselines import make_baseline
from jepa_agent.experiments.kept_agents import keep_agent
from jepa_agent.experiments.records import BEST_AGENT, SPEC, RunSpec, spec_as_dict, write_json


@pytest.fixture
def baseline(tmp_path, monkeypatch):
    """Save an untrained baseline as a comparison leaves one: ``baseline(algorithm, **overrides)`` is its folder."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")

    def save(algorithm, **overrides):
        spec = RunSpec(algorithm, "CartPole-v1", 0, 100, 100, env_kwargs={"max_episode_steps": 12}, overrides=overrides)
        write_json(tmp_path / "run" / SPEC, spec_as_dict(spec))
        model = make_baseline(algorithm, spec.env, 0, spec.env_kwargs, overrides)
        model.get_env().reset()  # of which VecNormalize takes note
        keep_agent(model, tmp_path / "run" / BEST_AGENT)
        return tmp_path / "run"

    return save


def test_the_typical_episode_is_the_one_nearest_to_the_median():
    assert worth_watching({1: 10.0, 2: 500.0, 3: 90.0, 4: 100.0, 5: 95.0}, 1) == [5]
    assert worth_watching({1: 10.0, 2: 500.0, 3: 90.0, 4: 100.0, 5: 95.0}, 3) == [5, 3, 4]
    assert worth_watching({1: 7.0, 2: 7.0}, 1) == [1]


def test_each_frame_tells_step_return_and_who_acts(small):
    env = Captioned(gym.make("CartPole-v1", render_mode="rgb_array"))
    seen = []

    class Watched(gym.Wrapper):
        def step(self, action):
            told = self.env.step(action)
            seen.append(env.caption)
            return told

    model = small("CartPole-v1", mode="every_2")
    total = play_episode(model, Watched(env), 3, env)
    assert total == len(seen)
    assert seen[:2] == ["step 1   return 1.0   Mode-2: planner", "step 2   return 2.0   Mode-1: actor"]
    frame = env.render()
    assert frame.shape == (400 + BAR, 600, 3)
    assert frame[:BAR].max() > 200  # something is written
    env.close()


def test_a_narrow_frame_gets_smaller_letters_and_keeps_its_picture():
    picture = np.full((40, 160, 3), 7, dtype=np.uint8)
    frame = captioned(picture, "step 1   return 1.0   Mode-1: actor")
    assert np.array_equal(frame[BAR:], picture)
    assert not frame[:BAR, -4:].any()  # the line ends before the edge


def test_a_baseline_of_a_comparison_is_recorded_where_it_is_typical(baseline, tmp_path, capsys):
    assert main(["enjoy", str(baseline("DQN")), "--output", str(tmp_path / "films")]) == 0
    out = capsys.readouterr().out
    assert "seeds 1000 to 1004: median return" in out
    median = float(re.search(r"median return ([\d.]+)", out)[1])
    assert float(re.search(r"mean return ([\d.]+)", out)[1]) == median  # an odd number of episodes has its median
    [film] = (tmp_path / "films").glob("*.mp4")
    assert f"{film}: seed 100" in out


def test_a_baseline_trained_on_normalised_observations_sees_such(baseline, tmp_path, capsys, monkeypatch):
    folder = baseline("PPO", normalize=True)
    moments = np.load(folder / "best_model.npz")
    assert moments["observation/count"] > 1
    seen = []
    monkeypatch.setattr(VecNormalize, "normalize_obs", lambda self, obs: seen.append((self.obs_rms, obs)) or obs * 0)
    assert main(["enjoy", str(folder), "--seed", "1", "--output", str(tmp_path / "films")]) == 0
    assert seen[0][0].mean == pytest.approx(moments["observation/mean"])
    assert seen[0][1] == pytest.approx(gym.make("CartPole-v1").reset(seed=1)[0])
    np.savez(folder / "best_model.npz", **{**moments, "observation/mean": np.zeros(3)})
    assert main(["enjoy", str(folder), "--output", str(tmp_path / "more")]) == 2
    assert "best_model.npz: expected finite numbers (4,) as observation/mean" in capsys.readouterr().err


def test_what_cannot_be_played_is_refused_in_one_line(baseline, tmp_path, capsys):
    folder = baseline("PPO", normalize=True)
    (folder / "best_model.npz").unlink()
    assert main(["enjoy", str(folder), "--output", str(tmp_path / "films")]) == 2
    told = capsys.readouterr().err.strip()
    assert "trained on normalised observations, and best_model.npz" in told
    assert "\n" not in told
    folder = baseline("DQN")
    (folder / BEST_AGENT).write_bytes(b"no archive")
    assert main(["enjoy", str(folder), "--output", str(tmp_path / "films")]) == 2
    told = capsys.readouterr().err.strip()
    assert "cannot be read as DQN" in told
    assert "\n" not in told
    for verb in ("evaluate", "explain"):
        assert main([verb, str(folder)]) == 2
        assert "is of DQN, not of JEPA: jepa-agent enjoy shows it" in capsys.readouterr().err
    assert main(["enjoy", str(folder), "--planner.horizon", "3", "--output", str(tmp_path / "films")]) == 2
    assert "does not plan" in capsys.readouterr().err
    assert not (tmp_path / "films").exists()


def test_a_spec_does_not_name_what_is_imported(baseline, tmp_path, capsys):
    folder = baseline("DQN")
    spec = spec_as_dict(RunSpec("stable_baselines3:A2C", "CartPole-v1", 0, 100, 100))
    write_json(folder / SPEC, spec)
    assert main(["enjoy", str(folder), "--output", str(tmp_path / "films")]) == 2
    assert "stable_baselines3:A2C" in capsys.readouterr().err
