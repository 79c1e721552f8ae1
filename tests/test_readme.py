"""What the README says is so."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jepa_agent.cli import main
from jepa_agent.cli.flags import parser_of
from jepa_agent.experiments.readme import PAGES, with_tables

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands():
    return [line for block in blocks("bash") for line in block.splitlines() if line.startswith("jepa-agent")]


def with_less_to_do(line):
    line = line.replace("-n 1000", "-n 320").replace("--eval-freq 500", "--eval-freq 160")
    return re.sub(r"(--(?:eval-)?episodes) \d+", r"\1 1", line)


def test_the_commands_run_as_written_but_for_their_budget(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    short = [line for line in commands() if not re.search(" (compare|speed|plan-bench)", line)]
    assert len(short) >= 3
    assert all(with_less_to_do(line) != line for line in short if "train" in line or "evaluate" in line)
    for line in short:
        assert main(shlex.split(with_less_to_do(line))[1:]) == 0, line
    assert (tmp_path / "runs/pendulum/best_model.zip").exists()
    assert list(tmp_path.glob("runs/pendulum/videos_1/*.mp4"))


def test_the_python_runs_as_written_but_for_its_budget(tmp_path):
    code = re.sub(r"learn\([\d_]+\)", "learn(320)", "\n".join(blocks("python")))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2  # a mean return and its deviation by each mode
    assert (tmp_path / "runs/cartpole_agent.zip").exists()


def test_the_study_it_shows_can_be_done(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    [line] = [line for line in commands() if "--dry-run" in line]
    assert main(shlex.split(line)[1:]) == 0
    assert "runs to do" in capsys.readouterr().out


def test_the_command_of_the_published_study_is_valid_and_names_its_results():
    [line] = [line for line in commands() if "classic.yaml" in line]
    options = parser_of("compare").parse(shlex.split(line)[2:])
    assert (ROOT / options.study).exists()
    assert (ROOT / options.output / "summary.json").exists()


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_are_those_of_the_committed_numbers(page):
    text = (ROOT / page).read_text()
    assert "<!-- /" in text
    assert with_tables(text, ROOT / "experiments/results") == text


def test_a_table_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="no table is named 'nothing': choose of results"):
        with_tables("<!-- nothing -->\n<!-- /nothing -->", ROOT / "experiments/results")


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_every_picture_and_file_it_names_is_there(page):
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / name).exists(), name


def test_it_is_short():
    assert len(README.splitlines()) <= 130


def test_make_demo_uses_the_real_command_line():
    recipe = (ROOT / "Makefile").read_text().split("demo: install")[1].split("\n\n")[0]
    assert recipe.count("$(BIN)/jepa-agent") == 2
