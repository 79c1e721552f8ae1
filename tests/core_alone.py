"""What is there without any extra: a script, run by `make dist` where the wheel alone is installed, and by a test.

``python tests/core_alone.py STEPS``
"""

import contextlib
import io
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from stable_baselines3.common.env_util import make_vec_env

import jepa_agent
from jepa_agent import JEPA
from jepa_agent.callbacks import LatentCallback, PeriodicCheckpoint, ResumableEvalCallback
from jepa_agent.cli import main as command
from jepa_agent.extras import MissingExtraError


def learn(steps: int, folder: Path) -> None:
    """Learn, act in both modes, save, load, and go on from a checkpoint."""
    model = JEPA("MlpPolicy", "CartPole-v1", seed=0, learning_starts=steps // 2, tensorboard_log=str(folder))
    evaluation = ResumableEvalCallback(make_vec_env("CartPole-v1"), 0, str(folder), steps, 1, mode="actor")
    model.learn(steps, callback=[LatentCallback(), PeriodicCheckpoint(folder / "run", steps // 2), evaluation])
    assert np.isfinite(evaluation.last_mean_reward)
    assert list(folder.rglob("events.out.tfevents*"))
    model.save(folder / "agent")
    loaded = JEPA.load(folder / "agent")
    obs = model.get_env().reset()
    for mode in ("actor", "planner"):
        actions = []
        for one in (model, loaded):
            one.set_mode(mode)
            one.set_random_seed(0)
            actions.append(one.predict(obs, deterministic=True)[0])
        np.testing.assert_array_equal(*actions)
    resumed = JEPA.resume(folder / "run", model.get_env())
    before = resumed.num_timesteps
    assert resumed.learn(8, reset_num_timesteps=False).num_timesteps > before >= steps // 2
    told(f"{steps} steps learned, both modes acted, saved, loaded and resumed")
    refused("cli", lambda: model.learn(1, progress_bar=True))


def refused(extra: str, work) -> None:
    """See that work is refused in one line that names the extra."""
    try:
        work()
    except MissingExtraError as error:
        line = str(error)
    else:
        raise AssertionError(f"the extra {extra} is not missed")
    assert re.fullmatch(rf"this needs \w+: pip install 'jepa_agent\[{extra}\]'", line), line
    told(line)


def answered(expected: int, *argv: str) -> None:
    """See that a command ends with a code, in one line of errors if it is none that works."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command(argv)
    assert code == expected, (argv, code, err.getvalue())
    first, *more = (err if code else out).getvalue().splitlines()
    if code:
        assert "pip install 'jepa_agent[cli]'" in first, first
        assert not more, more
    told(f"{' '.join(['jepa-agent', *argv])}\n  {first}")


def told(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    told(f"jepa_agent {jepa_agent.__version__} of {Path(jepa_agent.__file__).parent}")
    with TemporaryDirectory() as place:
        learn(int(sys.argv[1]), Path(place))
    refused("compare", lambda: __import__("jepa_agent.experiments.figures"))
    refused("compare", lambda: __import__("jepa_agent.experiments.document"))
    refused("ray", lambda: __import__("jepa_agent.experiments.ray_launcher"))
    refused("zoo", lambda: __import__("jepa_agent.zoo").zoo.register())
    for words in (["--version"], ["--help"]):
        answered(0, *words)
    for words in (
        ["train", "--env", "CartPole-v1"],
        ["evaluate", "runs"],
        ["compare", "--help"],
        ["doctor"],
        ["completion", "bash"],
    ):
        answered(2, *words)
