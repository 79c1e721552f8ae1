"""Benchmark of the agent's speed, beside SB3's SAC and the processor's peak rate, in CPU time on one thread."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch.utils.flop_counter import FlopCounterMode

from jepa_agent.agent import JEPA
from jepa_agent.config import PlannerConfig, as_kwargs
from jepa_agent.experiments.machine import cpu_model, versions
from jepa_agent.extras import needs
from jepa_agent.learning.replay_buffer import SequenceReplayBuffer

with needs("cli"):
    import psutil

BOX, DISCRETE = "Pendulum-v1", "CartPole-v1"
STORED = 2_000  # transitions in the replay buffers that updates sample from
# TD-MPC2's planner and networks at its 1M size (arXiv 2310.16828): H 3, 512 samples, 64 elites, 6 iterations, latents of
# 128, perceptrons of 2 x 384, two value networks. One plan by its own code takes 13.0 GFLOP of matrix products.
TDMPC2 = PlannerConfig(horizon=3, num_samples=512, num_elites=64, num_iterations=6)
TDMPC2_SIZES = {"latent_dim": 128, "net_arch": (384, 384), "head_arch": (384, 384), "ensemble_size": 2}
Report = Callable[[str], None]
Model = TypeVar("Model", bound=OffPolicyAlgorithm)


def measure(report: Report = lambda _: None) -> dict[str, Any]:
    """Run all benchmarks.

    Args:
        report: Called with the name of each section before it is measured.

    Returns:
        Numbers for JSON: ``cpu``, ``versions``, the results of each section by name, and ``peak_memory_mb``.
    """
    with one_thread():
        result: dict[str, Any] = {"cpu": cpu_model(), "versions": versions()}
        sections: dict[str, Callable[[], Any]] = {
            "buffer": buffer_speed,  # first: later, freed memory would be reused and not show in its growth
            "matmul_gflops": matmul_gflops,
            **{name: partial(_run_section, section) for name, section in _WITH_AGENTS.items()},
        }
        for name, section in sections.items():
            report(name)
            result[name] = section()
        # Measured at both ends: a difference shows that the machine was busy.
        result["matmul_gflops"] = [result["matmul_gflops"], matmul_gflops()]
        # `ru_maxrss` is in bytes on macOS and in kilobytes elsewhere.
        unit = 1 if sys.platform == "darwin" else 1024
        result["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
        for row in result["update"]:
            # GFLOP per millisecond, times 1000, is GFLOP/s.
            row["roofline_fraction"] = row["gflop"] / row["ms"] * 1e3 / max(result["matmul_gflops"])
    return result


# ---------------------------------------------------------------------- the sections


def matmul_gflops(size: int = 512) -> float:
    """Measure the rate of float32 matrix products, the upper bound (roofline) for updates.

    Args:
        size: Rows and columns of the matrices.

    Returns:
        GFLOP per second.
    """
    a, b = torch.randn(size, size), torch.randn(size, size)
    # A product of n x n matrices takes n^3 multiplications and as many additions.
    return 2 * size**3 / milliseconds(lambda: a @ b, repeats=15, inner=20) / 1e6


def update_speed(opened: ExitStack) -> list[dict[str, Any]]:
    """Time updates and their parts beside SAC's, in turns, so that both meet the same load of the machine.

    Args:
        opened: Closes the environments.

    Returns:
        A row per environment and batch size, in milliseconds and GFLOP.
    """
    sac = _build(SAC, BOX, opened, learning_starts=10**9, buffer_size=STORED)
    sac.learn(STORED)
    rows: list[dict[str, Any]] = []
    for env in (BOX, DISCRETE):
        agent = _agent(env, opened)
        for batch_size in sorted({agent.batch_size, 256}):
            own, theirs = [], []
            for _ in range(9):
                own.append(milliseconds(lambda: agent.train(1, batch_size), 1, 8))  # noqa: B023
                theirs.append(milliseconds(lambda: sac.train(1, 256), 1, 8))
            rows.append(
                {
                    "env": env,
                    "batch_size": batch_size,
                    "default": batch_size == agent.batch_size,
                    "ms": median(own),
                    "ms_per_env_step": median(own),  # one update per step, by default
                    "sac_ms": median(theirs),
                    "ratio_per_env_step": median(a / b for a, b in zip(own, theirs, strict=True)),
                    "gflop": update_gflop(agent, batch_size),
                    "parts_ms": update_parts(agent, batch_size),
                }
            )
    return rows


def update_gflop(agent: JEPA, batch_size: int) -> float:
    """Count the operations of the matrix products of one update, forwards and backwards.

    Returns:
        GFLOP.
    """
    with FlopCounterMode(display=False) as counter:
        agent.train(1, batch_size)
    return counter.get_total_flops() / 1e9


def update_parts(agent: JEPA, batch_size: int, updates: int = 40) -> dict[str, float]:
    """Time the parts of an update.

    Args:
        agent: Agent with experience.
        batch_size: Windows per update.
        updates: Number of updates to average over.

    Returns:
        Milliseconds per update by part; ``rest`` is the step of the target networks, bookkeeping and logging.
    """
    parts = {
        "sample": (agent.replay_buffer, "sample_sequences"),
        "representation": (agent, "_fit_representation"),
        "value": (agent, "_fit_value"),
        "actor": (agent, "_fit_actor"),
        "optimiser": (agent.policy.optimizer, "step"),
    }
    spent: dict[str, float] = {}
    originals = {name: getattr(owner, method) for name, (owner, method) in parts.items()}
    for name, (owner, method) in parts.items():
        # Instance attributes shadow the methods for the time of the measurement.
        setattr(owner, method, _timed(originals[name], name, spent))
    try:
        total = milliseconds(lambda: agent.train(1, batch_size), 1, updates)
    finally:
        for owner, method in parts.values():
            delattr(owner, method)
    each = {name: 1e3 * seconds / updates for name, seconds in spent.items()}
    return {**each, "rest": total - sum(each.values())}


def plan_speed(opened: ExitStack) -> list[dict[str, Any]]:
    """Time a step in Mode-2 for each planner and number of environments, encoding and working memory included.

    The last rows use the planner and network sizes of TD-MPC2, in float32 and in bfloat16.

    Args:
        opened: Closes the environments.

    Returns:
        A row per planner and number of environments, in milliseconds.
    """
    kinds = [(BOX, PlannerConfig()), (BOX, PlannerConfig("gradient")), (DISCRETE, PlannerConfig())]
    rows = []
    for env, planner in kinds:
        agent = _build(JEPA, env, opened, mode="planner", planner=planner)
        for n_envs in (1, 8, 64):
            ms = _predict_ms(agent, n_envs, repeats=max(60 // n_envs, 7))
            name = type(agent.policy.planner).__name__
            rows.append({"env": env, "planner": name, "n_envs": n_envs, "ms": ms, "ms_per_env": ms / n_envs})
    agent = _build(JEPA, BOX, opened, mode="planner", planner=TDMPC2, policy_kwargs=TDMPC2_SIZES)
    ms = _predict_ms(agent, 1, repeats=9)
    with FlopCounterMode(display=False) as counter:
        agent.predict(_observations(agent, 1), deterministic=True)
    own = {"env": BOX, "n_envs": 1, "gflop": counter.get_total_flops() / 1e9}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = _predict_ms(agent, 1, repeats=9)
    for name, cost in (("MPPI at TD-MPC2's setting", ms), ("the same in bfloat16", low)):
        rows.append({**own, "planner": name, "ms": cost, "ms_per_env": cost})
    return rows


def predict_speed(opened: ExitStack) -> list[dict[str, Any]]:
    """Time an action in Mode-1 for a single observation, beside SAC's actor.

    Args:
        opened: Closes the environments.

    Returns:
        A row per agent, in microseconds.
    """
    sac = _build(SAC, BOX, opened, buffer_size=1)
    agent = _build(JEPA, BOX, opened, mode="actor")
    obs = _observations(agent, 1)[0]
    rows: dict[str, list[float]] = {"JEPA (actor)": [], "SAC": []}
    for _ in range(9):
        # In turns, so that both meet the same load of the machine.
        for name, model in zip(rows, (agent, sac), strict=True):
            rows[name].append(milliseconds(lambda: model.predict(obs, deterministic=True), 1, 200))  # noqa: B023
    return [{"agent": name, "us": 1e3 * median(times)} for name, times in rows.items()]


def image_speed(opened: ExitStack, side: int = 64) -> dict[str, Any]:
    """Time an update and an action in either mode on RGB images.

    Args:
        opened: Closes the environments.
        side: Height and width of the images in pixels.

    Returns:
        Shape, batch size and milliseconds.
    """
    agent = _agent(gym.make("JEPA/BrightOrDark-v0", side=side), opened)
    measured: dict[str, Any] = {"shape": [side, side, 3], "batch_size": agent.batch_size}
    measured["update_ms"] = milliseconds(lambda: agent.train(1, agent.batch_size), 5, 1)
    for mode in ("actor", "planner"):
        agent.set_mode(mode)
        measured[f"{mode}_ms"] = _predict_ms(agent, 1, repeats=15)
    return measured


def training_speed(opened: ExitStack, steps: int = 300) -> list[dict[str, Any]]:
    """Measure environment steps per CPU second of training, updates and environment included.

    Args:
        opened: Closes the environments.
        steps: Number of timed steps, all after the first updates.

    Returns:
        A row per environment.
    """
    rows = []
    for env in (BOX, DISCRETE):
        # Not timed: 100 steps without updates, and torch's first calls.
        agent = _build(JEPA, env, opened, learning_starts=100, buffer_size=STORED).learn(150)
        began = time.process_time()
        agent.learn(steps, reset_num_timesteps=False)
        rows.append({"env": env, "steps_per_cpu_second": steps / (time.process_time() - began)})
    return rows


def buffer_speed(size: int = 1_000_000) -> dict[str, Any]:
    """Measure the replay buffer when full: time of a sample of 256 windows of 6 steps, and memory.

    Args:
        size: Transitions in the buffer.

    Returns:
        ``sample_ms``, ``bytes_stored`` in its arrays, and ``memory_ratio``, the growth of the process over these bytes.
    """
    process = psutil.Process()
    before = process.memory_info().rss
    buffer = _full_buffer(size)
    taken = process.memory_info().rss - before
    stored = sum(array.nbytes for array in vars(buffer).values() if isinstance(array, np.ndarray))
    return {
        "size": size,
        "sample_ms": milliseconds(lambda: buffer.sample_sequences(256, 6), 50, 2),
        "bytes_stored": stored,
        "memory_ratio": taken / stored,
    }


def growth(opened: ExitStack) -> list[dict[str, Any]]:
    """Measure how time grows with each size, all others at their defaults.

    Args:
        opened: Closes the environments.

    Returns:
        A row per measurement: what is timed, the quantity and its value, and milliseconds.
    """
    rows = []

    def row(what: str, quantity: str, value: Any, ms: float) -> None:
        """Add a measurement."""
        rows.append({"what": what, "quantity": quantity, "value": value, "ms": ms})

    agent = _agent(BOX, opened)
    for batch_size in (64, 128, 256, 512):
        row("update", "batch_size", batch_size, milliseconds(lambda: agent.train(1, batch_size), 5, 5))  # noqa: B023
    for width in (64, 128, 256, 512):
        wide = _agent(BOX, opened, policy_kwargs={"net_arch": (width, width), "head_arch": (width, width)})
        row("update", "width", width, milliseconds(lambda: wide.train(1, wide.batch_size), 5, 3))  # noqa: B023
    for horizon in (2, 3, 5, 10):
        long = _agent(BOX, opened, train_horizon=horizon)
        row("update", "train_horizon", horizon, milliseconds(lambda: long.train(1, long.batch_size), 5, 3))  # noqa: B023
    for name, values in {"horizon": (1, 3, 5, 10), "num_samples": (32, 64, 128, 256, 512)}.items():
        for value in values:
            planner = PlannerConfig(**{**as_kwargs(PlannerConfig()), name: value})
            planning = _build(JEPA, BOX, opened, mode="planner", planner=planner)
            row("plan", name, value, _predict_ms(planning, 1, repeats=15))
    for n_envs in (1, 4, 16, 64):
        row("plan", "n_envs", n_envs, _predict_ms(_agent(BOX, opened), n_envs, repeats=max(30 // n_envs, 5)))
    for size in (10_000, 100_000, 1_000_000):
        buffer = _full_buffer(size)
        row("sample", "buffer_size", size, milliseconds(lambda: buffer.sample_sequences(256, 6), 30, 2))  # noqa: B023
    return rows


_WITH_AGENTS: dict[str, Callable[[ExitStack], Any]] = {
    "update": update_speed,
    "plan": plan_speed,
    "predict": predict_speed,
    "images": image_speed,
    "training": training_speed,
    "growth": growth,
}


# ---------------------------------------------------------------------- tools


def milliseconds(call: Callable[[], Any], repeats: int, inner: int) -> float:
    """Time a function.

    Args:
        call: Function to time; the first call is a warm-up and not timed.
        repeats: Number of measurements, of which the median is returned.
        inner: Calls per measurement, over which it is averaged.

    Returns:
        CPU milliseconds per call.
    """
    call()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        for _ in range(inner):
            call()
        times.append((time.process_time() - began) / inner)
    return 1e3 * median(times)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside the context, and as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _timed(call: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    """Wrap a function so that its CPU seconds are added to ``spent[name]``."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        """Call the function and add its time."""
        began = time.process_time()
        result = call(*args, **kwargs)
        spent[name] = spent.get(name, 0.0) + time.process_time() - began
        return result

    return timed


def _run_section(section: Callable[[ExitStack], Any]) -> Any:
    """Measure a section and close its environments."""
    with ExitStack() as opened:
        return section(opened)


def _build(cls: type[Model], env: str | gym.Env[Any, Any], opened: ExitStack, **settings: Any) -> Model:
    """Build an untrained agent whose environment is closed with ``opened``."""
    agent = cls("MlpPolicy", env, seed=0, device="cpu", **settings)
    assert agent.env is not None
    opened.callback(agent.env.close)
    return agent


def _agent(env: str | gym.Env[Any, Any], opened: ExitStack, **settings: Any) -> JEPA:
    """An agent with experience that has learned nothing from it yet."""
    agent = _build(JEPA, env, opened, learning_starts=10**9, gradient_steps=0, buffer_size=STORED, **settings)
    agent.learn(STORED)
    agent.set_mode("planner")
    return agent


def _observations(agent: JEPA, n_envs: int) -> np.ndarray:
    """Return a first observation, repeated for ``n_envs`` environments: ``(n_envs, *obs_shape)``."""
    env = agent.get_env()
    assert env is not None
    obs = env.reset()
    assert isinstance(obs, np.ndarray)
    return np.repeat(obs, n_envs, axis=0)


def _predict_ms(agent: JEPA, n_envs: int, repeats: int) -> float:
    """Time `predict` for ``n_envs`` environments at once, in milliseconds."""
    obs, starts = _observations(agent, n_envs), np.ones(n_envs, dtype=bool)
    return milliseconds(lambda: agent.predict(obs, None, starts, deterministic=True), repeats, 2)


def _full_buffer(size: int) -> SequenceReplayBuffer:
    """Return a replay buffer that is full and has begun to overwrite, with episodes of 200 steps."""
    env = gym.make(BOX)
    buffer = SequenceReplayBuffer(size, env.observation_space, env.action_space, device="cpu")
    for array in vars(buffer).values():
        if isinstance(array, np.ndarray):
            # Written once, since untouched pages are not yet in memory.
            array.fill(0)
    buffer.dones[199::200] = 1
    buffer.full, buffer.pos = True, size // 3
    return buffer
