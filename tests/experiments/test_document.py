import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from jepa_agent.experiments.document import (
    HTML,
    MARKDOWN,
    paired,
    steps_needed,
    write_report,
)
from jepa_agent.experiments.gallery import improvement, remarks
from jepa_agent.experiments.ratios import headline, ratio_in_words, times_fewer
from jepa_agent.experiments.records import RESULT, Curve, RunSpec, spec_as_dict, write_json
from jepa_agent.experiments.statistics import summarise
from jepa_agent.experiments.study import Study, Task

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
STUDY = Study({"CartPole-v1": Task(475, 400, random=25.0), "Pendulum-v1": Task(-200, 400, random=-1200.0)})


def curve(algorithm: str, mode: str, seed: int, means: list[float], env: str = "CartPole-v1") -> Curve:
    steps = 100 * np.arange(1, len(means) + 1)
    spec = RunSpec(algorithm, env, seed, 400, 100, 1)
    return Curve(spec, mode, steps, np.array(means)[:, None], 0.01 * steps * (1 + seed), np.ones(len(means)))


CURVES = [
    *(curve("JEPA", mode, seed, [480.0, 475.0]) for mode in ("actor", "planner") for seed in range(2)),
    *(curve("PPO", "policy", seed, [5.0, 5.0, 5.0, 500.0]) for seed in range(2)),
    *(curve("DQN", "policy", seed, [5.0, 5.0, 25.0]) for seed in range(2)),
    *(curve("JEPA", mode, seed, [-200.0, -150.0], "Pendulum-v1") for mode in ("actor", "planner") for seed in range(2)),
    *(curve("SAC", "policy", seed, [-900.0, -200.0], "Pendulum-v1") for seed in range(2)),
]


def summaries():
    thresholds = STUDY.thresholds()
    return [s for env in thresholds for s in summarise([c for c in CURVES if c.spec.env == env], thresholds[env])]


def test_ratios_are_to_the_best_baseline_and_averaged_geometrically() -> None:
    found = headline(summaries())
    assert [(r.env, r.mode, r.n, r.steps, r.fewest) for r in found["ratios"]] == [
        ("CartPole-v1", "actor", 2, 4.0, "PPO, n=2"),
        ("CartPole-v1", "planner", 2, 4.0, "PPO, n=2"),
        ("Pendulum-v1", "actor", 2, 2.0, "SAC, n=2"),
        ("Pendulum-v1", "planner", 2, 2.0, "SAC, n=2"),
    ]
    assert found["means"]["actor"]["steps"] == pytest.approx(8**0.5)
    assert (found["means"]["actor"]["known"], found["means"]["actor"]["tasks"]) == (2, 2)


def test_the_picture_says_beside_each_environment_what_jepa_needs() -> None:
    assert remarks(STUDY, CURVES) == {"CartPole-v1": "JEPA: 4 times fewer steps", "Pendulum-v1": "JEPA: 2 times fewer steps"}
    ours = [curve("JEPA", "actor", 0, [0.0, 480.0]), curve("JEPA", "actor", 0, [-900.0], "Pendulum-v1")]
    others = [curve("PPO", "policy", 0, [480.0]), curve("SAC", "policy", 0, [-150.0], "Pendulum-v1")]
    assert remarks(STUDY, [*ours, *others]) == {
        "CartPole-v1": "JEPA: 2 times as many steps",
        "Pendulum-v1": "JEPA: not reached",
    }
    assert remarks(STUDY, [*ours[:1], curve("PPO", "policy", 0, [0.0, 480.0])]) == {"CartPole-v1": "JEPA: as many steps"}


def test_what_costs_more_is_said_to_cost_more() -> None:
    assert (ratio_in_words(2.0), ratio_in_words(0.25), ratio_in_words(0.99)) == (
        "2.0 times fewer",
        "4.0 times as many",
        "as many",
    )
    assert (times_fewer(5.67), times_fewer(0.0213), times_fewer(123.4), times_fewer(None)) == ("5.7", "0.021", "123", "-")


def test_there_is_no_ratio_where_one_of_the_two_never_got_there() -> None:
    only = summarise([curve("JEPA", "actor", 0, [1.0]), curve("PPO", "policy", 0, [500.0])], 475)
    found = headline(only)
    assert found["ratios"][0].steps is None
    assert found["means"]["actor"]["steps"] is None
    nobody = summarise([curve("JEPA", "actor", 0, [500.0]), curve("PPO", "policy", 0, [1.0])], 475)
    assert (headline(nobody)["ratios"][0].steps, headline(nobody)["ratios"][0].fewest) == (None, "-")


def test_steps_and_cpu_seconds_have_a_best_baseline_each_and_all_environments_count() -> None:
    slow = curve("DQN", "policy", 0, [500.0])._replace(cpu_seconds=np.array([99.0]))
    runs = [curve("JEPA", "actor", 0, [500.0]), curve("PPO", "policy", 0, [1.0, 500.0]), slow]
    found = headline([*summarise(runs, 475), *summarise([curve("SAC", "policy", 0, [-100.0], "Pendulum-v1")], -200)])
    [ratio] = found["ratios"]
    assert (ratio.steps, ratio.fewest, ratio.cpu_seconds, ratio.quickest) == (1.0, "DQN, n=1", 2.0, "PPO, n=1")
    assert (found["means"]["actor"]["known"], found["means"]["actor"]["tasks"]) == (1, 2)


def test_a_task_that_a_random_policy_solves_is_left_out(tmp_path: Path) -> None:
    easy = Study({"CartPole-v1": Task(10, 400)})
    runs = [curve("PPO", "policy", seed, [500.0]) for seed in range(2)]
    write_json(runs[0].spec.folder(tmp_path) / RESULT, {"cpu": "c", "versions": {}})
    write_json(runs[1].spec.folder(tmp_path) / RESULT, {"cpu": "c", "versions": {}})
    write_report(easy, runs, tmp_path, "x")
    assert "profile.png" not in (tmp_path / MARKDOWN).read_text()


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.order: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        named = dict(attrs)
        self.sources += [named["src"]] if "src" in named else []
        self.links += [named["href"]] if "href" in named else []
        self.headings += [named["id"]] if tag == "h2" else []
        self.order.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("study")
    for one in CURVES:
        result = {"spec": spec_as_dict(one.spec), "cpu": "Some <CPU>", "versions": {"torch": "2"}}
        write_json(one.spec.folder(root) / RESULT, result)
    write_report(STUDY, CURVES, root, "jepa-agent compare study.yaml")
    return root


def test_the_html_stands_alone_and_is_well_formed(folder: Path) -> None:
    text = (folder / HTML).read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert len(tags.sources) == 6
    assert all(source.startswith("data:image/png;base64,") for source in tags.sources)
    assert [f"#{name}" for name in tags.headings] == tags.links  # the contents list every part, in order
    assert tags.order.index("img") < tags.order.index("table")
    # What may be wider than the screen scrolls by itself.
    assert text.count('<div class="table" tabindex="0"><table>') == tags.order.count("table")
    assert "Some &lt;CPU&gt;; torch 2: " in text
    assert "2.8 times fewer steps" in text


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_a_browser_shows_it_without_a_network(folder: Path, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    shot = tmp_path / "shot.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,4000"]
    command = [CHROMIUM, *flags, f"--screenshot={shot}", "--proxy-server=127.0.0.1:9", f"file://{folder / HTML}"]
    subprocess.run(command, capture_output=True, timeout=120, check=True, env={**os.environ, "HOME": str(tmp_path)})
    picture = imread(shot)[..., :3]
    assert picture.shape[:2] == (4000, 1000)
    # Words above, figures in colour below.
    assert picture[:600].std() > 0.05
    assert (picture[1500:].max(-1) - picture[1500:].min(-1)).max() > 0.5


def test_the_markdown_holds_the_same_numbers_and_names_pictures_that_are_there(folder: Path) -> None:
    text = (folder / MARKDOWN).read_text()
    assert "**2.8 times fewer steps**" in text
    assert "| CartPole-v1, 475 | PPO | 2 | 2/2 | 100 | 400 (400..400) |" in text
    assert "| CartPole-v1, 475 | JEPA (actor) | 2 | 2/2 | 100 | \u2264 100 (100..100) |" in text
    assert "fewer steps in 2 of 2, as many in 0, more in 0, not known in 0;\nno more CPU seconds in 2." in text
    assert "`jepa-agent compare study.yaml`" in text
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(pictures) == 6
    assert all((folder / name).stat().st_size > 5_000 for name in pictures)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(row.endswith("|") for row in rows)


def test_modes_of_the_same_runs_are_compared_seed_by_seed() -> None:
    better = [curve("JEPA", "actor", seed, [7.0, 100.0 * seed]) for seed in range(3)]
    better += [curve("JEPA", "planner", seed, [8.0, 100.0 * seed + 5.0 + seed]) for seed in range(3)]
    [row] = paired(better)["rows"]
    assert row[:3] == ["CartPole-v1", "planner - actor", "3"]
    assert row[3].startswith("6.00 (5.")  # of 5, 6 and 7, whatever the seeds do to both
    assert row[4].startswith("3.50 (3.")  # the evaluation before gained 1 each


def test_runs_that_never_got_there_count_as_given_up() -> None:
    ends = ([1.0, 500.0], [500.0], [1.0, 500.0], [1.0, 1.0], [1.0, 1.0])
    [row] = steps_needed(STUDY, [curve("PPO", "policy", seed, means) for seed, means in enumerate(ends)])["rows"]
    assert row[:3] == ["CartPole-v1", "PPO", "3/5"]
    assert row[3].startswith("200 (")
    assert row[3].endswith("..inf)")


def test_only_ours_are_set_beside_the_others() -> None:
    chances = improvement({"JEPA (actor)": [np.array([3.0, 1.0])], "PPO": [np.array([2.0, -np.inf])]}, "beats")
    assert {name: (found.value, found.n) for name, found in chances.items()} == {"JEPA (actor) beats PPO": (0.75, 2)}


def test_a_report_says_what_is_missing_and_which_processors_did_what(tmp_path: Path) -> None:
    study = Study({"CartPole-v1": Task(475, 400, random=25.0, baselines=("PPO",), seeds=2)}, modes=("actor",))
    curves = [curve("PPO", "policy", 0, [500.0]), curve("JEPA", "actor", 0, [500.0]), curve("JEPA", "actor", 1, [500.0])]
    for one, processor in zip(curves, ("Quick", "Slow", "Slow"), strict=True):
        write_json(one.spec.folder(tmp_path) / RESULT, {"cpu": processor, "versions": {"torch": "2"}})
    write_report(study, curves, tmp_path, "x")
    for name in (MARKDOWN, HTML):
        text = (tmp_path / name).read_text()
        assert "Not complete: 3 of 4 runs have finished" in text
        assert "CPU seconds in CartPole-v1 were measured on different processors" in text
        assert "Slow; torch 2: JEPA in CartPole-v1, n=2" in text
        assert text.index("JEPA (actor)") < text.index("PPO</td><td>1</td>" if name == HTML else "| PPO | 1 |")


def test_the_summary_is_written_too(folder: Path) -> None:
    content = json.loads((folder / "summary.json").read_text())
    assert len(content["summaries"]) == 7
    assert content["command"] == "jepa-agent compare study.yaml"


def test_a_study_of_one_seed_gives_no_interval(tmp_path: Path) -> None:
    curves = [one for one in CURVES if one.spec.seed == 0]
    for one in curves:
        write_json(one.spec.folder(tmp_path) / RESULT, {"cpu": "c", "versions": {}})
    write_report(STUDY, curves, tmp_path, "x")
    aggregated = (tmp_path / MARKDOWN).read_text().split("Over all environments")[1].split("## Pictures")[0]
    assert aggregated.count("(-)") == 3 * 3  # three agents, three statistics


def test_a_report_says_where_settings_differ_and_where_nobody_wrote_them_down(tmp_path: Path) -> None:
    runs = [curve("JEPA", "actor", seed, [500.0]) for seed in range(3)]
    for one, settings in zip(runs, ({"settings": {"tau": 0.1}}, {"settings": {"tau": 0.2}}, {}), strict=True):
        write_json(one.spec.folder(tmp_path) / RESULT, {"cpu": "c", "versions": {}, **settings})
    write_report(Study({"CartPole-v1": Task(475, 400, random=25.0, seeds=4)}), runs, tmp_path, "x")
    text = (tmp_path / MARKDOWN).read_text()
    assert "settings differ between its runs in CartPole-v1" in text
    assert "1 of JEPA's runs are of a version that did not record" in text
    assert "Missing: JEPA in CartPole-v1, seed 3." in text
    assert "No environment has runs of both" in text
