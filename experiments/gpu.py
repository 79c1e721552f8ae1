"""Benchmark on a GPU, beside SB3's SAC in the same call: ``python -m jepa_agent.experiments.gpu --output gpu.json``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC

from jepa_agent.agent import JEPA
from jepa_agent.experiments.folders import saved_to
from jepa_agent.experiments.machine import cpu_model, versions
from jepa_agent.experiments.records import write_json

ENV = "Pendulum-v1"
WIDTHS, BATCHES, ENVIRONMENTS = (128, 512), (256, 1024), (1, 256)
_STORED = 2_000  # transitions in the replay buffers


def measure(
    device: str,
    widths: Sequence[int] = WIDTHS,
    batches: Sequence[int] = BATCHES,
    environments: Sequence[int] = ENVIRONMENTS,
    repeats: int = 5,
    inner: int = 40,
) -> dict[str, Any]:
    """Time updates and plans: JEPA, JEPA with its updates captured, and SAC in turns.

    Args:
        device: Where the networks are, as ``cuda``.
        widths: Of the hidden layers.
        batches: Sizes of a batch.
        environments: Environments planned for in one batch.
        repeats: Measurements, of which the median is taken.
        inner: Updates per measurement; plans are a quarter as many.

    Returns:
        The card's name, versions, and rows of ``updates`` (per second of the wall's clock, by JEPA as it is, captured, and
        captured with TF32, and by SAC) and ``plans`` (milliseconds).

    Raises:
        RuntimeError: The device cannot be used.
    """
    updates: list[dict[str, Any]] = []
    plans: list[dict[str, Any]] = []
    for width in widths:
        sizes = {"net_arch": (width, width), "head_arch": (width,)}
        agents = {
            "eager": _stored(JEPA, device, policy_kwargs=sizes, mode="planner"),
            "captured": _stored(JEPA, device, policy_kwargs=sizes, capture=True),
            "captured_tf32": _stored(JEPA, device, policy_kwargs=sizes, capture=True),
            "sac": _stored(SAC, device, policy_kwargs={"net_arch": [width, width]}),
        }
        with ExitStack() as opened:
            for agent in agents.values():
                opened.enter_context(closing(agent.get_env()))
            for batch in batches:
                took: dict[str, list[float]] = {name: [] for name in agents}
                for name, agent in agents.items():
                    with _precision(name):
                        agent.train(3, batch)  # what is made or recorded the first time
                for _ in range(repeats):
                    for name, agent in agents.items():
                        with _precision(name):
                            took[name].append(_seconds(lambda: agent.train(inner, batch), device))  # noqa: B023
                rates = {f"{name}_per_second": inner / median(seconds) for name, seconds in took.items()}
                updates.append({"width": width, "batch_size": batch, **rates})
            jepa = agents["eager"]
            for count in environments:
                obs = np.repeat(jepa.get_env().reset(), count, axis=0)
                calls = max(inner // 4, 1)
                _plan(jepa, obs, 1)
                each = [_seconds(lambda: _plan(jepa, obs, calls), device) / calls for _ in range(repeats)]  # noqa: B023
                plans.append({"width": width, "n_envs": count, "ms": 1e3 * median(each)})
    card = torch.cuda.get_device_name() if device.startswith("cuda") else cpu_model()
    return {"card": card, "env": ENV, "versions": versions(), "updates": updates, "plans": plans}


def _stored(cls: type[Any], device: str, **settings: Any) -> Any:
    """Build an agent that has experience and has learned nothing of it."""
    agent = cls(
        "MlpPolicy", ENV, seed=0, device=device, learning_starts=10**9, gradient_steps=0, buffer_size=_STORED, **settings
    )
    return agent.learn(_STORED)


@contextmanager
def _precision(name: str) -> Iterator[None]:
    """Products of matrices in TF32 for what is named so, as they are in float32 for the rest."""
    torch.set_float32_matmul_precision("high" if name.endswith("tf32") else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def _plan(agent: JEPA, obs: np.ndarray, calls: int) -> None:
    for _ in range(calls):
        agent.predict(obs, None, np.ones(len(obs), dtype=bool), deterministic=True)


def _seconds(call: Callable[[], Any], device: str) -> float:
    """Return the seconds of the wall's clock that a call takes, the work on the device included."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the script")
    parser.add_argument("--output", default="gpu.json", help="where the numbers go")
    options = parser.parse_args(argv)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no CUDA device is seen: give --device cpu to try the script")
    found = measure(options.device)
    command = f"python -m jepa_agent.experiments.gpu --device {options.device} --output {options.output}"
    where = saved_to(Path(options.output))
    write_json(Path(options.output), {"command": command, **found})
    for row in (*found["updates"], *found["plans"]):
        print(", ".join(f"{name} {value:.4g}" for name, value in row.items()))
    print(f"{found['card']}; {where}")


if __name__ == "__main__":
    main()
