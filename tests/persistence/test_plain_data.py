"""Files of others are plain data: they call nothing, import nothing, and are no larger than they look."""

import io
import multiprocessing
import os
import tracemalloc
import zipfile

import numpy as np
import pytest
import yaml

from jepa_agent import JEPA
from jepa_agent.cli import main
from jepa_agent.experiments.folders import FolderError, FolderInUseError, locked
from jepa_agent.persistence import agent_file, archive
from jepa_agent.persistence.plain_data import check_import, read_npz
from jepa_agent.persistence.yaml_file import read_yaml

STUDY = "tasks:\n  CartPole-v1: {threshold: 475, n_timesteps: 100, seeds: 1%s}\n%s"
CALL = "{class_path: os.mkdir, init_args: {path: called}}"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside.py").write_text("open('imported', 'w').close()\n")
    return tmp_path


def refused(capsys, *words):
    assert main(list(words)) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    return told[0]


@pytest.mark.parametrize(
    "text",
    [
        STUDY % ("", f"overrides: {{JEPA: {CALL}}}"),
        STUDY % ("", f"overrides: {{JEPA: {{policy_kwargs: {{deep: [{CALL}]}}}}}}"),
        STUDY % (f", env_kwargs: {CALL}", ""),
        STUDY % (f", env_kwargs: {{render_mode: {CALL}}}", ""),
    ],
)
def test_a_study_calls_nothing(here, capsys, text):
    (here / "study.yaml").write_text(text)
    assert "class_path" in refused(capsys, "compare", "study.yaml", "--dry-run")
    assert not (here / "called").exists()


@pytest.mark.parametrize("text", [f"env_kwargs: {CALL}", f"env_kwargs: {{a: {CALL}}}", f"agent: {CALL}"])
def test_a_config_file_calls_nothing(here, capsys, text):
    (here / "my.yml").write_text(text)
    assert "class_path" in refused(capsys, "train", "--env", "CartPole-v1", "-n", "10", "--config", "my.yml")
    assert not (here / "called").exists()


def test_settings_on_the_command_line_call_nothing_either(here, capsys):
    told = refused(capsys, "train", "--env", "CartPole-v1", "-n", "10", "--env-kwargs.a", '{"class_path": "os.mkdir"}')
    assert "class_path" in told


def test_no_file_names_what_is_imported(here, capsys):
    (here / "study.yaml").write_text(STUDY.replace("CartPole-v1", "beside:My-v0") % ("", ""))
    assert "--env beside:My-v0" in refused(capsys, "compare", "study.yaml", "--dry-run")
    (here / "study.yaml").write_text(STUDY % (", baselines: ['beside:Mine']", ""))
    assert "--baselines beside:Mine" in refused(capsys, "compare", "study.yaml", "--dry-run")
    (here / "my.yml").write_text("env: beside:My-v0\n")
    assert "--env beside:My-v0" in refused(capsys, "train", "-n", "10", "--config", "my.yml")
    (here / "run").mkdir()
    (here / "run/config.yml").write_text("env: beside:My-v0\n")
    (here / "run/last_model.zip").write_bytes(b"")
    for verb in ("evaluate", "explain", "enjoy", "plan-bench"):
        assert "--env beside:My-v0" in refused(capsys, verb, "run")
    assert "--env beside:My-v0" in refused(capsys, "train", "--resume", "run")
    assert not (here / "imported").exists()


def test_a_module_of_an_installed_package_may_be_named_unless_the_working_directory_hides_it(here):
    check_import("jepa_agent.envs:JEPA/Discounting-v0", "a file", "--env")
    check_import("CartPole-v1", "a file", "--env")
    check_import("no_such_module:My-v0", "a file", "--env")  # nothing is there to be run
    for name in ("beside:My-v0", "os:My-v0"):
        with pytest.raises(ValueError, match=f"a file names '{name}'.*--env {name}"):
            check_import(name, "a file", "--env")


def bomb(levels=9):
    return "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, levels))


@pytest.mark.parametrize("text", [bomb(), "[" * 100_000, "a: !!python/object/apply:os.mkdir [called]", "x" * (2**20 + 1)])
def test_yaml_that_is_more_than_it_seems_is_refused_by_every_reader(here, capsys, text):
    (here / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"a\.yaml"):
        read_yaml(here / "a.yaml")
    (here / "config.yml").write_text(text)
    (here / "last_model.zip").write_bytes(b"")
    for words in (
        ["compare", "a.yaml", "--dry-run"],
        ["train", "--config", "a.yaml"],
        ["evaluate", "."],
        ["train", "--resume", "."],
    ):
        told = refused(capsys, *words)
        assert "a.yaml" in told or "config.yml" in told
    assert not (here / "called").exists()


def test_the_number_of_runs_is_bounded(here, capsys):
    (here / "study.yaml").write_text((STUDY % ("", "")).replace("seeds: 1", "seeds: 1000000000"))
    assert "seeds must lie between 1 and 1000" in refused(capsys, "compare", "study.yaml", "--dry-run")


def npz(path, shape, content=b"", dtype="<f8"):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("results.npy", header.getvalue() + content)
    return path


def test_an_array_is_read_only_if_it_has_the_size_its_header_promises(tmp_path):
    good = npz(tmp_path / "good.npz", (2,), np.array([1.0, 2.0]).tobytes())
    assert read_npz(good)["results"].tolist() == [1.0, 2.0]
    for name, shape, dtype in (("huge", (10**12,), "<f8"), ("short", (3,), "<f8"), ("objects", (2,), "|O")):
        with pytest.raises(ValueError, match=f"{name}.npz cannot be read"):
            read_npz(npz(tmp_path / f"{name}.npz", shape, np.array([1.0, 2.0]).tobytes(), dtype))
    for name, content in (("empty", b""), ("noise", b"PK noise")):
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.npz cannot be read"):
            read_npz(tmp_path / f"{name}.npz")


# ---------------------------------------------------------------------- folders


def _enter(folder, go, entered, leave):
    go.wait()
    try:
        with locked(folder):
            entered.put("in")
            leave.wait()
    except FolderInUseError as error:
        entered.put(str(error))


def test_of_many_processes_one_works_in_a_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    go, leave, entered = context.Event(), context.Event(), context.Queue()
    (tmp_path / ".running").write_text("noise \0")
    processes = [context.Process(target=_enter, args=(tmp_path, go, entered, leave)) for _ in range(8)]
    for process in processes:
        process.start()
    go.set()
    told = [entered.get(timeout=30) for _ in processes]
    leave.set()
    for process in processes:
        process.join()
    assert told.count("in") == 1
    assert all("is in use by process" in text and "since" in text for text in told if text != "in")
    with locked(tmp_path):  # what they left does not count
        pass
    assert not (tmp_path / ".running").exists()


def test_a_folder_in_which_a_run_has_just_begun_is_told_to_be_in_use_by_it(tmp_path, capsys):
    with locked(tmp_path / "run"):  # no config.yml yet
        told = refused(capsys, "train", "--env", "CartPole-v1", "--output", str(tmp_path / "run"))
        assert f"is in use by process {os.getpid()} on " in told


def test_a_killed_process_leaves_no_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    go, leave, entered = context.Event(), context.Event(), context.Queue()
    go.set()
    process = context.Process(target=_enter, args=(tmp_path, go, entered, leave))
    process.start()
    entered.get(timeout=30)
    process.kill()
    process.join()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("name", ["0.monitor.csv", "error.txt", "checkpoints/index.zip", "evaluations.npz"])
def test_nothing_is_written_through_a_link(here, capsys, name):
    (here / "victim").write_text("mine")
    (here / "run/checkpoints").mkdir(parents=True)
    (here / "run" / name).symlink_to(here / "victim")
    with pytest.raises(FolderError, match="is a symbolic link"), locked(here / "run"):
        pass
    (here / "run/config.yml").write_text(yaml.safe_dump({"env": "CartPole-v1"}))
    refused(capsys, "train", "--resume", "run", "-n", "10")
    assert (here / "victim").read_text() == "mine"


# ---------------------------------------------------------------------- checkpoints


WIDE = {"kind": "Box", "low": 0, "high": 1, "shape": [2**24], "dtype": "float32"}  # alone it is no larger than it may be


def asking_for(model, path, **fields):
    manifest, tensors = agent_file.contents(model)
    manifest["arguments"].update(fields.pop("arguments", {}))
    archive.write(path, "agent", {**manifest, **fields}, {"tensors": tensors})
    return path


@pytest.mark.parametrize(
    "fields",
    [
        {"arguments": {"policy_kwargs": {"dict": {"net_arch": [10**6, 10**6]}}}},
        {"arguments": {"policy_kwargs": {"dict": {"head_arch": [10**9]}}}},
        {"arguments": {"policy_kwargs": {"dict": {"latent_dim": 60000, "net_arch": [60000]}}}},
        {"arguments": {"policy_kwargs": {"dict": {"ensemble_size": 1000, "net_arch": [10**5]}}}},
        {"arguments": {"policy_kwargs": {"dict": {"net_arch": [16] * 20_000}}}},
        {"arguments": {"policy_kwargs": {"dict": {"head_arch": [16] * 20_000}}}},
        {"arguments": {"buffer_size": 10**11}},
        {"observation_space": {"kind": "Dict", "spaces": [[f"k{i}", WIDE] for i in range(40)]}},
        {"observation_space": {"kind": "Tuple", "spaces": [WIDE] * 40}},
        {"n_envs": 10**9},
        {"observation_space": {"kind": "Discrete", "n": 10**12, "start": 0}},
        {"observation_space": {"kind": "MultiBinary", "n": 10**12}},
        {"observation_space": {"kind": "Box", "low": 0, "high": 1, "shape": [10**9], "dtype": "float32"}},
        {"action_space": {"kind": "MultiDiscrete", "nvec": [10**9, 10**9], "start": [0, 0], "dtype": "int64"}},
    ],
)
def test_a_file_that_asks_for_more_than_it_holds_is_refused_before_anything_is_allocated(small, tmp_path, fields):
    path = asking_for(small("CartPole-v1"), tmp_path / "agent.zip", **fields)
    tracemalloc.start()
    try:
        with pytest.raises(archive.CheckpointError, match=r"agent\.zip: "):
            JEPA.load(path)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
