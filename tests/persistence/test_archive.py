import io
import itertools
import json
import os
import pickle
import signal
import time
import zipfile

import numpy as np
import pytest
import torch

from jepa_agent.persistence import archive
from jepa_agent.persistence.archive import CheckpointError

TENSORS = {"tensors": {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7, dtype=torch.int64)}}


def write(path, manifest=None, kind="agent"):
    archive.write(path, kind, manifest or {}, TENSORS)


def refused(path, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        archive.read(path, "agent")
    assert os.path.basename(path) in str(caught.value)


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "deep" / "agent", {"x": [1, None, "y"]})
    manifest, members = archive.read(tmp_path / "deep" / "agent", "agent")
    assert manifest["x"] == [1, None, "y"]
    assert all(torch.equal(members["tensors"][name], tensor) for name, tensor in TENSORS["tensors"].items())
    assert sorted(os.listdir(tmp_path / "deep")) == ["agent.zip"]


def test_file_objects_do_as_well_as_paths():
    file = io.BytesIO()
    write(file)
    assert torch.equal(archive.read(file, "agent").members["tensors"]["a"], TENSORS["tensors"]["a"])


def test_the_manifest_names_size_and_checksum_of_every_other_member(tmp_path):
    write(tmp_path / "agent.zip")
    with zipfile.ZipFile(tmp_path / "agent.zip") as archive:
        members = json.loads(archive.read("manifest.json"))["members"]
        assert set(members) == set(archive.namelist()) - {"manifest.json"}
        assert all(members[name]["size"] == archive.getinfo(name).file_size for name in members)
        assert all(len(member["sha256"]) == 64 for member in members.values())


def test_a_checkpoint_is_as_readable_as_any_new_file(tmp_path):
    write(tmp_path / "agent.zip")
    (tmp_path / "plain").touch()
    assert (tmp_path / "agent.zip").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_write_leaves_the_previous_file_whole_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "agent.zip"
    write(path, {"x": 1})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write(path, {"x": 2})
    assert archive.read(path, "agent").manifest["x"] == 1
    assert os.listdir(tmp_path) == ["agent.zip"]


def test_file_and_folder_are_on_disk_before_a_write_returns(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda f: (order.append("folder" if os.path.isdir(f"/dev/fd/{f}") else "file"), fsync(f))
    )
    monkeypatch.setattr(os, "replace", lambda *args: (order.append("rename"), replace(*args)))
    write(tmp_path / "agent.zip")
    assert order == ["file", "rename", "folder"]


def save_for_ever(path, told):
    """A process of its own that saves and tells what it has saved, until it is killed."""
    pid = os.fork()
    if pid == 0:
        try:
            for k in itertools.count(1):
                archive.write(path, "agent", {"k": k}, {"tensors": {"a": torch.full((100_000,), float(k))}})
                os.write(told, f"{k}\n".encode())
        finally:
            os._exit(1)
    return pid


def test_kill_9_at_any_moment_of_a_save_leaves_the_previous_file_whole(tmp_path):
    path = tmp_path / "agent.zip"
    rng = np.random.default_rng(0)
    for _ in range(20):
        reading, told = os.pipe()
        pid = save_for_ever(path, told)
        os.close(told)
        with os.fdopen(reading) as lines:
            first = int(lines.readline())
            time.sleep(rng.uniform(0.0, 0.02))
            os.kill(pid, signal.SIGKILL)
            last = max([first, *(int(line) for line in lines if line.endswith("\n"))])
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        manifest, members = archive.read(path, "agent")
        assert (members["tensors"]["a"] == manifest["k"]).all()
        assert manifest["k"] >= last
    write(path)
    assert os.listdir(tmp_path) == ["agent.zip"], "what killed writers left must go with the next save"


def test_every_flipped_bit_is_seen(tmp_path):
    path = tmp_path / "agent.zip"
    write(path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        refused(path, r"agent\.zip")


def test_every_truncation_is_seen(tmp_path):
    path = tmp_path / "agent.zip"
    write(path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 23), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(path, r"agent\.zip")
    path.write_bytes(whole + b"more")
    refused(path, r"agent\.zip")


class Payload:
    """Writes a file when unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def archive_of(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, blob in members:
            archive.writestr(name, blob)


def test_a_payload_is_not_run(tmp_path):
    path, marker = tmp_path / "agent.zip", tmp_path / "marker"
    poison = pickle.dumps(Payload(marker))
    pickle.loads(poison)
    assert marker.exists(), "the payload must be able to do harm"
    marker.unlink()
    manifest = json.dumps({"format": archive.FORMATS["agent"], "kind": "agent", "members": {}})
    for members in (
        [("data", poison), ("policy.pth", poison), ("pytorch_variables.pth", poison)],
        [("manifest.json", poison), ("tensors.safetensors", poison)],
        [("manifest.json", manifest), ("tensors.safetensors", poison)],
        [("manifest.json", manifest), ("tensors.safetensors", b""), ("archive/data.pkl", poison)],
    ):
        archive_of(path, members)
        refused(path, r"agent\.zip")
    path.write_bytes(poison)
    refused(path, r"agent\.zip")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("data", "{}"), ("policy.pth", "x"), ("_stable_baselines3_version", "2")], "of Stable-Baselines3"),
        ([("data.pkl", "x")], r"data\.pkl"),
        ([("manifest.json", "{}"), ("../../escape.json", "x")], r"\.\./\.\./escape\.json"),
        ([("manifest.json", "{}"), ("/etc/passwd", "x")], "/etc/passwd"),
        ([("manifest.json", "{}"), ("manifest.json", "{}")], "twice"),
        ([("manifest.json", '{"format": 99, "kind": "agent"}')], "'format': expected 6, found 99.*upgrade"),
        ([("manifest.json", '{"format": 3, "kind": "replay"}')], "'kind': expected 'agent', found 'replay'"),
        ([("manifest.json", "[" * 100_000)], "not a readable"),
        ([("manifest.json", "[]")], "not a readable"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_foreign_files_are_refused(tmp_path, members, says):
    archive_of(tmp_path / "agent.zip", members)
    refused(tmp_path / "agent.zip", says)


def test_a_zip_bomb_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "agent.zip"
    archive_of(path, [("manifest.json", "{}"), ("tensors.safetensors", bytes(10_000_000))], zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("read before the sizes were checked"))
    refused(path, "compressed")
    archive_of(path, [("manifest.json", "{}"), ("tensors.safetensors", b"1234")])
    # The central directory promises 3 GB where there are 4 bytes.
    data = path.read_bytes()
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    huge = (3_000_000_000).to_bytes(4, "little")
    path.write_bytes(data[: entry + 20] + huge + huge + data[entry + 28 :])
    refused(path, "declare 3000000002 bytes")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        archive.read(tmp_path / "nothing", "agent")
