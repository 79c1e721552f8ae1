import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from gymnasium import spaces

from jepa_agent import checkpoint
from jepa_agent.checkpoint import CheckpointError, decode_space, encode_space

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7, dtype=torch.int64)}


def test_what_is_written_is_read(tmp_path):
    checkpoint.write(tmp_path / "deep" / "agent", {"x": [1, None, "y"]}, TENSORS)
    manifest, tensors = checkpoint.read(tmp_path / "deep" / "agent")
    assert manifest["x"] == [1, None, "y"]
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert sorted(os.listdir(tmp_path / "deep")) == ["agent.zip"]


def test_a_checkpoint_is_as_readable_as_any_new_file(tmp_path):
    checkpoint.write(tmp_path / "agent.zip", {}, TENSORS)
    (tmp_path / "plain").touch()
    assert (tmp_path / "agent.zip").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_write_leaves_the_previous_file_whole_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "agent.zip"
    checkpoint.write(path, {"x": 1}, TENSORS)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        checkpoint.write(path, {"x": 2}, TENSORS)
    assert checkpoint.read(path).manifest["x"] == 1
    assert os.listdir(tmp_path) == ["agent.zip"]


def test_damage_is_told(tmp_path):
    path = tmp_path / "agent.zip"
    checkpoint.write(path, {}, TENSORS)
    whole = path.read_bytes()
    for damaged in (whole[:-30], whole[:200], b"", b"not a zip", pickle.dumps({"a": 1})):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"agent\.zip"):
            checkpoint.read(path)
    index = whole.index(TENSORS["a"].numpy().tobytes())
    path.write_bytes(whole[:index] + b"\x01" + whole[index + 1 :])
    with pytest.raises(CheckpointError):
        checkpoint.read(path)


def test_foreign_archives_and_other_formats_are_refused(tmp_path):
    path = tmp_path / "agent.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", "x")
    with pytest.raises(CheckpointError, match=r"data\.pkl"):
        checkpoint.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps({"format": 99}))
        archive.writestr("tensors.safetensors", "")
    with pytest.raises(CheckpointError, match="format 99"):
        checkpoint.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        checkpoint.read(tmp_path / "nothing")


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(np.array([-np.inf, 0.0], np.float32), np.array([1.5, np.inf], np.float32)),
        spaces.Box(0, 255, (2, 2), np.uint8),
        spaces.Discrete(3, start=-1),
        spaces.MultiDiscrete([2, 3], start=[1, -1]),
        spaces.MultiBinary(4),
    ],
)
def test_spaces_survive(space):
    assert decode_space(json.loads(json.dumps(encode_space(space)))) == space


def test_nothing_but_torchs_own_classes_is_looked_up_by_name():
    assert checkpoint.decode(checkpoint.encode(torch.nn.ReLU, ()), (), "x") is torch.nn.ReLU
    for name in ("os.system", "torch.nn.os", "torch.nn.functional", "builtins.eval"):
        with pytest.raises(CheckpointError, match="not a module"):
            checkpoint.decode({"torch": name}, (), "x")
