"""RL Baselines3 Zoo with ``jepa`` among its algorithms: ``python -m jepa_agent.zoo train --env CartPole-v1``."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from jepa_agent.config import did_you_mean
from jepa_agent.extras import MissingExtraError, needs

SCRIPTS = {
    "train": "train an agent, or continue one (-i)",
    "enjoy": "watch a trained agent, or measure it (--no-render)",
    "record_video": "film a trained agent",
}
HYPERPARAMETERS = Path(__file__).with_name("jepa.yml")

_HELP = (
    "usage: python -m jepa_agent.zoo <script> [options of rl_zoo3]\n\n"
    + "\n".join(f"  {script:<14}{what}" for script, what in SCRIPTS.items())
    + "\n\n--algo is jepa, its hyperparameters are "
    + f"{HYPERPARAMETERS}, and agents are looked for in logs/, unless given.\n"
    + "For a start: python -m jepa_agent.zoo train --env CartPole-v1 --eval-freq 500 -P"
)


def register() -> None:
    """Register ``jepa`` with rl_zoo3, for training and for its hyperparameter search.

    Raises:
        MissingExtraError: rl_zoo3 or one of its dependencies is not installed.
    """
    from stable_baselines3.common.utils import LinearSchedule

    from jepa_agent.agent import JEPA

    with needs("zoo"):  # here because it takes seconds to import
        from rl_zoo3 import ALGOS, exp_manager
        from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

        from jepa_agent.zoo.search import sample_params

    ALGOS["jepa"] = JEPA
    HYPERPARAMS_SAMPLER["jepa"] = sample_params
    HYPERPARAMS_CONVERTER["jepa"] = dict
    # "lin_1e-3" becomes SB3's schedule instead of rl_zoo3's, which a checkpoint without pickle cannot store.
    exp_manager.SimpleLinearSchedule = lambda start: LinearSchedule(float(start), 0.0, 1.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of rl_zoo3's scripts.

    Args:
        argv: The script's name and its options; the command line if None.

    Returns:
        The exit code: 0, or 2 if the call cannot be run, for which one line is printed to standard error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP)
        return 0
    script, rest = arguments[0], arguments[1:]
    if script not in SCRIPTS:
        return _refuse(f"unknown script {script!r}{did_you_mean(script, SCRIPTS)}")
    try:
        register()
    except MissingExtraError as error:
        return _refuse(str(error))
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # networks of this size gain nothing from more threads
    # rl_zoo3's scripts read `sys.argv` and have no entry point that takes arguments.
    sys.argv = [f"python -m jepa_agent.zoo {script}", *_defaults(script, rest), *rest]
    runpy.run_module(f"rl_zoo3.{script}", run_name="__main__")
    return 0


def _defaults(script: str, rest: Sequence[str]) -> list[str]:
    """Return the options that precede the user's own, which override them by coming later."""
    if script != "train":
        return ["--algo", "jepa", "-f", "logs"]  # the folder that train writes agents to
    # Another algorithm needs its own hyperparameters, so the file is only given for jepa.
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--algo", default="jepa")
    ours = parser.parse_known_args(rest)[0].algo == "jepa"
    return ["--algo", "jepa", *(["--conf-file", str(HYPERPARAMETERS)] if ours else [])]


def _refuse(why: str) -> int:
    """Print an error to standard error and return the exit code 2."""
    print(f"jepa_agent.zoo: error: {why}", file=sys.stderr)
    return 2
