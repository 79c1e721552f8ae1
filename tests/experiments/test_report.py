import io
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from jepa_agent.experiments.figures import average, plot_curves, plot_needed
from jepa_agent.experiments.records import Curve, RunSpec
from jepa_agent.experiments.report import print_table, write_summary
from jepa_agent.experiments.statistics import summarise


def curve(algorithm: str, mode: str, seed: int, means: list[float], env: str = "CartPole-v1") -> Curve:
    steps = 100 * np.arange(1, len(means) + 1)
    spec = RunSpec(algorithm, env, seed, 1000, 100, 1)
    return Curve(spec, mode, steps, np.array(means)[:, None], (1 + seed) * steps / 100, np.ones(len(means)))


CURVES = [
    curve("JEPA", "actor", 0, [10, 480]),
    curve("JEPA", "planner", 0, [20, 490]),
    curve("PPO", "policy", 0, [5, 5, 500]),
    curve("PPO", "policy", 1, [5, 5, 6]),
]


def test_average_of_curves_with_the_same_points_is_exact() -> None:
    x = np.array([1.0, 2.0, 3.0])
    band = average([x, x], [np.array([0.0, 2.0, 4.0]), np.array([2.0, 2.0, 8.0])])
    assert band.x.tolist() == [1, 2, 3]
    assert band.mean.tolist() == [1, 2, 6]
    assert band.interval is not None
    assert [bounds.tolist() for bounds in band.interval] == [[0, 2, 4], [2, 2, 8]]
    assert not band.held


def test_average_holds_what_ended_early_and_reads_nothing_before_its_start() -> None:
    x = [np.array([2.0, 4.0]), np.array([1.0, 3.0, 5.0])]
    band = average(x, [np.array([0.0, 4.0]), np.array([0.0, 2.0, 10.0])])
    assert band.x.tolist() == [2, 3, 5]
    assert band.mean.tolist() == [0.5, 2.0, 7.0]  # (0 + 1) / 2, (2 + 2) / 2, (4 held + 10) / 2
    assert band.held


def test_one_seed_has_no_band() -> None:
    band = average([np.array([1.0, 2.0])], [np.array([3.0, 4.0])])
    assert band.interval is None
    assert not band.held


def test_the_table_counts_seeds_in_every_row() -> None:
    out = io.StringIO()
    print_table(summarise(CURVES, 475), Console(file=out, width=160))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert "CartPole-v1, threshold 475" in lines
    assert "JEPA (actor) 1 1/1 200 (200..200) 2.0 (2.0..2.0) 480.0 (-) 245.0 (245.0..245.0) 1.00" in lines
    assert "PPO 2 1/2 - (300..300) - (3.0..3.0) 253.0 (6.0..500.0) 87.7 (5.3..170.0) 1.00" in lines


def test_the_table_says_so_where_nobody_reached_the_threshold() -> None:
    out = io.StringIO()
    print_table(summarise(CURVES[2:], 1000), Console(file=out, width=160))
    assert "PPO 2 0/2 - - 253.0" in " ".join(out.getvalue().split())


def test_a_narrow_table_loses_no_digit() -> None:
    out = io.StringIO()
    print_table(summarise(CURVES, 475), Console(file=out, width=60))
    assert "…" not in out.getvalue()


def test_the_summary_is_json_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "summary.json"
    write_summary(summarise(CURVES, 475), "jepa-agent compare study.yaml", path)
    content = json.loads(path.read_text())
    assert content["command"] == "jepa-agent compare study.yaml"
    assert [row["algorithm"] for row in content["summaries"]] == ["JEPA", "JEPA", "PPO"]
    assert content["summaries"][2]["steps"] == {"median": None, "low": 300.0, "high": 300.0}
    assert content["summaries"][0]["final_interval"] is None
    assert content["summaries"][0]["threshold"] == 475


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    plot_curves(CURVES, 475, tmp_path / "curves.png")
    image = imread(tmp_path / "curves.png")
    assert image.shape[0] > 300
    assert image.shape[1] > image.shape[0]
    assert image[..., :3].std() > 0.05


def test_a_figure_shows_one_environment(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got CartPole-v1, Pendulum-v1"):
        plot_curves([*CURVES, curve("PPO", "policy", 0, [1], "Pendulum-v1")], 475, tmp_path / "curves.png")
    with pytest.raises(ValueError, match="got no curves"):
        plot_curves([], 475, tmp_path / "curves.png")


def test_the_picture_of_steps_needed_has_a_mark_per_run_open_where_the_threshold_was_not_reached(monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr("jepa_agent.experiments.figures.save", lambda figure, path: drawn.append(figure))
    plot_needed(CURVES, {"CartPole-v1": 475}, Path("needed.png"), {"CartPole-v1": "JEPA: 1.5 times fewer steps"})
    [axes] = drawn[0].axes
    marks = {(line.get_xdata()[0], line.get_markerfacecolor() == "none", round(line.get_ydata()[0])) for line in axes.lines}
    assert marks == {(200, False, 1), (200, False, 2), (300, False, 3), (300, True, 3)}
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["JEPA (actor) 1/1", "JEPA (planner) 1/1", "PPO 1/2"]
    assert "JEPA: 1.5 times fewer steps" in {text.get_text() for text in axes.texts}


def test_a_panel_of_curves_has_the_band_of_one_agent_and_the_lines_of_all(monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr("jepa_agent.experiments.figures.save", lambda figure, path: drawn.append(figure))
    plot_curves([*CURVES, curve("SAC", "policy", 0, [1, 2]), curve("SAC", "policy", 1, [3, 4])], 475, Path("curves.png"))
    panels = drawn[0].axes
    assert len(panels) == 8  # four agents against steps and against CPU seconds
    assert [len(axes.collections) for axes in panels[:4]] == [0, 0, 1, 1]  # a single run has no band
    assert all(len(axes.lines) == 5 for axes in panels)  # the agents and the threshold
    assert {axes.get_ylim() for axes in panels} == {panels[0].get_ylim()}
