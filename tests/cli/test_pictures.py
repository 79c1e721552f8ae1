"""A picture that cannot be drawn is refused before anything is done for it."""

import shutil

import numpy as np
import pytest

from jepa_agent.cli import main, trained
from jepa_agent.cli.common import UsageError
from jepa_agent.cli.pictures import picture_path


@pytest.mark.parametrize("verb", ["explain", "plot"])
def test_a_suffix_of_no_format_is_refused_before_any_work(tmp_path, capsys, monkeypatch, verb):
    monkeypatch.setattr(trained, "load", lambda options: pytest.fail("the agent was loaded first"))
    assert main([verb, str(tmp_path), "--output", str(tmp_path / "curve.nosuchformat")]) == 2
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert "curve.nosuchformat" in told
    assert "png" in told
    assert "svg" in told


def test_a_picture_without_a_suffix_is_a_png_and_is_called_so(tmp_path, capsys):
    np.savez(tmp_path / "evaluations.npz", timesteps=[1, 2], results=np.ones((2, 1)))
    assert main(["plot", str(tmp_path), "--output", str(tmp_path / "curves")]) == 0
    assert (tmp_path / "curves.png").is_file()
    assert "curves.png" in capsys.readouterr().out


def test_a_file_that_was_there_is_said_to_be_replaced(small, tmp_path, capsys, monkeypatch):
    np.savez(tmp_path / "evaluations.npz", timesteps=[1, 2], results=np.ones((2, 1)))
    small("CartPole-v1", mode="actor").save(tmp_path / "agent.zip")
    monkeypatch.setattr("jepa_agent.cli.speed.measure", lambda tell: {})
    monkeypatch.setattr("jepa_agent.cli.speed.show", lambda result: None)
    calls = {
        "curves.png": ["plot", str(tmp_path)],
        "explained.png": ["explain", str(tmp_path / "agent.zip"), "--env", "CartPole-v1"],
        "speed.json": ["speed"],
    }
    for name, call in calls.items():
        for said in ("saved to", "replaced"):
            assert main([*call, "--output", str(tmp_path / name)]) == 0
            assert capsys.readouterr().out.splitlines()[-1].startswith(f"{said} {tmp_path / name}")


def test_a_picture_goes_where_a_file_can_be(tmp_path):
    (tmp_path / "curves.svg").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        picture_path(str(tmp_path / "curves.svg"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        picture_path(str(tmp_path / "file" / "curves.png"))


@pytest.mark.skipif(shutil.which("xelatex") is not None, reason="here it can be drawn")
def test_a_format_that_needs_what_is_not_installed_is_told_in_a_line(tmp_path, capsys):
    np.savez(tmp_path / "evaluations.npz", timesteps=[1, 2], results=np.ones((2, 1)))
    assert main(["plot", str(tmp_path), "--output", str(tmp_path / "curves.pgf")]) == 2
    assert "xelatex" in capsys.readouterr().err
