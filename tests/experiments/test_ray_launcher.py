"""Runs on a cluster of two nodes that loses a worker and a node."""

import dataclasses
import os
import signal
from pathlib import Path

import psutil
import pytest

from jepa_agent.experiments.records import RESULT, RunSpec
from jepa_agent.experiments.runner import Event, run_all

ray = pytest.importorskip("ray", reason="ray has no wheel for this Python")

SPEC = RunSpec(
    "PPO", "CartPole-v1", 0, 1500, 500, 1, overrides={"n_envs": 1, "n_steps": 64, "batch_size": 32, "n_epochs": 1}
)


@pytest.fixture
def cluster(monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray's workers give way to everything else, other tests included
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.second = made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


def workers() -> list[psutil.Process]:
    """Processes of this cluster that do a run right now."""
    processes = psutil.Process().children(recursive=True)
    return [p for p in processes if p.status() != psutil.STATUS_ZOMBIE and "ray::_do" in " ".join(p.cmdline())]


def test_a_killed_worker_and_a_removed_node_lose_no_finished_run(cluster, tmp_path: Path) -> None:
    specs = [dataclasses.replace(SPEC, seed=seed) for seed in range(4)]
    broken = dataclasses.replace(SPEC, algorithm="A2C", overrides={"no_such_setting": 1})
    written: dict[Path, float] = {}
    done = {"killed": False, "removed": False}

    def on_event(event: Event) -> None:
        if event.kind == "finished":
            written[event.folder / RESULT] = (event.folder / RESULT).stat().st_mtime_ns
            if not done["removed"]:
                cluster.remove_node(cluster.second)
                done["removed"] = True

    def on_wait() -> None:
        if not done["killed"]:
            for process in workers()[:1]:
                os.kill(process.pid, signal.SIGKILL)
                done["killed"] = True

    from jepa_agent.experiments.ray_launcher import RayLauncher

    launcher = RayLauncher(cluster.address)
    failures = run_all([*specs, broken], tmp_path, 3, on_event, on_wait, launcher)
    assert done == {"killed": True, "removed": True}
    assert [failure.spec.algorithm for failure in failures] == ["A2C"]
    assert "no_such_setting" in failures[0].reason
    assert len(written) == 4
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())  # none was done twice
