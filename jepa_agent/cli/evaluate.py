"""``jepa-agent evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jsonargparse.typing import PositiveInt

from jepa_agent.cli.common import (
    SEED,
    Parser,
    check_device,
    check_mode,
    choose_planner,
    console,
    env_of,
    evaluation_table,
    find_model,
    load_model,
    make_env,
)
from jepa_agent.config import PlannerConfig


def build_parser() -> Parser:
    """The verb's flags."""
    parser = Parser(
        "evaluate", "Measure a trained agent in each mode.", "jepa-agent evaluate runs/jepa/CartPole-v1_1 --episodes 20"
    )
    parser.add_argument("model", type=str, help="run folder or model file")
    parser.add_argument("--modes", type=str, nargs="+", default=["actor", "planner"], help="e.g. actor planner auto")
    parser.add_argument("--episodes", type=PositiveInt, default=10, help="episodes per mode")
    parser.add_argument("--seed", type=SEED, default=1_000, help="seed of the first episode, equal for all modes")
    parser.add_argument("--env", type=str, help="another environment than the one trained on")
    parser.add_argument("--env-kwargs", type=dict[str, Any], help="arguments of the environment, key:value ...")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda or auto")
    parser.add_argument("--planner", type=PlannerConfig, default=PlannerConfig())
    return parser


def run(argv: Sequence[str]) -> int:
    """Load, evaluate in each mode on the same episodes, print the table."""
    options = build_parser().parse(argv)
    path = find_model(options.model)
    check_mode(*options.modes)
    check_device(options.device)
    env = make_env(*env_of(path, options.env, options.env_kwargs))
    model = load_model(path, env, options.device)
    choose_planner(model, options.planner)
    console.print(evaluation_table(model, env, options.modes, options.episodes, options.seed))
    return 0
