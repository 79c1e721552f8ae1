"""Logs that cannot be written, or were damaged, stop neither training nor going on."""

import errno
import json

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor, ResultsWriter
from tensorboard.summary.writer.record_writer import RecordWriter

from jepa_agent import JEPA
from jepa_agent.callbacks import ResumableEvalCallback
from jepa_agent.persistence.logs import events_told_once, make_resumable, mend_monitor_file, with_resumable_rows


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_rows_that_cannot_be_written_are_told_once_and_dropped(tmp_path, monkeypatch):
    env = with_resumable_rows(Monitor(gym.make("CartPole-v1"), str(tmp_path / "0")))
    monkeypatch.setattr(ResultsWriter, "write_row", full_disk)

    def play():
        for _ in range(3):
            env.reset(seed=0)
            while not any(env.step(0)[2:4]):
                pass

    with pytest.warns(UserWarning, match=r"0\.monitor\.csv is no longer written: .*No space left.*training goes on") as told:
        play()
    env.close()
    assert len(told) == 1
    assert len(env.episode_returns) == 3


def test_a_log_whose_file_cannot_be_written_is_told_once_and_the_others_go_on(small, tmp_path, monkeypatch, capsys):
    logger = make_resumable(configure(str(tmp_path), ["tensorboard", "csv", "json"]))
    monkeypatch.setattr(RecordWriter, "write", full_disk)
    monkeypatch.setattr(logger.output_formats[1], "write", full_disk)
    model = small("CartPole-v1")
    model.set_logger(logger)
    with events_told_once(), pytest.warns(UserWarning, match=r"the (TensorBoard|CSV) log is no longer written") as told:
        model.learn(120, log_interval=1)
    assert sorted(str(one.message).split()[1] for one in told) == ["CSV", "TensorBoard"]
    assert "Traceback" not in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "progress.json").read_text().splitlines()]
    assert rows[-1]["time/total_timesteps"] > 60


def test_the_logger_of_a_library_user_lasts_as_well(small, tmp_path):
    model = small("CartPole-v1", tensorboard_log=str(tmp_path)).learn(30)
    model.logger.output_formats[0].write = full_disk
    with pytest.warns(UserWarning, match="TensorBoard log is no longer written"):
        model.logger.dump(30)
    model.learn(60, reset_num_timesteps=False)
    assert model.num_timesteps == 90


HEAD = '#{"t_start": 1.0, "env_id": "CartPole-v1"}\nr,l,t\n'


@pytest.mark.parametrize(
    ("found", "rows"),
    [
        (HEAD + "1.0,10,0.5\n2.0,1", [1.0]),
        (HEAD + "1.0,10,0.5\n", [1.0]),
        (HEAD, []),
        (HEAD[:-2], []),
        ("", []),
        (None, []),
        ("\x00" * 40, []),
    ],
    ids=["half a row", "whole", "a head", "half a head", "empty", "missing", "noise"],
)
def test_what_is_appended_to_a_damaged_monitor_file_can_be_read(tmp_path, found, rows):
    file = tmp_path / "0.monitor.csv"
    if found is not None:
        file.write_text(found)
    mend_monitor_file(file, "CartPole-v1")
    with file.open("a") as log:
        log.write("9.0,9,9.0\n")
    head, names, *lines = file.read_text().splitlines()
    assert json.loads(head[1:])["env_id"] == "CartPole-v1"
    assert names == "r,l,t"
    assert [float(line.partition(",")[0]) for line in lines] == [*rows, 9.0]


def evaluation(folder, **changed):
    content = {"timesteps": [10, 20], "results": [[1.0], [2.0]], "ep_lengths": [[1], [2]], **changed}
    np.savez(folder / "evaluations.npz", **{name: column for name, column in content.items() if column is not None})
    return ResumableEvalCallback(gym.make("CartPole-v1"), 1, str(folder), 10, 1)


@pytest.mark.parametrize(
    "changed",
    [{"results": None}, {"ep_lengths": None}, {"timesteps": 3}, {"results": [[1.0]]}, {"results": [["a"], ["b"]]}],
    ids=["no results", "no lengths", "no column", "too short", "words"],
)
def test_earlier_evaluations_that_make_no_sense_are_told_and_left(small, tmp_path, changed):
    model = small("CartPole-v1").learn(30)
    callback = evaluation(tmp_path, **changed)
    with pytest.warns(UserWarning, match="earlier evaluations are lost: .*evaluations.npz"):
        model.learn(10, callback=callback, reset_num_timesteps=False)
    assert callback.evaluations_timesteps == [40]


def test_a_best_agent_that_could_not_be_written_is_not_held_for_the_best_there_is(small, tmp_path, monkeypatch):
    model, save = small("CartPole-v1"), JEPA.save
    callback = ResumableEvalCallback(gym.make("CartPole-v1"), 1, str(tmp_path), 10, 1)
    monkeypatch.setattr(JEPA, "save", full_disk)
    with pytest.warns(UserWarning, match=r"best_model\.zip is no longer written"):
        model.learn(10, callback=callback)
    assert callback.best_mean_reward == -np.inf
    monkeypatch.setattr(JEPA, "save", save)
    model.learn(10, callback=callback, reset_num_timesteps=False)
    assert (tmp_path / "best_model.zip").is_file()
    assert callback.best_mean_reward == callback.last_mean_reward


def test_an_error_of_the_environment_in_an_evaluation_is_not_held_for_a_full_disk(small, tmp_path):
    env = gym.make("CartPole-v1")
    env.unwrapped.step = full_disk
    with pytest.raises(OSError, match="No space left"):
        small("CartPole-v1").learn(20, callback=ResumableEvalCallback(env, 1, str(tmp_path), 10, 1))
