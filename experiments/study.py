"""Studies in YAML: which algorithms run in which environments, for how long, and which return counts as solved."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from jepa_agent.config import did_you_mean
from jepa_agent.experiments.records import AGENT, RunSpec, is_agent
from jepa_agent.extras import needs
from jepa_agent.persistence.plain_data import check_import
from jepa_agent.persistence.yaml_file import read_yaml

with needs("compare"):
    from jsonargparse import ArgumentError, ArgumentParser

T = TypeVar("T")
_MOST_SEEDS = 1000
_EXPECTED = {  # how a file says what Python calls so
    "int": "a whole number, as 1000",
    "float": "a number, as 0.5",
    "bool": "true or false",
    "str": "a text",
    "tuple": "a list, as [actor, planner]",
    "dict": "settings by name, as {gravity: 5.0}",
}


@dataclass(frozen=True)
class Task:
    """How an environment is used in a study.

    Args:
        threshold: Mean return of an evaluation that counts as solved.
        n_timesteps: Environment steps of JEPA's runs.
        random: Mean return of a random policy, a normalised score of 0 (the threshold is 1); measured by default.
        baselines: Algorithms to compare with; JEPA+name is JEPA with the overrides of that name.
        baseline_timesteps: Environment steps of a baseline's runs; as many as JEPA's by default.
        seeds: Runs of each algorithm, with seeds 0, 1, ...
        baseline_seeds: Runs of each baseline; as many as JEPA's by default.
        eval_freq: Environment steps between evaluations of JEPA.
        baseline_eval_freq: The same for baselines; as JEPA's by default.
        env_kwargs: Arguments of the environment.

    Raises:
        ValueError: ``seeds`` is out of range, or ``random`` is not below the threshold.
    """

    threshold: float
    n_timesteps: int
    random: float | None = None
    baselines: tuple[str, ...] = ()
    baseline_timesteps: int | None = None
    seeds: int = 5
    baseline_seeds: int | None = None
    eval_freq: int = 500
    baseline_eval_freq: int | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The dataclass is frozen, and YAML gives a list.
        object.__setattr__(self, "baselines", tuple(self.baselines))
        for name in ("seeds", "baseline_seeds"):
            count = getattr(self, name)
            if count is not None and not 1 <= count <= _MOST_SEEDS:
                raise ValueError(f"{name} must lie between 1 and {_MOST_SEEDS}, got {count}")
        if self.random is not None and self.random >= self.threshold:
            raise ValueError(f"random {self.random:g} must lie below the threshold {self.threshold:g}")


@dataclass(frozen=True)
class Study:
    """A comparison study; it decides all runs.

    Args:
        tasks: Tasks by Gymnasium id, or module:EnvId.
        modes: Modes in which JEPA is evaluated.
        n_eval_episodes: Episodes per evaluation and mode, the same for all.
        stop_early: Whether a run of JEPA ends once every mode has reached the threshold.
        baselines_stop_early: The same for baselines; as JEPA's by default.
        overrides: Constructor arguments by algorithm, in place of defaults and tuned settings.

    Raises:
        ValueError: Overrides of a variant are missing, overrides belong to no algorithm of the study, or a run is
            impossible.
    """

    tasks: dict[str, Task]
    modes: tuple[str, ...] = ("actor", "planner")
    n_eval_episodes: int = 10
    stop_early: bool = False
    baselines_stop_early: bool | None = None
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "modes", tuple(self.modes))
        used = {AGENT, *(name for task in self.tasks.values() for name in task.baselines)}
        idle = sorted(set(self.overrides) - used)
        unsaid = sorted(name for name in used - set(self.overrides) if name != AGENT and is_agent(name))
        if unsaid:
            raise ValueError(f"{', '.join(unsaid)}: say under overrides in what it differs from {AGENT}")
        if idle:
            raise ValueError(f"overrides for {', '.join(idle)}, which no task uses{did_you_mean(idle[0], sorted(used))}")
        self.specs()  # raises ValueError for impossible settings of a run

    def specs(self) -> list[RunSpec]:
        """Return the runs, seed by seed within a task, so that an interrupted study has results on every algorithm."""
        return [
            self._spec(env, task, algorithm, seed)
            for env, task in self.tasks.items()
            for seed in range(max(task.seeds, task.baseline_seeds or 0))
            for algorithm in (AGENT, *task.baselines)
            if seed < (task.seeds if is_agent(algorithm) else task.baseline_seeds or task.seeds)
        ]

    def thresholds(self) -> dict[str, float]:
        """Return the mean return that counts as solved, by environment."""
        return {env: task.threshold for env, task in self.tasks.items()}

    def _spec(self, env: str, task: Task, algorithm: str, seed: int) -> RunSpec:
        """Return the spec of a run."""
        own = is_agent(algorithm)
        stops = self.stop_early if own or self.baselines_stop_early is None else self.baselines_stop_early
        return RunSpec(
            algorithm=algorithm,
            env=env,
            seed=seed,
            n_timesteps=task.n_timesteps if own else task.baseline_timesteps or task.n_timesteps,
            eval_freq=task.eval_freq if own else task.baseline_eval_freq or task.eval_freq,
            n_eval_episodes=self.n_eval_episodes,
            modes=self.modes,
            env_kwargs=task.env_kwargs,
            overrides=self.overrides.get(algorithm, {}),
            stop_at=task.threshold if stops else None,
        )


def read_study(path: Path, envs: Sequence[str] = (), baselines: Sequence[str] = ()) -> Study:
    """Read a study from a YAML file, whose keys are the fields of `Study` and `Task`.

    A file alone cannot cause code of the user's to be imported: module:EnvId needs an installed package or an entry in
    ``envs``, and module:Class an entry in ``baselines``.

    Args:
        path: YAML file.
        envs: Environments that the file may name as module:EnvId.
        baselines: Algorithms that the file may name as module:Class.

    Raises:
        ValueError: The file is no valid study, or names something to be imported; the message names the key.
    """
    study = read_as(Study, path, envs)
    for name in {name for task in study.tasks.values() for name in task.baselines if ":" in name} - set(baselines):
        raise ValueError(f"{path} names {name!r}, a class to be imported: name it yourself, --baselines {name}")
    return study


def read_as(kind: type[T], path: Path, envs: Sequence[str] = ()) -> T:
    """Read a YAML file with ``tasks`` as a dataclass.

    Args:
        kind: Dataclass whose fields are the keys of the file.
        path: YAML file.
        envs: Environments that the file may name as module:EnvId.

    Raises:
        ValueError: The file does not fit the dataclass, or names a module to be imported that is not installed.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or not content.get("tasks"):
        raise ValueError(f"{path} is no study: expected a mapping with tasks, each an environment's id and its settings")
    for env in content["tasks"] if isinstance(content["tasks"], dict) else ():
        if env not in envs:
            check_import(str(env), str(path), "--env")
    _check_keys(kind, content, str(path))
    # jsonargparse checks types by the annotations.
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    try:
        return kind(**parser.instantiate(parser.parse_object(content)))
    except (ArgumentError, ValueError, TypeError) as error:
        # Its message is for Python users; key and reason are what a user of YAML can act on.
        keys = re.findall(r'Parser key "([^"]+)"', str(error))
        lines = [line for line in str(error).splitlines() if not re.search("Parser key|class.path|Subclass types", line)]
        told = "; ".join(line.strip() for line in lines)
        for name, expected in _EXPECTED.items():
            told = re.sub(rf"Expected an? <class '{name}'>\. Got value: (.*)", rf"expected {expected}, got \1", told)
        raise ValueError(": ".join([str(path), *keys, told])) from error


def _check_keys(kind: type, content: dict[str, Any], where: str) -> None:
    """`ValueError` for a key that is no field of a dataclass, with near names, or for one that is missing, also in tasks.

    Args:
        kind: The dataclass.
        content: What was read.
        where: It was read.
    """
    known = fields(kind)
    names = [one.name for one in known]
    for key in content:
        if key not in names:
            hint = did_you_mean(key, names) or f"; there are {', '.join(names)}"
            raise ValueError(f"{where}: there is no setting {key!r}{hint}")
    for one in known:
        if one.name not in content and one.default is MISSING and one.default_factory is MISSING:
            raise ValueError(f"{where}: {one.name} is missing")
    tasks = content.get("tasks")
    if not isinstance(tasks, dict):
        return
    _, task_kind = get_args(get_type_hints(kind)["tasks"])
    for env, task in tasks.items():
        if not isinstance(task, dict):
            raise ValueError(
                f"{where}: tasks: {env}: expected settings, as {{threshold: 475, n_timesteps: 5000}}, got {task!r}"
            )
        _check_keys(task_kind, task, f"{where}: tasks: {env}")
