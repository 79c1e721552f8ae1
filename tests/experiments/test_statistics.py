import json
from pathlib import Path

import numpy as np
import pytest

from jepa_agent.experiments.records import Curve, RunSpec
from jepa_agent.experiments.statistics import (
    bootstrap_interval,
    censored_median,
    estimate,
    first_reaching,
    iqm,
    median,
    optimality_gap,
    paired_difference,
    performance_profile,
    probability_of_improvement,
    summarise,
)

# Numbers of rliable's, which does not import beside pandas 3: kept here to be compared with.
RLIABLE = json.loads(Path(__file__).with_name("rliable.json").read_text())
TASKS = {name: list(np.array(RLIABLE[name]).T) for name in "AB"}


def curve(seed: int, means: list[float], algorithm: str = "PPO", mode: str = "policy", seconds: float = 0.5) -> Curve:
    """Evaluations every 100 steps, two episodes each, whose returns lie 1 below and 1 above the mean."""
    steps = 100 * np.arange(1, len(means) + 1)
    returns = np.array(means)[:, None] + np.array([-1.0, 1.0])
    spec = RunSpec(algorithm, "CartPole-v1", seed, 1000, 100, 2)
    return Curve(spec, mode, steps, returns, seconds * steps, np.full(len(means), seed + 1.0))


def test_no_interval_from_one_seed() -> None:
    assert bootstrap_interval([3.0]) is None
    assert bootstrap_interval([]) is None


def test_interval_holds_the_statistic_and_is_reproducible() -> None:
    scores = np.random.default_rng(1).normal(10, 2, 20)
    interval = bootstrap_interval(scores)
    assert interval is not None
    low, high = interval
    # For 20 scores a normal approximation gives mean -+ 1.96 s / sqrt(20); the bootstrap must come close to it.
    half = 1.96 * scores.std() / np.sqrt(20)
    assert (low, high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.15)
    assert bootstrap_interval(scores) == interval
    narrower = bootstrap_interval(scores, confidence=0.5)
    assert narrower is not None
    assert low < narrower[0] < narrower[1] < high


def test_interval_takes_any_statistic_and_equal_scores() -> None:
    assert bootstrap_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
    interval = bootstrap_interval([1.0, 2.0, 3.0, 4.0, 1000.0], np.median, n_resamples=200)
    mean = bootstrap_interval([1.0, 2.0, 3.0, 4.0, 1000.0], n_resamples=200)
    assert interval is not None
    assert mean is not None
    assert interval[0] < 3.0 < interval[1]
    assert interval[0] != mean[0]


@pytest.mark.parametrize(("threshold", "expected"), [(5, 200.0), (6, 400.0), (7, None)])
def test_first_reaching_includes_equality(threshold: float, expected: float | None) -> None:
    assert first_reaching([100, 200, 300, 400], [1, 5, 2, 6], threshold) == expected


def test_runs_that_never_reach_the_threshold_count_as_infinity() -> None:
    reached = [curve(0, [0, 10, 10]), curve(1, [0, 0, 10]), curve(2, [0, 0, 0])]
    [summary] = summarise(reached, threshold=10)
    assert (summary.n_seeds, summary.n_reached) == (3, 2)
    assert summary.steps == (300.0, 200.0, 300.0)  # the median of 200, 300 and infinity
    assert summary.cpu_seconds == (150.0, 100.0, 150.0)


@pytest.mark.parametrize("failures", [1, 2])
def test_the_median_is_unknown_unless_more_than_half_got_there(failures: int) -> None:
    [summary] = summarise([curve(0, [10]), *(curve(seed + 1, [0]) for seed in range(failures))], threshold=10)
    assert summary.n_reached == 1
    assert summary.steps == (None, 100.0, 100.0)


def test_nobody_reaching_the_threshold_leaves_nothing_to_tell() -> None:
    [summary] = summarise([curve(0, [1, 2]), curve(1, [3, 4])], threshold=10)
    assert summary.n_reached == 0
    assert summary.steps == summary.cpu_seconds == (None, None, None)


def test_final_return_is_the_last_evaluation_of_each_seed() -> None:
    [summary] = summarise([curve(0, [9, 1, 2, 3]), curve(1, [0, 5])], threshold=100)
    assert summary.final_return == pytest.approx(4.0)  # (3 + 5) / 2
    assert summary.final_interval == (3.0, 5.0)
    assert summary.last_three == (pytest.approx((2.0 + 2.5) / 2), 2.0, 2.5)
    assert summary.ms_per_step == pytest.approx(1.0)  # the median of 1, 1, 1, 1, 2, 2


def test_a_single_seed_has_no_interval() -> None:
    [summary] = summarise([curve(0, [1, 2])], threshold=2)
    assert (summary.n_seeds, summary.final_interval) == (1, None)


def test_algorithms_and_modes_are_kept_apart() -> None:
    curves = [curve(0, [1], "JEPA", "actor"), curve(0, [2], "JEPA", "planner"), curve(0, [3]), curve(1, [5])]
    summaries = summarise(curves, threshold=9)
    found = [(one.algorithm, one.mode, one.n_seeds, one.final_return) for one in summaries]
    assert found == [("JEPA", "actor", 1, 1.0), ("JEPA", "planner", 1, 2.0), ("PPO", "policy", 2, 4.0)]


@pytest.mark.parametrize("name", ["A", "B"])
@pytest.mark.parametrize("statistic", [iqm, median, optimality_gap], ids=lambda function: function.__name__)
def test_aggregates_and_their_intervals_are_rliables(name, statistic) -> None:
    index = RLIABLE["names"].index(statistic.__name__)
    found = estimate(statistic, TASKS[name])
    assert found.value == pytest.approx(RLIABLE["point"][name][index])
    assert found.interval == pytest.approx([ends[index] for ends in RLIABLE["interval"][name]], abs=0.02)
    assert found.n == 24


def test_probability_of_improvement_is_rliables() -> None:
    expected = RLIABLE["probability_of_improvement"]
    found = estimate(probability_of_improvement, TASKS["A"], TASKS["B"])
    assert found.value == pytest.approx(expected["point"])
    assert found.interval == pytest.approx(expected["interval"], abs=0.02)


def test_performance_profile_is_rliables() -> None:
    assert performance_profile(TASKS["A"], RLIABLE["taus"]) == pytest.approx(RLIABLE["profile"]["A"])


def test_probability_of_improvement_counts_ties_half_and_tasks_alike() -> None:
    assert probability_of_improvement([[1.0, 2.0]], [[1.0, 0.0]]) == (0.5 + 1 + 1 + 1) / 4
    assert probability_of_improvement([[1.0], [0.0] * 3], [[0.0], [1.0] * 3]) == 0.5
    assert probability_of_improvement([[-1.0, -np.inf]], [[-np.inf]]) == 0.75  # never and never is a tie


def test_iqm_drops_a_quarter_of_the_runs_at_either_end() -> None:
    assert iqm([[-100.0, 1.0], [3.0, 100.0]]) == 2.0


def test_the_optimality_gap_does_not_reward_what_lies_beyond() -> None:
    assert optimality_gap([[0.5, 7.0]]) == 0.25


def test_no_interval_where_a_task_has_a_single_run() -> None:
    assert estimate(iqm, [[1.0, 2.0], [3.0]]).interval is None
    assert estimate(iqm, [[1.0, 2.0], [3.0, 3.0]]).interval is not None


def test_runs_are_drawn_within_their_task() -> None:
    # Tasks differ, runs of a task do not: drawing within tasks always gives the same mean.
    assert estimate(median, [[0.0, 0.0], [1.0, 1.0]]).interval == (0.5, 0.5)


def test_paired_differences_forget_what_a_seed_does_to_both() -> None:
    seeds = np.array([0.0, 100.0, -50.0, 7.0])
    found = paired_difference(seeds + np.array([1.0, 2.0, 1.0, 2.0]), seeds)
    assert found.value == 1.5
    assert found.interval is not None
    assert 1.0 <= found.interval[0] < 1.5 < found.interval[1] <= 2.0
    assert paired_difference([3.0], [1.0]).interval is None


def test_the_median_of_what_was_needed_knows_of_those_who_never_got_there() -> None:
    # By hand: survival falls to 4/5, 3/5, 2/5 at 10, 20, 30; one was given up at 25 (before: 5 at risk, then 2).
    found = censored_median([10.0, 20.0, None, 30.0, None], [99, 99, 25, 99, 40])
    # At 10: 4/5; at 20: 3/5; at 30, two at risk: 3/5 x 1/2 = 3/10, the first below one half.
    assert (found.median, found.n, found.n_reached) == (30.0, 5, 3)
    assert found.interval is not None
    assert found.interval[0] <= 30.0 <= found.interval[1]


def test_the_median_is_not_known_when_most_never_got_there() -> None:
    assert censored_median([10.0, None, None], [50, 50, 50]).median is None
    assert censored_median([None, None], [50, 50]) == (None, None, 2, 0)


def test_the_interval_of_a_median_is_open_where_runs_never_got_there() -> None:
    found = censored_median([1.0, 2.0, 3.0, None, None], [9] * 5)
    assert found.interval is not None
    assert found.interval[1] == np.inf


def test_the_interval_of_a_median_needs_five_runs() -> None:
    # The least and the most of four enclose the median in 14 of 16 cases, of five in 30 of 32.
    assert censored_median([7.0], [9]) == (7.0, None, 1, 1)
    assert censored_median([1.0, 2.0, 3.0, 4.0], [9] * 4).interval is None
    assert censored_median([1.0, 2.0, 3.0, 4.0, 5.0], [9] * 5).interval is not None


def test_the_interval_ends_with_the_last_run_where_all_got_there() -> None:
    found = censored_median([1.0, 2.0, 3.0, 4.0, 9.0], [10] * 5)
    assert found.median == 3.0
    assert found.interval is not None
    assert found.interval[0] < 3.0 < found.interval[1] <= 9.0


@pytest.mark.parametrize(
    ("needed", "middle"),
    [([1.0, 2.0, 3.0, 4.0], 2.5), ([100.0, None], None), ([1.0, 2.0, 3.0, None, None, None], None), ([1.0, 2.0, None], 2.0)],
)
def test_the_median_of_an_even_number_is_in_the_middle_as_everywhere(needed, middle) -> None:
    assert censored_median(needed, [500] * len(needed)).median == middle
