"""``jepa-agent explain``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jepa_agent.cli.common import (
    SEED,
    Parser,
    bounded,
    check_device,
    check_mode,
    choose_planner,
    env_of,
    find_model,
    load_model,
    make_env,
    say,
)
from jepa_agent.config import PlannerConfig
from jepa_agent.experiments.explain import explain
from jepa_agent.experiments.planner_figures import plot_explanation


def build_parser() -> Parser:
    """The verb's flags."""
    parser = Parser(
        "explain",
        "Draw one episode: who acted, predicted and realised cost, surprise, and imagined against observed latents.",
        "jepa-agent explain runs/jepa/Pendulum-v1_1 --mode auto --output explained.png",
    )
    parser.add_argument("model", type=str, help="run folder or model file")
    parser.add_argument("--mode", type=str, default="auto", help="who acts: auto, planner, actor, every_4, ...")
    parser.add_argument("--seed", type=SEED, default=1_000, help="seed of the episode")
    parser.add_argument("--output", type=str, default="explained.png", help="the picture; its suffix decides the format")
    parser.add_argument("--env", type=str, help="another environment than the one trained on")
    parser.add_argument("--env-kwargs", type=dict[str, Any], help="arguments of the environment, key:value ...")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda or auto")
    parser.add_argument("--planner", type=PlannerConfig, default=PlannerConfig())
    return parser


def run(argv: Sequence[str]) -> int:
    """Play the episode, draw it, say where."""
    options = build_parser().parse(argv)
    path = find_model(options.model)
    check_mode(options.mode)
    check_device(options.device)
    env = bounded(make_env(*env_of(path, options.env, options.env_kwargs)))
    model = load_model(path, env, options.device)
    choose_planner(model, options.planner)
    told = explain(model, env, options.mode, options.seed)
    output = Path(options.output)
    plot_explanation(told, output)
    say(f"saved to {output}: return {-told.cost.sum():.1f} in {len(told.cost)} steps")
    return 0
