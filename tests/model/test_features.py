import numpy as np
import pytest
import torch
from gymnasium import spaces

from jepa_agent.model.features import FeatureEncoder, ImageFeatures, PartFeatures, shifted

PICTURE = spaces.Box(0, 255, (64, 64, 3), np.uint8)


def test_a_shift_moves_a_picture_and_repeats_its_edge():
    image = torch.arange(36.0).reshape(1, 1, 6, 6).expand(400, 1, 6, 6)
    torch.manual_seed(0)
    moved = shifted(image, 2)
    seen = {tuple(row.flatten().tolist()) for row in moved}
    assert len(seen) == 25
    padded = torch.nn.functional.pad(image[:1], (2, 2, 2, 2), mode="replicate")[0, 0]
    assert seen == {tuple(padded[y : y + 6, x : x + 6].flatten().tolist()) for y in range(5) for x in range(5)}


def test_pictures_are_shifted_while_training_only():
    torch.manual_seed(0)
    features = ImageFeatures(PICTURE)
    image = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    assert not torch.equal(features.train()(image), features(image))
    assert torch.equal(features.eval()(image), features(image))


def test_channels_may_come_first_or_last():
    torch.manual_seed(0)
    last = ImageFeatures(PICTURE).eval()
    torch.manual_seed(0)
    first = ImageFeatures(spaces.Box(0, 255, (3, 64, 64), np.uint8)).eval()
    image = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    torch.testing.assert_close(first(image.permute(0, 3, 1, 2)), last(image))


@pytest.mark.parametrize("sides", [(64, 64), (84, 84), (210, 160), (7, 5), (33, 17)])
def test_every_pixel_reaches_the_features(sides):
    torch.manual_seed(0)
    features = ImageFeatures(spaces.Box(0, 255, (1, *sides), np.uint8)).eval()
    image = torch.rand(1, 1, *sides).requires_grad_(True)
    features(image).square().sum().backward()
    assert (image.grad != 0).float().mean() > 0.99
    assert features.features_dim <= 2000


def test_parts_of_an_observation_all_count_and_numbers_are_standardised():
    space = spaces.Dict({"n": spaces.Box(-np.inf, np.inf, (2,)), "p": PICTURE, "k": spaces.Discrete(3)})
    features = PartFeatures(space).eval()
    encoder = FeatureEncoder(features, 8, [16])
    obs = {
        "n": torch.randn(4, 5, 2) * 100 + 7,
        "p": torch.randint(0, 256, (4, 5, 64, 64, 3), dtype=torch.uint8),
        "k": torch.randint(3, (4, 5)),
    }
    flat = {key: value.flatten(0, 1) for key, value in obs.items()}
    encoder.observe(flat)
    norm = features.norm(features._vector(flat))
    torch.testing.assert_close(norm.std(0, unbiased=False), torch.ones(5), atol=1e-2, rtol=0)
    z = encoder(obs)
    assert z.shape == (4, 5, 8)
    torch.testing.assert_close(encoder({key: value[2, 3] for key, value in obs.items()}), z[2, 3], atol=1e-4, rtol=1e-4)
    for key in obs:
        other = {**obs, key: torch.zeros_like(obs[key])}
        assert not torch.allclose(encoder(other), z, atol=1e-3), key


def test_bytes_are_brought_to_between_minus_a_half_and_a_half():
    features = ImageFeatures(PICTURE)
    assert features._prepared(torch.tensor([0.0, 127.5, 255.0])).tolist() == pytest.approx([-0.5, 0.0, 0.5])
