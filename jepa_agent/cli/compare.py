"""``jepa-agent compare``."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import gymnasium as gym
from jsonargparse import Namespace
from rich.live import Live
from rich.table import Table

from jepa_agent.cli.common import UsageError, check_env, check_mode, console, first_line, make_env, program, say
from jepa_agent.cli.flags import parser_of
from jepa_agent.cli.parser import Parser
from jepa_agent.experiments.baselines import BASELINES, algorithm_class, fits
from jepa_agent.experiments.document import write_report
from jepa_agent.experiments.figures import name_of
from jepa_agent.experiments.folders import locked, refuse_links
from jepa_agent.experiments.progress import read_progress, remaining_seconds
from jepa_agent.experiments.records import AGENT, RESULT, is_agent, read_run
from jepa_agent.experiments.report import print_table
from jepa_agent.experiments.runner import (
    Event,
    Failure,
    Launcher,
    LocalLauncher,
    RunSpec,
    check_overrides,
    run_all,
    unfinished,
)
from jepa_agent.experiments.study import Study, Task, read_study


def run(argv: Sequence[str]) -> int:
    """Check, do the runs that are missing, and report."""
    parser = parser_of("compare")
    options = parser.parse(argv)
    study = study_of(options, parser)
    folder = Path(options.output or f"runs/{Path(options.study or options.env.replace(':', '/')).stem}")
    check(study)
    specs = study.specs()
    command = f"jepa-agent compare {shlex.join(arg for arg in argv if arg != '--report-only')}"
    jobs = options.jobs or os.cpu_count() or 1
    try:
        todo = unfinished(specs, folder)
        if options.dry_run:
            dry_run(todo, specs, folder, jobs)
            return 0
        refuse_links(folder)
        if options.report_only:
            return report(study, specs, folder, command)
        launcher = launcher_of(options.ray)
        with locked(folder):
            keep_study(options.study, folder)
            failures = watch(specs, folder, options.jobs or launcher.places(), launcher)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    for failure in failures:
        what = f"{failure.spec.algorithm} seed {failure.spec.seed} in {failure.spec.env}"
        say(f"failed: {what}: {failure.reason} ({failure.log})")
    return report(study, specs, folder, command) or int(bool(failures))


def keep_study(file: str | None, folder: Path) -> None:
    """Copy the study's file, if there is one, beside its results.

    Args:
        file: The study; None if flags described it.
        folder: Of the results.
    """
    if file is not None and Path(file).resolve() != (folder / "study.yaml").resolve():
        shutil.copyfile(file, folder / "study.yaml")


def report(study: Study, specs: Sequence[RunSpec], folder: Path, command: str) -> int:
    """Print the table and write the report.

    Args:
        study: What was compared.
        specs: Its runs; those without a result are left out.
        folder: Of the results.
        command: What the report says it was made by.

    Returns:
        The exit code: 1 if no run finished.

    Raises:
        FolderError: A link in the folder would lead what is written elsewhere.
    """
    refuse_links(folder)
    curves = [curve for spec in specs if (spec.folder(folder) / RESULT).exists() for curve in read_run(spec.folder(folder))]
    if not curves:
        console.print("no run finished")
        return 1
    print_table(write_report(study, curves, folder, command), console)
    say(f"saved to {folder}: report.md, report.html, summary.json and every run")
    say(f"tensorboard: {program('tensorboard')} --logdir {shlex.quote(str(folder / 'tensorboard'))}")
    return 0


# ---------------------------------------------------------------------- what is to be run


def study_of(options: Namespace, parser: Parser) -> Study:
    """The study in a file, or the one that the flags describe.

    Args:
        options: Parsed flags.
        parser: Knows the defaults, from which flags beside a file must not differ.

    Raises:
        UsageError: Both or neither is given, or the file is no study.
    """
    if (options.study is None) == (options.env is None) and ":" not in (options.env or ""):
        raise UsageError("give either a study file or --env: jepa-agent compare --env CartPole-v1")
    try:
        if options.study is None:
            return quick_study(options)
        own = {"study", "output", "jobs", "dry_run", "report_only", "config", "ray", "env", "baselines"}
        defaults = parser.get_defaults()
        surplus = [name for name in vars(options) if name not in own and options[name] != defaults.get(name)]
        surplus = [name for name in surplus if name not in ("agent", "model", "planner") or not _is_default(options[name])]
        if surplus:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in surplus)
            raise UsageError(f"{flags}: a study file says it itself; change {options.study}")
        return read_study(Path(options.study), [options.env] if options.env else [], options.baselines or [])
    except ValueError as error:
        raise UsageError(str(error)) from error


def _is_default(settings: Any) -> bool:
    return settings == type(settings)()


def quick_study(options: Namespace) -> Study:
    """The study of one environment that the flags describe; only settings that differ from the defaults are recorded."""
    check_env(options.env, options.env_kwargs)
    with closing(make_env(options.env, options.env_kwargs)) as env:
        action_space, spec = env.action_space, env.spec
    baselines = options.baselines
    if baselines is None:
        baselines = [name for name in ("PPO", "DQN", "SAC", "TD3") if fits(name, action_space)]
    changed = {
        name: {field: value for field, value in asdict(own).items() if value != getattr(type(own)(), field)}
        for name, own in (("agent", options.agent), ("policy_kwargs", options.model), ("planner", options.planner))
    }
    overrides = {**changed.pop("agent"), **{name: group for name, group in changed.items() if group}}
    task = Task(
        threshold=_threshold(options, spec),
        n_timesteps=options.n_timesteps,
        baselines=tuple(baselines),
        baseline_timesteps=options.baseline_timesteps,
        seeds=options.seeds,
        eval_freq=options.eval_freq,
        env_kwargs=options.env_kwargs,
    )
    own = {AGENT: overrides} if overrides else {}
    return Study(
        {options.env: task}, tuple(options.modes), options.eval_episodes, stop_early=options.stop_early, overrides=own
    )


def _threshold(options: Namespace, spec: gym.envs.registration.EnvSpec | None) -> float:
    if options.threshold is not None:
        return options.threshold
    if spec is None or spec.reward_threshold is None:
        raise UsageError(f"{options.env} names no return that counts as solved: give one with --threshold")
    return spec.reward_threshold


def check(study: Study) -> None:
    """Refuse what cannot work before anything runs."""
    check_mode(*study.modes)
    for algorithm, overrides in study.overrides.items():
        try:
            check_overrides(algorithm, overrides)
        except ValueError as error:
            raise UsageError(f"overrides of {algorithm}: {error}") from error
    for env_id, task in study.tasks.items():
        check_env(env_id, task.env_kwargs)
        with closing(make_env(env_id, task.env_kwargs)) as env:
            action_space = env.action_space
        fitting = [name for name in BASELINES if fits(name, action_space)]
        for name in (name for name in task.baselines if not is_agent(name)):
            try:
                algorithm_class(name)
            except ValueError as error:
                raise UsageError(str(error)) from error
            if not fits(name, action_space):
                raise UsageError(f"{name} cannot act in {env_id}, {action_space}: choose of {', '.join(fitting)}")


# ---------------------------------------------------------------------- doing it


def dry_run(todo: Sequence[RunSpec], specs: Sequence[RunSpec], folder: Path, jobs: int) -> None:
    """Print what of a study is still to be run and how long it should take.

    Args:
        todo: Runs without a result.
        specs: All runs; those with a result tell how long one takes.
        folder: Of the results.
        jobs: Runs at a time.
    """
    table = Table(title=f"{len(todo)} of {len(specs)} runs to do, {jobs} at a time")
    for column in ("environment", "algorithm", "seeds", "steps each"):
        table.add_column(column, justify="left" if column in ("environment", "algorithm") else "right")
    for env, algorithm in dict.fromkeys((spec.env, spec.algorithm) for spec in todo):
        own = [spec for spec in todo if (spec.env, spec.algorithm) == (env, algorithm)]
        table.add_row(env, algorithm, ", ".join(str(spec.seed) for spec in own), f"{own[0].n_timesteps:,}")
    console.print(table)
    seconds = remaining_seconds(todo, [], specs, folder, jobs)
    say(f"about {_duration(seconds)}, less where runs stop early; nothing has been started")


def launcher_of(address: str | None) -> Launcher:
    """This machine, or the Ray cluster at ``address``; `UsageError` if there is none."""
    if address is None:
        return LocalLauncher()
    try:
        from jepa_agent.experiments.ray_launcher import RayLauncher

        return RayLauncher(address)
    except (ConnectionError, ValueError) as error:
        raise UsageError(f"--ray {address}: {first_line(error)}") from error


def watch(specs: Sequence[RunSpec], folder: Path, jobs: int, launcher: Launcher) -> list[Failure]:
    """Do the runs of a study with a table of how far they are.

    Args:
        specs: The runs.
        folder: Of the results.
        jobs: Runs at a time.
        launcher: Starts them here or on a cluster.

    Returns:
        The runs that failed.
    """
    running: dict[str, RunSpec] = {}
    over: dict[str, str] = {}  # how each run that is over came out
    shown = 0.0

    def left() -> str:
        waiting = [spec for spec in specs if str(spec.folder(folder)) not in {*over, *running}]
        return _duration(remaining_seconds(waiting, list(running.values()), specs, folder, jobs))

    def latest(spec: RunSpec) -> tuple[str, str]:
        step, means = read_progress(spec, folder)
        return f"{step:,}", ", ".join(f"{name_of(spec.algorithm, mode)} {mean:.1f}" for mode, mean in means.items())

    def table() -> Table:
        counts = ", ".join(f"{count} {kind}" for kind, count in Counter(over.values()).items())
        lines = Table(title=f"{len(over)} of {len(specs)} runs over ({counts or 'none yet'}); about {left()} to go")
        for column in ("environment", "algorithm", "seed", "steps", "latest returns"):
            lines.add_column(column)
        for spec in running.values():
            step, returns = latest(spec)
            lines.add_row(spec.env, spec.algorithm, str(spec.seed), f"{step} / {spec.n_timesteps:,}", returns)
        return lines

    with Live(table(), console=console, auto_refresh=False, transient=True) as live:

        def on_event(event: Event) -> None:
            name = str(event.folder)
            if event.kind == "started":
                running[name] = event.spec
            else:
                running.pop(name, None)
                over[name] = event.kind
            what = f"{event.kind:>9}  {event.spec.env}  {event.spec.algorithm} seed {event.spec.seed}"
            if event.kind == "finished":
                step, returns = latest(event.spec)
                what += f"  step {step}  {returns}  {len(over)} of {len(specs)} runs over, about {left()} to go"
            live.console.print(what, highlight=False, soft_wrap=True)

        def on_wait() -> None:
            nonlocal shown
            if console.is_terminal and time.monotonic() - shown > 1.0:
                shown = time.monotonic()
                live.update(table(), refresh=True)

        return run_all(specs, folder, jobs, on_event, on_wait, launcher)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
