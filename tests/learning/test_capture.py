"""What a captured update reads; capturing itself needs a GPU, see ``test_cuda.py``."""

import pytest
import torch
from gymnasium import spaces

from jepa_agent.envs.probes import ConstantReward
from jepa_agent.learning.capture import HeldWindows
from jepa_agent.model.actor import CategoricalActor
from tests.conftest import SMALL


def test_held_windows_are_indexed_as_those_of_the_buffer_are():
    held = HeldWindows({"a": torch.arange(12.0).view(2, 3, 2), "b": torch.arange(6).view(2, 3)})
    assert len(held) == 2
    assert held.device.type == "cpu"
    assert held[:, 1:2]["a"].tolist() == [[[2.0, 3.0]], [[8.0, 9.0]]]
    assert held[torch.tensor([[1]]), torch.tensor([[2]])]["b"].tolist() == [[5]]
    assert HeldWindows(torch.arange(6).view(2, 3))[:, 0].tolist() == [0, 3]


@pytest.mark.parametrize(("choices", "drawn"), [([200], False), ([3, 4], False), ([30, 40, 20], True)])
def test_only_several_wide_choices_are_compared_at_random(choices, drawn):
    actor = CategoricalActor(SMALL["latent_dim"], choices, [8])
    assert actor.compares_at_random == drawn


def test_an_update_that_cannot_be_captured_is_refused_when_the_agent_is_made(small):
    env = ConstantReward()
    env.action_space = spaces.MultiDiscrete([30, 40, 20])
    with pytest.raises(ValueError, match=r"capture: what is compared of MultiDiscrete\(\[30 40 20\]\) is drawn anew"):
        small(env, capture=True)
