"""``jepa-agent envs``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import gymnasium as gym

from jepa_agent.cli.common import Parser, UsageError, make_env
from jepa_agent.cli.tables import add_format, print_rows
from jepa_agent.spaces import check_spaces


def build_parser() -> Parser:
    """The verb's flags."""
    parser = Parser(
        "envs", "List installed environments, their spaces, and whether JEPA takes them.", "jepa-agent envs cart"
    )
    parser.add_argument("filter", type=str, default="", nargs="?", help="part of the name")
    add_format(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Make every environment whose name fits and print what it is."""
    options = build_parser().parse(argv)
    names = sorted(name for name in newest() if options.filter.lower() in name.lower())
    if not names:
        raise UsageError(f"no environment has {options.filter!r} in its name")
    columns = ("environment", "observations", "actions", "supported")
    print_rows(options.format, [dict(zip(columns, (name, *describe(name)), strict=True)) for name in names])
    return 0


def newest() -> list[str]:
    """Ids of the newest version of every registered environment."""
    best: dict[str, gym.envs.registration.EnvSpec] = {}
    for spec in gym.registry.values():
        key = f"{spec.namespace or ''}/{spec.name}"
        if key not in best or (spec.version or 0) > (best[key].version or 0):
            best[key] = spec
    return [spec.id for spec in best.values()]


def describe(name: str) -> tuple[str, str, str]:
    """Observation space, action space, and a verdict."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            env = make_env(name)
        except UsageError as error:
            return "-", "-", str(error).split(": ", 1)[-1]
    spaces_ = _short(env.observation_space), _short(env.action_space)
    try:
        check_spaces(env.observation_space, env.action_space)
        return *spaces_, "yes"
    except ValueError as error:
        return *spaces_, "no: " + str(error).split("is not supported: ")[-1].split("; ")[-1]
    finally:
        env.close()


def _short(space: gym.Space) -> str:
    return f"Box{space.shape}" if isinstance(space, gym.spaces.Box) else str(space)
