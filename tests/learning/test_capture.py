"""What a captured update reads; capturing itself needs a GPU, see ``test_cuda.py``."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from jepa_agent.learning.capture import HeldWindows
from jepa_agent.model.actor import CategoricalActor
from tests.conftest import SMALL

BOX = spaces.Box(-1, 1, (3,), np.float32)


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
