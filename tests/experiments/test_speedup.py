"""Times fewer steps, on curves whose answer is known."""

import numpy as np
import pytest

from jepa_agent.experiments.records import Curve, RunSpec
from jepa_agent.experiments.speedup import speedups
from jepa_agent.experiments.study import Study, Task

STUDY = Study(
    {"CartPole-v1": Task(10.0, 1000, baselines=("PPO", "DQN")), "Acrobot-v1": Task(10.0, 1000, baselines=("PPO",))}
)


def curve(algorithm, env, seed, reached_at, last=1000, every=100):
    steps = np.arange(every, last + 1, every)
    means = np.where(steps >= (reached_at or np.inf), 10.0, 0.0)
    spec = RunSpec(algorithm, env, seed, last, every, 1)
    mode = "actor" if algorithm == "JEPA" else "policy"
    return Curve(spec, mode, steps, means[:, None], np.zeros(len(steps)), np.zeros(len(steps)))


def runs(algorithm, env, reached, **more):
    return [curve(algorithm, env, seed, at, **more) for seed, at in enumerate(reached)]


def test_the_best_baseline_counts_and_ratios_multiply():
    curves = runs("JEPA", "CartPole-v1", [200, 200, 200]) + runs("PPO", "CartPole-v1", [800, 800, 800])
    curves += (
        runs("DQN", "CartPole-v1", [900, 900, 900]) + runs("JEPA", "Acrobot-v1", [500]) + runs("PPO", "Acrobot-v1", [500])
    )
    found = speedups(STUDY, curves, "actor", resamples=50)
    assert found.by_env["CartPole-v1"] == pytest.approx((4.0, 4.0, 4.0, ""))  # all runs alike: no spread
    assert found.by_env["Acrobot-v1"].ratio == 1.0
    assert found.every.ratio == pytest.approx(2.0)
    assert (found.n_reached, found.reached, found.every.bound) == (2, found.every, "")


def test_runs_that_never_got_there_count_at_their_end_and_make_it_a_bound():
    curves = runs("JEPA", "CartPole-v1", [None, None, 200]) + runs("PPO", "CartPole-v1", [500, 500, 500])
    found = speedups(STUDY, curves, "actor", resamples=50)
    assert found.by_env["CartPole-v1"].ratio == pytest.approx(0.5)
    assert (found.by_env["CartPole-v1"].bound, found.reached, found.n_reached) == ("≤", None, 0)
    assert "Acrobot-v1" not in found.by_env
    lost = runs("JEPA", "CartPole-v1", [200] * 3) + runs("PPO", "CartPole-v1", [None, None, 300])
    assert speedups(STUDY, lost, "actor", resamples=50).reached[3] == "≥"


def test_a_first_evaluation_that_suffices_makes_it_a_bound():
    curves = runs("JEPA", "CartPole-v1", [100] * 3) + runs("PPO", "CartPole-v1", [400] * 3)
    assert speedups(STUDY, curves, "actor", resamples=50).by_env["CartPole-v1"].bound == "≥"
    curves = runs("JEPA", "CartPole-v1", [400] * 3) + runs("PPO", "CartPole-v1", [100] * 3)
    assert speedups(STUDY, curves, "actor", resamples=50).by_env["CartPole-v1"].bound == "≤"


def test_who_was_evaluated_more_often_is_judged_as_seldom_as_the_others():
    curves = runs("JEPA", "CartPole-v1", [150] * 3, every=50) + runs("PPO", "CartPole-v1", [800] * 3, every=400)
    found = speedups(STUDY, curves, "actor", resamples=50).by_env["CartPole-v1"]
    assert (found.ratio, found.bound) == (2.0, "≥")  # at 400 steps, not at 150


def test_the_interval_widens_with_the_spread_of_runs():
    even = runs("JEPA", "CartPole-v1", [200] * 6) + runs("PPO", "CartPole-v1", [800] * 6)
    uneven = runs("JEPA", "CartPole-v1", [100, 100, 200, 200, 800, 900]) + runs("PPO", "CartPole-v1", [800] * 6)
    first, second = (speedups(STUDY, curves, "actor").every for curves in (even, uneven))
    assert first.low == pytest.approx(first.high)
    assert second.low < second.ratio < second.high


def test_without_runs_of_both_there_is_nothing_to_compare():
    with pytest.raises(ValueError, match="no environment has finished runs"):
        speedups(STUDY, runs("JEPA", "CartPole-v1", [100]), "actor")
