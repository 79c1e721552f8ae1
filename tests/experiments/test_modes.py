import json
from pathlib import Path

import pytest

from jepa_agent.experiments import modes, modes_report
from jepa_agent.experiments.modes import DEFAULTS, ModeStudy, ModeTask, Run, main, play, read_rows
from jepa_agent.experiments.modes_report import by_environment, by_step, cells, score
from jepa_agent.experiments.study import read_as

STUDY = """
modes: [actor, planner]
checkpoints: 2
n_eval_episodes: 2
variants: {defaults: {learning_starts: 20, batch_size: 8, policy_kwargs: {latent_dim: 8, net_arch: [16], head_arch: [16]}}}
tasks: {Pendulum-v1: {n_timesteps: 40, random: -1166, ceiling: -130, seeds: 1}}
"""


def row(seed, step, mode, value, env="A"):
    played = {"returns": [value, value], "steps": 10, "searched": 0.5, "planned": 0.25, "decision_ms": 2.0}
    return {"env": env, "variant": DEFAULTS, "seed": seed, "step": step, "mode": mode, **played}


def test_a_study_is_gone_on_with_where_it_stopped_and_reported(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    arguments = [str(tmp_path / "study.yaml"), "--output", str(tmp_path / "out"), "--agents", str(tmp_path / "agents")]
    main(arguments)
    lines = tmp_path / "out" / "Pendulum-v1" / "defaults-seed0.jsonl"
    rows = read_rows(lines)
    assert [(r["step"], r["mode"]) for r in rows] == [(20, "actor"), (20, "planner"), (40, "actor"), (40, "planner")]
    assert [r["searched"] for r in rows] == [0.0, 1.0, 0.0, 1.0]
    assert all(len(r["returns"]) == 2 and r["steps"] == 400 for r in rows)
    lines.write_text("".join(f"{json.dumps(r)}\n" for r in rows[:3]))
    main(arguments)
    again = read_rows(lines)
    assert again[:3] == rows[:3]
    assert again[3]["returns"] == rows[3]["returns"]
    assert "Pendulum-v1 | planner | 1" in (tmp_path / "out" / "report.md").read_text()
    (tmp_path / "out" / "machine.json").write_text("{}")
    main([*arguments, "--report_only", "true"])
    assert (tmp_path / "out" / "machine.json").read_text() == "{}"  # nothing was measured on this machine
    assert (tmp_path / "out" / "modes.png").stat().st_size > 0


def test_rows_that_call_deciding_by_its_old_name_are_read(tmp_path):
    old = row(0, 1, "actor", 5.0)
    old["ms_per_step"] = old.pop("decision_ms")
    (tmp_path / "old.jsonl").write_text(json.dumps(old) + "\n")
    [cell] = cells(read_rows(tmp_path / "old.jsonl"), {"A": (0.0, 10.0)})
    assert cell.decision_ms == 2.0


def test_episodes_side_by_side_are_those_played_alone(small):
    policy = small("CartPole-v1", mode="planner").policy
    together, alone = play(policy, "CartPole-v1", 3), play(policy, "CartPole-v1", 1)
    assert together.returns[0] == alone.returns[0]
    assert together.steps == sum(together.returns)  # an episode that has ended takes no more steps
    assert together.searched == 1.0


def test_seeds_come_before_tasks():
    tasks = {"A": ModeTask(4, 0.0, 1.0, seeds=2), "B": ModeTask(4, 0.0, 1.0, seeds=1)}
    assert ModeStudy(tasks).runs() == [Run("A", DEFAULTS, 0), Run("B", DEFAULTS, 0), Run("A", DEFAULTS, 1)]


def test_only_agents_that_every_mode_has_acted_on_count():
    rows = [row(0, 1, "actor", 0.0), row(0, 1, "planner", 5.0), row(0, 2, "actor", 10.0)]
    actor, planner = cells(rows, {"A": (0.0, 10.0)})
    assert (actor.score, planner.score, planner.gain, planner.final) == (0.0, 0.5, 0.5, 5.0)
    assert planner.gain_interval is None


def test_gains_are_paired_over_seeds():
    rows = [
        row(s, 1, mode, value)
        for s, (a, b) in enumerate([(0.0, 1.0), (8.0, 9.0)])
        for mode, value in (("actor", a), ("p", b))
    ]
    assert by_step(rows, "p", {"A": (0.0, 10.0)})[-1] == "| A | 1 | 2 | 4.0 | 5.0 | +0.100 | +0.100 to +0.100 |"
    assert score(rows[-1], (-1.0, 9.0)) == 1.0


def test_a_switch_is_held_against_random_on_the_same_agents_run_by_run():
    rows = [
        row(seed, step, mode, value)
        for seed, step, auto, at_random in ((0, 1, 2.0, 0.0), (0, 2, 4.0, 4.0), (1, 1, 6.0, 3.0))
        for mode, value in (("auto_0.25", auto), ("random_0.25", at_random))
    ]
    alone = row(1, 2, "auto_0.25", 99.0)  # random has not acted on this agent yet
    *_, line = by_environment([*rows, alone], "auto_0.25", "random_0.25", {"A": (0.0, 10.0)})
    assert line == "| A | 2 | 0.250 | 0.450 | +0.200 | +0.100 to +0.300 |"


@pytest.mark.parametrize("name", ["switches", "distillation"])
def test_our_own_studies_can_be_read(name):
    study = read_as(ModeStudy, Path(modes.__file__).parent / "studies" / "modes" / f"{name}.yaml")
    assert all(list(study.steps(run.env))[-1] == study.tasks[run.env].n_timesteps for run in study.runs())


@pytest.mark.parametrize(("change", "says"), [("actor", "fast"), ("-1166", "0")])
def test_a_study_that_cannot_be_is_refused(tmp_path, change, says):
    (tmp_path / "study.yaml").write_text(STUDY.replace(change, says))
    with pytest.raises(ValueError, match=r"unknown mode 'fast'|must lie below the ceiling"):
        read_as(ModeStudy, tmp_path / "study.yaml")


def test_the_figure_tells_variants_apart(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(modes_report, "save", lambda figure, path: drawn.append(figure))
    rows = [row(0, 1, mode, 5.0) | {"variant": variant} for variant in (DEFAULTS, "small") for mode in ("actor", "planner")]
    modes_report.plot_trade_off(cells(rows, {"A": (0.0, 10.0)}), tmp_path / "modes.png")
    [axes] = drawn[0].axes
    drawn_of = dict(zip(axes.get_legend_handles_labels()[1], axes.containers, strict=True))
    assert list(drawn_of) == ["actor", "planner", "actor, small", "planner, small"]
    marks = [found.lines[0] for found in drawn_of.values()]
    assert [(mark.get_color(), mark.get_marker()) for mark in marks[2:]] == [
        (mark.get_color(), mark.get_marker()) for mark in marks[:2]
    ]
    assert [mark.get_fillstyle() for mark in marks] == ["full", "full", "none", "none"]


def test_the_figure_shows_what_is_gained_with_its_interval(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(modes_report, "save", lambda figure, path: drawn.append(figure))
    rows = [row(seed, 1, "actor", 5.0) for seed in range(5)] + [row(seed, 1, "planner", 6.0 + seed) for seed in range(5)]
    found = cells(rows, {"A": (0.0, 10.0)})
    modes_report.plot_trade_off(found, tmp_path / "modes.png")
    mark, _, [bar] = drawn[0].axes[0].containers[1].lines
    assert mark.get_ydata() == pytest.approx([0.3])  # 8 less 5, of 10
    assert bar.get_segments()[0][:, 1] == pytest.approx(found[1].gain_interval)
