"""What help, docstrings and the README say of values is so."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from jepa_agent import JEPA, JEPAPolicy
from jepa_agent.cli import evaluate, main

ROOT = Path(__file__).parent.parent
README = " ".join((ROOT / "README.md").read_text().split())


class Slow(gym.Env):
    """Takes ten milliseconds of the processor's time for a step."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Discrete(2)
    spec = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        began = evaluate.time.process_time()
        while evaluate.time.process_time() - began < 0.01:
            pass
        self.steps += 1
        return np.zeros(2, np.float32), 1.0, self.steps == 5, False, {}


def test_the_weight_decay_that_is_told_is_the_optimizers(small):
    decay = small("CartPole-v1").policy.optimizer.defaults["weight_decay"]
    with redirect_stdout(io.StringIO()) as told:
        main(["train", "--help-all"])
    for text in (" ".join(told.getvalue().split()), JEPA.__doc__, JEPAPolicy.__doc__):
        said = re.search(r"weight[_ ]decay (?:of|is) (\d\.\d+)", " ".join(text.split()))
        assert said is not None
        assert float(said[1]) == decay


def test_going_on_is_held_against_the_run_that_saved(small, tmp_path):
    """The README says so: saving ends the episodes under way, so that a run which never saved takes another course."""
    assert "equals, to the last bit, the run that saved it and went on" in README

    def weights(saves):
        model = small("CartPole-v1", mode="actor", batch_size=8).learn(30)
        if saves:
            model.save_checkpoint(tmp_path / "run")
        model.learn(20, reset_num_timesteps=False)
        return torch.nn.utils.parameters_to_vector(model.policy.parameters())

    saved = weights(True)
    again = JEPA.resume(tmp_path / "run", "CartPole-v1").learn(20, reset_num_timesteps=False)
    assert torch.equal(torch.nn.utils.parameters_to_vector(again.policy.parameters()), saved)
    assert not torch.equal(weights(False), saved)


@pytest.mark.parametrize(("deterministic", "disturbs"), [(True, False), (False, True)])
def test_deterministic_evaluations_change_nothing_and_others_advance_the_policys_draws(small, deterministic, disturbs):
    model = small("Pendulum-v1", mode="planner", learning_starts=1_000).learn(5)
    before, process = model.policy.generator.get_state(), torch.get_rng_state()
    model.predict(np.zeros(3, np.float32), deterministic=deterministic)
    assert torch.equal(model.policy.generator.get_state(), before) != disturbs
    assert torch.equal(torch.get_rng_state(), process)


def test_what_deciding_takes_is_told_without_the_environments_own(small):
    model = small(Slow(), learning_starts=1_000, mode="actor")
    [row] = evaluate.evaluation(model, Slow(), ["actor"], 2, 0)
    assert 0.0 < row["ms to decide"] < 10.0


def test_what_auto_learns_from_is_told_as_promised_and_not_as_realised():
    told = " ".join((ROOT / "docs" / "concepts" / "mode_switch.md").read_text().split())
    assert "It learns from what plans *promised*" in told
