"""An agent that saw wrapped environments is not shown raw ones."""

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from jepa_agent.cli import main
from jepa_agent.model.building import build_features


def refused(capsys, *words):
    assert main(list(words)) == 2
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    return told


@pytest.mark.parametrize("verb", ["evaluate", "enjoy", "explain", "plan-bench"])
def test_an_agent_trained_under_vec_normalize_is_refused_not_shown_raw_numbers(small, tmp_path, capsys, verb):
    small(VecNormalize(make_vec_env("CartPole-v1"))).save(tmp_path / "agent.zip")
    assert "VecNormalize" in refused(capsys, verb, str(tmp_path / "agent.zip"), "--env", "CartPole-v1")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("vecnormalize.pkl", "", "vecnormalize.pkl"),
        ("config.yml", "normalize: true", "normalize"),
        ("config.yml", "!!python/object/apply:collections.OrderedDict\n- - - frame_stack\n    - 4", "frame_stack"),
        ("config.yml", "env_wrapper: gymnasium.wrappers.FlattenObservation", "env_wrapper"),
    ],
)
def test_a_folder_of_the_zoo_that_tells_of_wrappers_is_refused(small, tmp_path, capsys, file, content, says):
    small("CartPole-v1").save(tmp_path / "best_model.zip")
    (tmp_path / "CartPole-v1").mkdir()
    (tmp_path / "CartPole-v1" / file).write_text(content)
    assert says in refused(capsys, "evaluate", str(tmp_path), "--env", "CartPole-v1")


@pytest.mark.parametrize(
    ("shape", "dtype", "high"), [((4, 64, 64, 3), np.uint8, 255), ((84, 84), np.uint8, 255), ((64, 64, 3), np.float32, 1)]
)
def test_pictures_that_would_be_flattened_are_told_of_with_a_way_out(shape, dtype, high):
    space = spaces.Box(0, high, shape, dtype)
    for observed in (space, spaces.Dict({"picture": space})):
        with pytest.warns(UserWarning, match="look like images, but are flattened.*: "):
            build_features(observed, None, None, True)


def test_tables_and_true_pictures_are_taken_without_a_word(recwarn):
    for space in (spaces.Box(-1, 1, (3, 4)), spaces.Box(-1, 1, (100,)), spaces.Box(0, 255, (4, 84, 84), np.uint8)):
        build_features(space, None, None, True)
    assert not recwarn.list
