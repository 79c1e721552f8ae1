"""``jepa-agent compare``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jepa_agent.cli.common import Parser, UsageError, check_env, check_mode, console, make_env, say
from jepa_agent.config import AgentConfig, ModelConfig, PlannerConfig
from jepa_agent.experiments.baselines import BASELINES, fits
from jepa_agent.experiments.records import AGENT
from jepa_agent.experiments.report import plot_curves, print_table, write_summary
from jepa_agent.experiments.runner import Event, RunSpec, read_curves, run_all
from jepa_agent.experiments.statistics import summarise


def build_parser() -> Parser:
    """The verb's flags."""
    parser = Parser(
        "compare",
        "Train JEPA and SB3 baselines on one environment over several seeds; table, curves and raw results.",
        "jepa-agent compare --env CartPole-v1 --baselines PPO DQN --seeds 3 -n 5000 --baseline-timesteps 30000",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these settings")
    parser.add_argument("--env", type=str, required=True, help="Gymnasium id, or module:EnvId")
    parser.add_argument("--env-kwargs", type=dict[str, Any], default={}, help="arguments of the environment, key:value ...")
    parser.add_argument("--baselines", type=str, nargs="*", help=f"of {', '.join(BASELINES)}; all that fit by default")
    parser.add_argument("--seeds", type=PositiveInt, default=3, help="runs of each algorithm, seeds 0, 1, ...")
    parser.add_argument("-n", "--n-timesteps", type=PositiveInt, default=5_000, help="environment steps of a JEPA run")
    parser.add_argument("--baseline-timesteps", type=PositiveInt, help="steps of a baseline's run; as many by default")
    parser.add_argument("--eval-freq", type=PositiveInt, default=500, help="steps between evaluations")
    parser.add_argument("--eval-episodes", type=PositiveInt, default=10, help="episodes per evaluation and mode")
    parser.add_argument("--modes", type=str, nargs="+", default=["actor", "planner"], help="how JEPA is evaluated")
    parser.add_argument(
        "--threshold", type=float, help="mean return that counts as solved; the environment's own by default"
    )
    parser.add_argument("--stop-early", action="store_true", help="end a run once every mode has reached the threshold")
    parser.add_argument("--jobs", type=PositiveInt, default=os.cpu_count() or 1, help="runs at the same time")
    parser.add_argument("--output", type=str, required=True, help="folder of the study; run again to go on where it stopped")
    parser.add_argument("--agent", type=AgentConfig, default=AgentConfig())
    parser.add_argument("--model", type=ModelConfig, default=ModelConfig())
    parser.add_argument("--planner", type=PlannerConfig, default=PlannerConfig())
    return parser


def run(argv: Sequence[str]) -> int:
    """Check, do the runs that are missing, and report."""
    options = build_parser().parse(argv)
    folder = Path(options.output)
    threshold = check(options)
    specs = plan(options, threshold)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        failures = _watch(specs, folder, options.jobs)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    for failure in failures:
        say(f"failed: {failure.spec.algorithm} seed {failure.spec.seed}: {failure.reason} ({failure.log})")
    wanted = {spec.folder(folder) for spec in specs}
    curves = [curve for curve in read_curves(folder) if curve.spec.folder(folder) in wanted]
    if not curves:
        console.print("no run finished")
        return 1
    summaries = summarise(curves, threshold)
    print_table(summaries, threshold, console)
    write_summary(summaries, f"jepa-agent compare {shlex.join(argv)}", folder / "summary.json")
    plot_curves(curves, threshold, folder / "curves.png")
    say(f"saved to {folder}: summary.json, curves.png and every run")
    return 1 if failures else 0


def check(options: Namespace) -> float:
    """Refuse what cannot work before anything runs; the threshold to report against."""
    check_env(options.env, options.env_kwargs)
    env = make_env(options.env, options.env_kwargs)
    action_space, spec = env.action_space, env.spec
    env.close()
    fitting = [name for name in BASELINES if fits(name, action_space)]
    if options.baselines is None:
        options.baselines = fitting
    for name in options.baselines:
        if name not in fitting:
            what = f"cannot act in {action_space}" if name in BASELINES else "is no baseline"
            raise UsageError(f"{name} {what}: choose of {', '.join(fitting)}")
    check_mode(*options.modes)
    return _threshold(options, spec)


def _threshold(options: Namespace, spec: gym.envs.registration.EnvSpec | None) -> float:
    if options.threshold is not None:
        return options.threshold
    if spec is None or spec.reward_threshold is None:
        raise UsageError(f"{options.env} names no return that counts as solved: give one with --threshold")
    return spec.reward_threshold


def plan(options: Namespace, threshold: float) -> list[RunSpec]:
    """All runs of the study; only settings that differ from the defaults become part of a run's name."""
    changed = {name: value for name, value in asdict(options.agent).items() if value != getattr(AgentConfig(), name)}
    sizes = {name: value for name, value in asdict(options.model).items() if value != getattr(ModelConfig(), name)}
    search = {name: value for name, value in asdict(options.planner).items() if value != getattr(PlannerConfig(), name)}
    grouped = {"policy_kwargs": sizes, "planner": search}
    own: dict[str, Any] = {**changed, **{name: group for name, group in grouped.items() if group}}
    return [
        RunSpec(
            algorithm=algorithm,
            env=options.env,
            seed=seed,
            n_timesteps=(options.n_timesteps if algorithm == AGENT else options.baseline_timesteps or options.n_timesteps),
            eval_freq=options.eval_freq,
            n_eval_episodes=options.eval_episodes,
            modes=tuple(options.modes),
            env_kwargs=options.env_kwargs,
            overrides=own if algorithm == AGENT else {},
            stop_at=threshold if options.stop_early else None,
        )
        for algorithm in (AGENT, *options.baselines)
        for seed in range(options.seeds)
    ]


def _watch(specs: Sequence[RunSpec], folder: Path, jobs: int) -> list[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("runs", total=len(specs))

        def show(event: Event) -> None:
            if event.kind != "started":
                progress.advance(task)
            progress.console.print(f"{event.kind:>9}  {event.spec.algorithm} seed {event.spec.seed}", highlight=False)

        return run_all(specs, folder, jobs, show)
