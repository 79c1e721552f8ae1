import json

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.utils import LinearSchedule

from jepa_agent.persistence.codec import decode, decode_space, encode, encode_space

NESTED = spaces.Dict(
    {
        "z_first": spaces.Box(-1, 1, (3,)),
        "a_second": spaces.Dict({"image": spaces.Box(0, 255, (2, 4, 4), np.uint8), "goal": spaces.Discrete(4)}),
    }
)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(np.array([-np.inf, 0.0], np.float32), np.array([1.5, np.inf], np.float32)),
        spaces.Box(0, 255, (64, 64, 3), np.uint8),
        spaces.Box(-1.0, 1.0, (), np.float64),
        spaces.Box(-(2**40), 2**40, (2,), np.int64),
        spaces.Discrete(3, start=-1),
        spaces.MultiDiscrete([2, 3], start=[1, -1]),
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.MultiBinary(4),
        spaces.MultiBinary((2, 3)),
        NESTED,
        spaces.Sequence(NESTED, stack=True),
        spaces.Tuple([spaces.Discrete(2), NESTED]),
        spaces.Text(5, charset="ab"),
    ],
)
def test_spaces_survive(space):
    again = decode_space(json.loads(json.dumps(encode_space(space))))
    assert again == space
    if isinstance(space, spaces.Dict):
        assert list(again) == list(space)


def test_an_images_bounds_take_no_room():
    assert len(json.dumps(encode_space(spaces.Box(0, 255, (64, 64, 3), np.uint8)))) < 100


def test_a_space_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="cannot be saved"):
        encode_space(spaces.Graph(spaces.Discrete(2), None))
    with pytest.raises(ValueError, match="at most"):
        decode_space({"kind": "Box", "low": 0, "high": 1, "shape": [10**6, 10**6], "dtype": "uint8"})
    with pytest.raises(ValueError, match="kind"):
        decode_space({"kind": "Popen"})


@pytest.mark.parametrize("cls", [torch.nn.ReLU, torch.optim.SGD, NatureCNN])
def test_classes_of_torch_and_sb3_survive(cls):
    assert decode(encode(cls, ()), (), "x") is cls


@pytest.mark.parametrize(
    "name",
    ["os.system", "torch.nn.os", "torch.nn.functional", "builtins.eval", "stable_baselines3.common.torch_layers.spaces"],
)
def test_nothing_but_modules_and_optimizers_is_looked_up_by_name(name):
    with pytest.raises(ValueError, match="not a module"):
        decode({"class": name}, (), "x")


def test_sb3s_noise_and_schedules_survive():
    through = lambda value: decode(json.loads(json.dumps(encode(value, ()))), (), "x")  # noqa: E731
    assert through(LinearSchedule(1e-3, 1e-4, 0.5))(0.75) == LinearSchedule(1e-3, 1e-4, 0.5)(0.75)
    noise = VectorizedActionNoise(OrnsteinUhlenbeckActionNoise(np.zeros(2), np.full(2, 0.3), theta=0.2), 3)
    again = through(noise)
    np.random.seed(0)
    expected = noise()
    np.random.seed(0)
    np.testing.assert_array_equal(again(), expected)
    assert through(NormalActionNoise(np.zeros(1), np.ones(1))).__class__ is NormalActionNoise
