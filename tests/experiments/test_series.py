from pathlib import Path

import numpy as np
import pytest

from jepa_agent.experiments.records import EVALUATIONS, RESULT, RunSpec, spec_as_dict, write_json
from jepa_agent.experiments.series import by_label, read_all, read_series

ROW = '{"step": 20, "mode": "policy", "returns": [1.0, 3.0], "cpu_seconds": 1.0, "ms_per_step": 0.1}\n'


def monitor(path: Path, start: float, episodes: list[tuple[float, int, float]]) -> Path:
    rows = "".join(f"{reward},{length},{time}\n" for reward, length, time in episodes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#{{"t_start": {start}, "env_id": "x"}}\nr,l,t\n{rows}')
    return path


def test_evaluations_of_sb3_and_the_zoo_are_read_and_seeds_share_their_folders_name(tmp_path: Path) -> None:
    for seed in (1, 2):
        folder = tmp_path / "sac" / f"Pendulum-v1_{seed}"
        folder.mkdir(parents=True)
        np.savez(folder / "evaluations.npz", timesteps=np.array([10, 20]), results=np.array([[1.0, 3.0], [seed, seed]]))
    both = read_series(tmp_path / "sac")
    assert list(by_label(both)) == ["sac/Pendulum-v1"]
    assert [one.returns.tolist() for one in both] == [[2.0, 1.0], [2.0, 2.0]]
    [single] = read_series(tmp_path / "sac" / "Pendulum-v1_1")
    assert (single.label, single.steps.tolist()) == ("Pendulum-v1_1", [10, 20])


def test_monitor_files_of_one_run_are_joined_by_the_time_episodes_ended(tmp_path: Path) -> None:
    monitor(tmp_path / "run" / "0.monitor.csv", 100.0, [(1.0, 5, 1.0), (3.0, 5, 9.0)])
    monitor(tmp_path / "run" / "1.monitor.csv", 102.0, [(2.0, 10, 1.0)])
    [series] = read_series(tmp_path / "run", window=1)
    assert series.returns.tolist() == [1.0, 2.0, 3.0]
    assert series.steps.tolist() == [5.0, 15.0, 20.0]
    [smooth] = read_series(tmp_path / "run", window=2)
    assert smooth.returns.tolist() == [1.5, 2.5]
    assert smooth.steps.tolist() == [15.0, 20.0]
    [alone] = read_series(tmp_path / "run" / "1.monitor.csv")
    assert alone.returns.tolist() == [2.0]


def test_comparisons_come_by_algorithm_and_mode(tmp_path: Path) -> None:
    spec = RunSpec("PPO", "CartPole-v1", 0, 20, 20, 2)
    write_json(spec.folder(tmp_path) / RESULT, {"spec": spec_as_dict(spec)})
    (spec.folder(tmp_path) / EVALUATIONS).write_text(ROW)
    [series] = read_series(tmp_path)
    assert (series.label, series.steps.tolist(), series.returns.tolist()) == ("CartPole-v1 PPO", [20], [2.0])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("evaluations.npz", "no archive", "not what EvalCallback writes"),
        ("evaluations.npz", "", "not what EvalCallback writes"),
        ("evaluations.npz", "PK\x03\x04cut", "not what EvalCallback writes"),
        ("0.monitor.csv", "r,l,t\n1,2,3\n", "not what SB3's Monitor writes"),
        ("0.monitor.csv", '#{"t_start": 1.0}\nr,l,t\n', "no episode yet"),
        ("other.txt", "", r"holds no result\.json"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=says):
        read_series(tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere does not exist"):
        read_series(tmp_path / "nowhere")


def test_what_is_not_the_same_is_never_averaged(tmp_path: Path) -> None:
    for run in ("sac/Pendulum-v1_1", "sac/Pendulum-v1_2", "ppo/Pendulum-v1_1", "ppo/CartPole-v1_1"):
        (tmp_path / "logs" / run).mkdir(parents=True)
        np.savez(tmp_path / "logs" / run / "evaluations.npz", timesteps=np.array([10]), results=np.array([[1.0]]))
    below = by_label(read_series(tmp_path / "logs"))
    assert {label: len(runs) for label, runs in below.items()} == {
        "logs/ppo/CartPole-v1": 1,
        "logs/ppo/Pendulum-v1": 1,
        "logs/sac/Pendulum-v1": 2,
    }
    runs = [tmp_path / "logs" / name / "Pendulum-v1_1" for name in ("sac", "ppo")]
    assert [one.label for one in read_all(runs)] == ["sac/Pendulum-v1_1", "ppo/Pendulum-v1_1"]
    files = [run / "evaluations.npz" for run in runs]
    assert [one.label for one in read_all(files)] == [
        "sac/Pendulum-v1_1/evaluations.npz",
        "ppo/Pendulum-v1_1/evaluations.npz",
    ]


def test_a_zoo_run_beside_a_comparison_is_drawn_too_and_two_comparisons_stay_apart(tmp_path: Path) -> None:
    spec = RunSpec("PPO", "CartPole-v1", 0, 20, 20, 2)
    for study in ("one", "two"):
        write_json(spec.folder(tmp_path / study) / RESULT, {"spec": spec_as_dict(spec)})
        (spec.folder(tmp_path / study) / EVALUATIONS).write_text(ROW)
    np.savez(tmp_path / "one" / "evaluations.npz", timesteps=np.array([10]), results=np.array([[1.0]]))
    labels = [one.label for one in read_all([tmp_path / "one", tmp_path / "two"])]
    assert labels == ["one: CartPole-v1 PPO", "one", "two: CartPole-v1 PPO"]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = monitor(tmp_path / "0.monitor.csv", 0.0, [(1.0, 5, 1.0), (3.0, 5, 9.0)])
    path.write_text(path.read_text().rstrip()[:-4])
    assert read_series(path, window=1)[0].returns.tolist() == [1.0]


def test_an_odd_file_costs_its_own_curve_and_one_line(tmp_path: Path) -> None:
    good = monitor(tmp_path / "runs" / "good_1" / "0.monitor.csv", 0.0, [(1.0, 5, 1.0), (2.0, 5, 2.0)])
    contents = {"empty": "", "header": '#{"t_start": 1.0}\nr,l,t\n', "no json": "#\nr,l,t\n1,2,3\n", "binary": "\0\1\2"}
    for name, content in contents.items():
        (tmp_path / "runs" / f"{name}_1").mkdir()
        (tmp_path / "runs" / f"{name}_1" / "0.monitor.csv").write_text(content)
    for name, arrays in {
        "objects": {"timesteps": np.array([1]), "results": np.array([[None]])},
        "ragged": {"timesteps": np.array([1, 2]), "results": np.array([[1.0]])},
        "nan": {"timesteps": np.array([1]), "results": np.array([[np.nan]])},
        "words": {"timesteps": np.array(["a"]), "results": np.array([[1.0]])},
        "keys": {"something": np.array([1])},
    }.items():
        (tmp_path / "runs" / name).mkdir()
        np.savez(tmp_path / "runs" / name / "evaluations.npz", **arrays)
    (tmp_path / "runs" / "folder" / "evaluations.npz").mkdir(parents=True)
    (tmp_path / "runs" / "good_2").mkdir()
    (tmp_path / "runs" / "good_2" / "0.monitor.csv").write_text(good.read_text() + "garbage")
    for name, content in {"lost": "{", "nested": "[" * 100_000}.items():
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "result.json").write_text(content)
    told: list[str] = []
    series = read_all([tmp_path / "runs"], 1, told.append)
    assert [one.label for one in series] == ["runs/good", "runs/good"]
    assert all(one.returns.tolist() == [1.0, 2.0] for one in series)
    assert len(told) == 11
    for name in (*contents, "objects", "ragged", "nan", "words", "keys", "lost", "nested"):
        assert any(name in line for line in told)
    with pytest.raises(ValueError, match="does not exist"):
        read_all([tmp_path / "runs", tmp_path / "mistyped"])


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 5, 1)])
def test_returns_of_any_number_of_axes_are_averaged_per_evaluation(tmp_path: Path, shape: tuple[int, ...]) -> None:
    results = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.savez(tmp_path / "evaluations.npz", timesteps=np.array([1, 2, 3]), results=results)
    [series] = read_series(tmp_path)
    np.testing.assert_allclose(series.returns, results.reshape(3, -1).mean(1))
