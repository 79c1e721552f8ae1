"""``jepa-agent doctor``."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import psutil
import torch
from rich.markup import escape
from rich.table import Table

from jepa_agent.cli.common import console, first_line, headless
from jepa_agent.cli.flags import parser_of
from jepa_agent.experiments.machine import cpu_model, versions
from jepa_agent.extras import EXTRAS, pip_line


class Finding(NamedTuple):
    """What was looked at and how it is."""

    what: str
    well: bool
    told: str


def run(argv: Sequence[str]) -> int:
    """Look at everything, print a table; 1 if something a run needs does not work."""
    options = parser_of("doctor").parse(argv)
    headless()
    checks: list[Callable[[], Finding]] = [
        lambda: Finding("versions", True, ", ".join(f"{name} {version}" for name, version in versions().items())),
        processor,
        device,
        extras,
        rendering,
        lambda: folder(Path(options.folder)),
    ]
    table = Table(show_header=False)
    findings = [check() for check in checks]
    for finding in findings:
        table.add_row(finding.what, "[green]ok[/]" if finding.well else "[red]trouble[/]", escape(finding.told))
    console.print(table)
    return int(not all(finding.well for finding in findings))


def processor() -> Finding:
    """Cores, memory, and how many threads torch will use."""
    given = os.environ.get("OMP_NUM_THREADS")
    more = f"OMP_NUM_THREADS={given}" if given else "set OMP_NUM_THREADS for more"
    threads = f"{torch.get_num_threads()} torch thread(s) a process ({more})"
    memory = psutil.virtual_memory()
    told = (
        f"{cpu_model()}, {os.cpu_count()} cores, {memory.available / 1e9:.0f} of {memory.total / 1e9:.0f} GB free, {threads}"
    )
    return Finding("processor", memory.available > 1e9, told)


def device() -> Finding:
    """What --device auto will choose, tried with one product."""
    if not torch.cuda.is_available():
        return Finding("device", True, "cpu (no CUDA device seen)")
    try:
        torch.ones(8, 8, device="cuda").mm(torch.ones(8, 8, device="cuda")).cpu()
        return Finding(
            "device", True, f"cuda: {torch.cuda.get_device_name()}; networks this small are often quicker on the cpu"
        )
    except RuntimeError as error:
        return Finding("device", False, f"cuda is seen but does not work: {first_line(error)}; use --device cpu")


def extras() -> Finding:
    """Optional packages; one that is missing is no trouble."""
    missing = [extra for extra, modules in EXTRAS.items() if not all(map(_installed, modules))]
    have = [extra for extra in EXTRAS if extra not in missing]
    hint = f"; not installed: {', '.join(missing)} ({pip_line(*missing)})" if missing else ""
    return Finding("extras", True, f"{', '.join(have) or 'none'}{hint}")


def rendering() -> Finding:
    """Whether environments can be drawn without a screen, as `enjoy` needs it: pygame's and MuJoCo's, where installed."""
    drawn = [_drawn(env_id) for env_id, module in (("CartPole-v1", "pygame"), ("Hopper-v5", "mujoco")) if _installed(module)]
    if not drawn:
        return Finding("rendering", True, "nothing to draw with is installed")
    return Finding("rendering", all(one.well for one in drawn), "; ".join(one.told for one in drawn))


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _drawn(env_id: str) -> Finding:
    try:
        with closing(gym.make(env_id, render_mode="rgb_array")) as env:
            env.reset(seed=0)
            frame = np.asarray(env.render())
    except Exception as error:  # whatever a renderer raises
        return Finding("rendering", False, f"{first_line(error)}; enjoy will not work, everything else will")
    return Finding("rendering", frame.std() > 0, f"{env_id} drawn without a screen, {frame.shape[1]} x {frame.shape[0]}")


def folder(path: Path) -> Finding:
    """Whether runs can be written, and how much room there is."""
    existing = next(parent for parent in (path, *path.resolve().parents) if parent.is_dir())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding(
            "folder", False, f"{existing} cannot be written: {error.strerror}; choose another with -f or --output"
        )
    free = shutil.disk_usage(existing).free / 1e9
    return Finding("folder", free > 1, f"{path} can be written, {free:,.0f} GB free")
