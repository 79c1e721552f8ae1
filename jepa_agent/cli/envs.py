"""``jepa-agent envs``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import gymnasium as gym

from jepa_agent.cli.common import UsageError, make_env, newest_envs
from jepa_agent.cli.flags import parser_of
from jepa_agent.cli.tables import print_rows
from jepa_agent.config import did_you_mean
from jepa_agent.spaces import check_spaces


def run(argv: Sequence[str]) -> int:
    """Make every environment whose name fits and print what it is."""
    options = parser_of("envs").parse(argv)
    names = sorted(name for name in newest_envs() if options.filter.lower() in name.lower())
    if not names:
        raise UsageError(f"no environment has {options.filter!r} in its name{did_you_mean(options.filter, newest_envs())}")
    columns = ("environment", "observations", "actions", "supported")
    print_rows(options.format, [dict(zip(columns, (name, *describe(name)), strict=True)) for name in names])
    return 0


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
