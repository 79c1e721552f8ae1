"""What the README says is so."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from jepa_agent.cli import main
from jepa_agent.cli.compare import build_parser
from jepa_agent.experiments.readme import with_tables

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands():
    return [line for block in blocks("bash") for line in block.splitlines() if line.startswith("jepa-agent")]


def test_the_commands_run_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    short = [line for line in commands() if not re.search(" (compare|speed|plan-bench)", line)]
    assert len(short) >= 4
    for line in short:
        assert main(shlex.split(line)[1:]) == 0, line
    assert (tmp_path / "runs/pendulum/best_model.zip").exists()
    assert list(tmp_path.glob("runs/pendulum/videos_1/*.mp4"))


def test_the_python_runs_as_written(tmp_path):
    code = "\n".join(blocks("python"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch.Size([1, 6, 64])" in done.stdout
    assert (tmp_path / "runs/cartpole_agent.zip").exists()


def test_the_study_it_shows_can_be_done(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    [line] = [line for line in commands() if "--dry-run" in line]
    assert main(shlex.split(line)[1:]) == 0
    assert "runs to do" in capsys.readouterr().out


def test_the_command_of_the_published_study_is_valid_and_names_its_results():
    [line] = [line for line in commands() if "classic.yaml" in line]
    options = build_parser().parse(shlex.split(line)[2:])
    assert (ROOT / options.study).exists()
    assert (ROOT / options.output / "summary.json").exists()


def test_the_tables_are_those_of_the_committed_numbers():
    assert with_tables(README, ROOT / "experiments/results") == README


def test_every_picture_and_file_it_names_is_there():
    for name in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / name).exists(), name


def test_make_demo_uses_the_real_command_line():
    recipe = (ROOT / "Makefile").read_text().split("demo: install")[1].split("\n\n")[0]
    assert recipe.count("$(BIN)/jepa-agent") == 2
