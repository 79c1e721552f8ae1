"""Environments of every kind of space go through the command line as CartPole does."""

import pytest

from jepa_agent import JEPA
from jepa_agent.cli import main

TINY = ["--model.latent_dim", "8", "--model.net_arch", "[16]", "--model.ensemble_size", "2", "--agent.learning_starts", "20"]
SHORT = ["-n", "40", "--eval-freq", "20", "--eval-episodes", "1", "--agent.batch_size", "16", "--agent.buffer_size", "500"]


@pytest.mark.parametrize("name", ["BrightOrDark", "PictureAndNumber", "ChoicesTogether", "BitsDiffer"])
def test_pictures_dicts_and_several_choices_are_trained_on_and_evaluated(tmp_path, name):
    folder = tmp_path / "run"
    assert main(["train", "--env", f"JEPA/{name}-v0", "--output", str(folder), *SHORT, *TINY]) == 0
    assert JEPA.load(folder / "last_model.zip").num_timesteps == 40
    assert main(["evaluate", str(folder), "--episodes", "1"]) == 0


def test_pictures_that_no_memory_can_hold_are_refused_before_training(tmp_path, capsys):
    asked = ["--agent.buffer_size", "1000000000000", "--output", str(tmp_path / "run")]
    assert main(["train", "--env", "JEPA/BrightOrDark-v0", *asked]) == 2
    assert "lower --agent.buffer_size" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
