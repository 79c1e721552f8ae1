import torch

from jepa_agent.model.encoders import random_latents
from jepa_agent.objectives.readout import Readout


def pairs(count=2_000):
    z = random_latents(count, 16, torch.Generator().manual_seed(0), torch.device("cpu"))
    return z, torch.stack([z[:, 0] + 2.0, z[:, 1] * z[:, 2], torch.full((count,), 7.0)], dim=1)


def test_a_readout_finds_linear_products_and_constants_on_pairs_it_did_not_see():
    z, features = pairs()
    readout = Readout(z[:1_500], features[:1_500])
    missed = (readout(z[1_500:]) - features[1_500:]).square().mean(0)
    assert missed[0] < 1e-4
    assert missed[1] < 0.2 * features[:, 1].var()
    assert missed[2] < 1e-4


def test_its_error_is_told_on_pairs_kept_from_the_fit():
    z, features = pairs()
    noise = torch.randn(len(z), 1, generator=torch.Generator().manual_seed(1))
    readout = Readout(z, torch.cat([features, noise], dim=1))
    assert readout.error[0] < 0.01
    assert readout.error[3] > 0.9


def test_it_reads_any_number_of_axes_and_is_the_same_every_time():
    z, features = pairs(500)
    one, other = Readout(z, features), Readout(z, features)
    latents = z.reshape(5, 10, 10, 16)
    assert torch.equal(one(latents), other(latents))
    torch.testing.assert_close(one(latents)[2, 3], one(z)[230:240])
    assert not list(one.parameters())
