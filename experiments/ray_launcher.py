"""Runs on a Ray cluster (extra ``ray``), when one machine is too small."""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from jepa_agent.experiments.records import LOG, SPEC, RunSpec, read_spec


class RayLauncher:
    """A Ray task with one core for every run. The nodes share the study's folder, and jepa_agent is installed on each.

    A worker or a node that dies takes unfinished runs with it; Ray starts them afresh elsewhere, up to ``retries`` times.
    What is finished lies in its folder and stays. Raises ConnectionError if there is no cluster at ``address``.
    """

    def __init__(self, address: str = "auto", retries: int = 3):
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
        # A fresh process for every run, as the local launcher has it.
        self._task = ray.remote(num_cpus=1, max_retries=retries, max_calls=1)(_do)

    def places(self) -> int:
        """One for each of the cluster's cores."""
        return max(int(ray.cluster_resources().get("CPU", 1)), 1)

    def start(self, spec: RunSpec, folder: Path) -> RayJob:
        """Hand the run to the cluster; it waits there until a core is free."""
        return RayJob(self._task.remote(str(folder.resolve())), folder)


@dataclass(frozen=True)
class RayJob:
    """A run on the cluster."""

    reference: Any
    folder: Path

    def poll(self) -> int | None:
        """0 or 1 once it is over, 1 also where Ray gave up on it; None as long as it goes on."""
        ready, _ = ray.wait([self.reference], timeout=0)
        if not ready:
            return None
        try:
            return ray.get(self.reference)
        except ray.exceptions.RayError as error:
            (self.folder / LOG).write_text(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}\n")
            return 1

    def stop(self) -> None:
        """Cancel it, and wait until the cluster says so."""
        ray.cancel(self.reference, force=True)
        ray.wait([self.reference], timeout=30)


def _do(name: str) -> int:
    from jepa_agent.experiments.runner import run

    folder = Path(name)
    with (folder / LOG).open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            run(read_spec(folder / SPEC), folder)
            return 0
        except Exception:
            traceback.print_exc()
            return 1
