"""Saves that fail, checkpoints that are damaged, and files of other versions lose nothing."""

import errno
import signal
import time

import pytest
import torch

from jepa_agent import JEPA, interruption
from jepa_agent.callbacks import PeriodicCheckpoint
from jepa_agent.persistence import archive, checkpoint_folder
from jepa_agent.persistence.archive import Checkpoint, CheckpointError, FormatError

CART = "CartPole-v1"


def steps(folder):
    return [entry.num_timesteps for entry in checkpoint_folder.entries(folder)]


@pytest.fixture
def saved(small, tmp_path):
    """Checkpoints at 10, 20 and 30 steps."""
    model = small(CART, learning_starts=1000)
    for _ in range(3):
        model.learn(10, reset_num_timesteps=False)
        model.save_checkpoint(tmp_path, keep_last=3)
    return tmp_path


def test_a_save_that_fails_leaves_the_folder_as_it_was(small, saved, monkeypatch):
    model = JEPA.resume(saved, CART).learn(10, reset_num_timesteps=False)
    before = {file.name: file.stat().st_mtime_ns for file in saved.iterdir()}
    write = archive.write

    def full_for(kind):
        def fails(path, this, *args):
            if this == kind:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(path, this, *args)

        return fails

    for kind in ("replay", "agent", "index"):
        monkeypatch.setattr(archive, "write", full_for(kind))
        with pytest.raises(OSError, match="No space"):
            model.save_checkpoint(saved, keep_last=3)
        assert {file.name: file.stat().st_mtime_ns for file in saved.iterdir()} == before
    monkeypatch.setattr(archive, "write", write)
    model.save_checkpoint(saved, keep_last=3)
    assert steps(saved) == [20, 30, 40]
    assert JEPA.resume(saved, CART).replay_buffer.added == 40


@pytest.mark.parametrize("error", [OSError("full"), MemoryError(), ValueError("odd"), RuntimeError("no")])
def test_a_periodic_save_may_fail_in_any_way(small, tmp_path, monkeypatch, error):
    def fails(*args):
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(JEPA, "save_checkpoint", fails)
    with pytest.warns(UserWarning, match="no checkpoint at step 10.*training goes on"):
        small(CART).learn(25, callback=PeriodicCheckpoint(tmp_path, 10))
    assert steps(tmp_path) == [20]


def test_a_damaged_checkpoint_that_was_gone_back_behind_is_no_part_of_the_run_any_more(saved):
    newest = checkpoint_folder.entries(saved)[-1]
    (saved / newest.agent).write_bytes(b"")
    with pytest.warns(UserWarning, match=rf"{newest.agent}.*going on from the checkpoint of step 20"):
        model = JEPA.resume(saved, CART)
    model.learn(20, reset_num_timesteps=False)
    model.save_checkpoint(saved, keep_last=3)
    assert steps(saved) == [10, 20, 40]
    assert not (saved / newest.agent).exists()


def test_a_checkpoint_of_a_newer_version_is_not_gone_back_behind(saved):
    newest = checkpoint_folder.entries(saved)[-1]
    content = archive.read(saved / newest.agent, "agent")
    later = {"format": 99, "written_by": "9.9.9"}
    archive.write(saved / newest.agent, "agent", {**content.manifest, **later}, content.members)
    with pytest.raises(FormatError, match=r"written by jepa_agent 9\.9\.9.*upgrade"):
        JEPA.resume(saved, CART)
    archive.write(saved / "index.zip", "index", {**later, "checkpoints": []}, {})
    with pytest.raises(FormatError, match=r"index\.zip.*written by jepa_agent 9\.9\.9.*upgrade"):
        checkpoint_folder.entries(saved)


def test_without_its_index_a_folder_is_read_by_the_agents_of_the_run_that_saved_last(small, saved, tmp_path):
    (saved / "index.zip").unlink()
    other = small(CART, learning_starts=1000).learn(5)
    other.save_checkpoint(tmp_path / "other")
    for file in (tmp_path / "other").glob("*_*"):
        (saved / file.name).write_bytes(file.read_bytes())
    with pytest.warns(UserWarning, match="going by what the checkpoints beside it say"):
        assert steps(saved) == [5]
    for file in (tmp_path / "other").glob("*_*"):
        (saved / file.name).unlink()
    with pytest.warns(UserWarning, match="going by what the checkpoints beside it say"):
        assert JEPA.resume(saved, CART).replay_buffer.added == 30


def test_when_no_checkpoint_is_whole_the_newest_is_named(saved):
    for file in saved.glob("agent_*"):
        file.write_bytes(b"noise")
    with pytest.raises(CheckpointError, match=checkpoint_folder.entries(saved)[-1].agent):
        JEPA.resume(saved, CART)


@pytest.mark.parametrize("kind", ["agent", "replay", "index"])
def test_a_format_is_migrated_step_by_step_by_the_table_of_its_kind(tmp_path, monkeypatch, kind):
    ours = archive.FORMATS[kind]

    def longer(content):
        return Checkpoint({**content.manifest, "path": content.manifest["path"] + "!"}, content.members)

    archive.write(tmp_path / "old.zip", kind, {"path": ""}, {"tensors": {"a": torch.zeros(1)}})
    monkeypatch.setitem(archive.FORMATS, kind, ours + 2)
    monkeypatch.setitem(archive._MIGRATIONS, (kind, ours + 1), longer)
    with pytest.raises(FormatError, match=rf"expected {ours + 2}, found {ours}, written by jepa_agent 0\.\d.*load it with"):
        archive.read(tmp_path / "old.zip", kind)
    monkeypatch.setitem(archive._MIGRATIONS, (kind, ours), longer)
    assert archive.read(tmp_path / "old.zip", kind).manifest["path"] == "!!"


# ---------------------------------------------------------------------- signals


def test_signals_do_not_disturb_a_save(small, tmp_path, monkeypatch):
    model, write = small(CART, learning_starts=1000).learn(10), archive.write

    def signalled(*args):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.05)
        write(*args)

    monkeypatch.setattr(interruption, "PATIENCE", 0.01)
    monkeypatch.setattr(archive, "write", signalled)
    with interruption.noting_signals():
        model.save_checkpoint(tmp_path)
        with pytest.raises(interruption.Interrupted, match="SIGINT"):
            interruption.poll()
    assert steps(tmp_path) == [10]


def test_what_swallows_an_interruption_is_interrupted_again(monkeypatch):
    monkeypatch.setattr(interruption, "PATIENCE", 0.05)

    def swallow():
        signal.raise_signal(signal.SIGTERM)
        try:
            time.sleep(10)
        except BaseException:
            time.sleep(10)

    with interruption.noting_signals(), pytest.raises(interruption.Interrupted):
        swallow()


def test_the_alarm_of_an_environment_is_its_own_until_a_signal_comes():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    try:
        with interruption.noting_signals():
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            time.sleep(0.05)
        assert rung == [1]
        with interruption.noting_signals():
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGALRM)
        assert rung == [1, 1]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_row_that_an_interruption_left_half_stored_is_not_there(small, tmp_path):
    model = small(CART, learning_starts=1000).learn(10)
    add = type(model.replay_buffer).__mro__[1].add

    def half(*args):
        add(model.replay_buffer, *args)  # SB3's, which counts its own position on
        raise interruption.Interrupted(signal.SIGINT)

    model.replay_buffer.add = half
    with pytest.raises(interruption.Interrupted):
        model.learn(10, reset_num_timesteps=False)
    del model.replay_buffer.add
    assert (model.num_timesteps, model.replay_buffer.added, model.replay_buffer.pos) == (10, 10, 10)
    model.save_checkpoint(tmp_path)
    model.learn(10, reset_num_timesteps=False)
    assert JEPA.resume(tmp_path, CART).replay_buffer.size() == 10
