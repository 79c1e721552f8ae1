import dataclasses
import json

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import SAC

from jepa_agent.experiments import goals
from jepa_agent.experiments.goals import ASKED, FROZEN, GOALS, RANDOM, Results, play, table

SHORT = "JEPA/ShortPendulumSpin-v0"
SPIN = dataclasses.replace(GOALS[1], task=SHORT)


@pytest.fixture(autouse=True)
def _short_task():
    gym.register(SHORT, entry_point="jepa_agent.envs.goals:pendulum_spin", max_episode_steps=6)
    yield
    gym.registry.pop(SHORT)


def returns(agent, mean):
    return {"agent": agent, "mean": mean, "returns": [mean], "shown": [0.0, 1.0]}


def test_every_agent_meets_the_same_starts_and_what_is_shown_is_the_first_episode():
    returns, seen = play(lambda obs, state, deterministic: (np.full((len(obs), 1), 2.0), None), SHORT, 2)
    env, again = gym.make(SHORT), []
    for seed in (10_000, 10_001):
        env.reset(seed=seed)
        steps = [env.step(np.array([2.0])) for _ in range(6)]
        again.append(sum(step[1] for step in steps))
        if seed == 10_000:
            np.testing.assert_allclose(seen[1:], [step[0] for step in steps])
    assert returns == pytest.approx(again)


def test_the_share_is_of_what_the_better_agent_from_scratch_gains_over_random_actions(tmp_path):
    results = Results(tmp_path, 1, "a command")
    for agent, mean in {
        RANDOM: 10.0,
        FROZEN: 20.0,
        "SAC, frozen": 15.0,
        ASKED: 90.0,
        "JEPA from scratch": 60.0,
        "SAC from scratch": 110.0,
    }.items():
        path = results.path(SPIN, agent, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(returns(agent, mean)))
    assert table(results, [SPIN]).splitlines()[-1].endswith("| 10 | 20 | 15 | 90 | 110 (SAC) | 80% |")


def test_what_is_missing_is_measured_once_and_the_frozen_actor_acts_by_what_it_learned(tmp_path, monkeypatch, small):
    learned = []

    def learn(algorithm, goal, env, seed):
        learned.append((algorithm, env))
        model = small(env, seed=seed) if algorithm == "JEPA" else SAC("MlpPolicy", env, learning_starts=100)
        return model.learn(60)

    monkeypatch.setattr(goals, "learn", learn)
    monkeypatch.setattr(goals, "GOALS", (SPIN,))
    options = ["--output", str(tmp_path), "--seeds", "0", "--goals", "spin", "--episodes", "2"]
    goals.main(options)
    assert learned == [("JEPA", "Pendulum-v1"), ("SAC", "Pendulum-v1"), ("JEPA", SHORT), ("SAC", SHORT)]
    asked, frozen = (
        json.loads((tmp_path / "spin" / f"{name}-seed0.json").read_text()) for name in ("JEPA_asked", "JEPAs_actor_frozen")
    )
    assert asked["returns"] != frozen["returns"]
    assert len(asked["shown"]) == 7
    assert asked["shown"][0] == frozen["shown"][0]
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    goals.main(options)
    assert len(learned) == 4
