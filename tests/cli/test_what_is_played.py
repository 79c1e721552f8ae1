"""What evaluate, enjoy, explain and plan-bench play: the environment as it was trained on, and nothing that is no number."""

import gymnasium as gym
import numpy as np
import pytest
import yaml

from jepa_agent.cli import main, trained
from jepa_agent.cli.common import UsageError


class Pays(gym.Env):
    """Ten steps, each worth ``pay``; what is ``bad`` is not finite: the first observation, another, the last, a reward."""

    observation_space = gym.spaces.Box(-9.0, 9.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(self, pay=1.0, bad="", render_mode=None):
        self.pay, self.bad, self.render_mode, self.steps = pay, bad, render_mode, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._seen(self.bad == "first"), {}

    def step(self, action):
        self.steps += 1
        reward = np.nan if self.bad == "reward" and self.steps == 4 else self.pay
        bad = (self.bad, self.steps) in (("observation", 4), ("last", 10))
        return self._seen(bad), reward, self.steps == 10, False, {}

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)

    def _seen(self, bad):
        return np.array([self.steps % 5, np.nan if bad else 1.0], np.float32)


@pytest.fixture(scope="module", autouse=True)
def registered():
    gym.register("Pays-v0", Pays)
    gym.register("PaysToo-v0", Pays)
    yield
    for name in ("Pays-v0", "PaysToo-v0"):
        del gym.registry[name]


@pytest.fixture
def run_folder(small, tmp_path):
    model = small(gym.make("Pays-v0"), mode="actor", learning_starts=100).learn(11)
    model.save(tmp_path / "run" / "last_model.zip")
    recorded = {"env": "Pays-v0", "env_kwargs": {"pay": 7.0}}
    (tmp_path / "run" / "config.yml").write_text(yaml.safe_dump(recorded))
    return tmp_path / "run"


@pytest.mark.parametrize("bad", ["first", "observation", "last", "reward"])
@pytest.mark.parametrize(
    "verb", [["evaluate", "--modes", "actor"], ["explain"], ["enjoy", "--mode", "actor"], ["plan-bench", "--quick"]]
)
def test_what_is_not_finite_is_told_in_a_line_and_nothing_is_shown_of_it(run_folder, capsys, verb, bad, monkeypatch):
    monkeypatch.chdir(run_folder)
    assert main([verb[0], str(run_folder), *verb[1:], "--env-kwargs", f"bad:{bad}"]) == 2
    said = capsys.readouterr()
    assert "nan" not in said.out
    assert "not finite" in said.err
    assert len(said.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("env", "env_kwargs", "pay"),
    [
        (None, None, 7.0),
        (f"{__name__}:Pays-v0", None, 7.0),  # the same, by its module
        ("Pays-v0", {"pay": 3.0}, 3.0),
        (None, {"pay": 3.0}, 3.0),
        ("PaysToo-v0", None, 1.0),  # what another takes is not known
    ],
)
def test_the_same_environment_is_made_with_the_arguments_that_training_had(run_folder, env, env_kwargs, pay):
    agent = trained.load_as_trained(str(run_folder), env, env_kwargs, "cpu")
    assert agent.env.unwrapped.pay == pay


def test_a_file_that_tells_nothing_is_no_hindrance_where_the_environment_is_named(run_folder):
    (run_folder / "config.yml").write_text("{no: [yaml")
    assert trained.load_as_trained(str(run_folder), "Pays-v0", None, "cpu").env_kwargs == {}
    with pytest.raises(UsageError, match="is no YAML"):
        trained.load_as_trained(str(run_folder), None, None, "cpu")
