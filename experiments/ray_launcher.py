"""Launcher of runs on a Ray cluster (extra ``ray``), for studies that are too large for one machine."""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa_agent.experiments.records import LOG, SPEC, RunSpec, read_spec
from jepa_agent.extras import needs

with needs("ray"):
    import ray


class RayLauncher:
    """Starts every run as a Ray task with one core.

    All nodes must share the study's folder and have jepa_agent installed. When a worker or node dies, Ray restarts its
    unfinished runs from scratch elsewhere; finished runs keep their results.

    Args:
        address: Address of the cluster, as for `ray.init`.
        retries: How often Ray restarts a run whose worker or node has died.

    Raises:
        ConnectionError: There is no cluster at ``address``.
    """

    def __init__(self, address: str = "auto", retries: int = 3):
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
        # max_calls=1: a new process for every run, as with the local launcher.
        self._task = ray.remote(num_cpus=1, max_retries=retries, max_calls=1)(_do)

    def places(self) -> int:
        """Return the number of the cluster's cores."""
        return max(int(ray.cluster_resources().get("CPU", 1)), 1)

    def start(self, spec: RunSpec, folder: Path) -> RayJob:
        """Submit a run, which waits in the cluster until a core is free.

        Args:
            spec: The run; the task reads it from the file in ``folder``.
            folder: Folder of the run, at the same path on every node.
        """
        return RayJob(self._task.remote(str(folder.resolve())), folder)


@dataclass(frozen=True)
class RayJob:
    """A run on the cluster.

    Args:
        reference: Ray's reference to the task's exit code.
        folder: Folder of the run.
    """

    reference: Any
    folder: Path

    def poll(self) -> int | None:
        """Return the exit code, 1 also where Ray has given up; None while the run is waiting or under way."""
        ready, _ = ray.wait([self.reference], timeout=0)
        if not ready:
            return None
        try:
            return ray.get(self.reference)
        except ray.exceptions.RayError as error:
            # The reason of a failure is read from the last line of the log.
            (self.folder / LOG).write_text(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}\n")
            return 1

    def stop(self) -> None:
        """Cancel the run and wait up to 30 seconds for its end."""
        ray.cancel(self.reference, force=True)
        ray.wait([self.reference], timeout=30)


def _do(name: str) -> int:
    """Do the run described in a folder, with its output in the log; return the exit code."""
    from jepa_agent.experiments.runner import run

    folder = Path(name)
    with (folder / LOG).open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            run(read_spec(folder / SPEC), folder)
            return 0
        except Exception:
            traceback.print_exc()
            return 1
