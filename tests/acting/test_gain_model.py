import torch

from jepa_agent.acting.gain_model import GainModel


def searches(count, weights, scale=1.0, seed=0):
    features = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))
    features[:, 0] = 1.0
    return features * torch.tensor([1.0, scale, 1.0]), features @ torch.tensor(weights)


def learned(*experience):
    model = GainModel(3)
    for features, gain in experience:
        for i in range(len(gain)):
            model.learn(features[i : i + 1], gain[i : i + 1])
    return model


def test_before_any_search_the_gain_is_the_mean_of_the_features():
    torch.testing.assert_close(GainModel(3)(torch.tensor([[1.0, 2.0, 6.0]])), torch.tensor([3.0]))


def test_learns_what_a_gain_depends_on_though_features_differ_in_size():
    for scale in (1e-3, 1.0, 100.0):
        features, gain = searches(300, [1.0, -2.0, 3.0], scale)
        torch.testing.assert_close(learned((features, gain))(features), gain, atol=0.1, rtol=0)


def test_knows_the_mean_gain():
    features, gain = searches(100, [1.0, -2.0, 3.0])
    torch.testing.assert_close(learned((features, gain)).mean, gain.mean(), atol=0.05, rtol=0)
    assert GainModel(3).mean == 0.0


def test_old_searches_fade():
    model = learned(searches(500, [1.0, 0.0, 0.0]), searches(3000, [0.0, 0.0, 2.0], seed=1))
    features, gain = searches(50, [0.0, 0.0, 2.0], seed=2)
    torch.testing.assert_close(model(features), gain, atol=0.15, rtol=0)


def test_after_a_thousand_searches_the_newest_half_counts_for_most():
    ones = torch.ones(1000, 1)
    model = GainModel(1)
    for gain in (0.0, 1.0):
        for row in ones:
            model.learn(row.unsqueeze(0), torch.tensor([gain]))
    # Each search scales what came before by 1000/1001: of 2000, the newer thousand weighs 1 / (1 + e^-1).
    torch.testing.assert_close(model.mean, torch.tensor(0.731), atol=2e-3, rtol=0)


def test_several_searches_at_once_count_like_one_after_another():
    features, gain = searches(20, [1.0, -2.0, 3.0])
    together = GainModel(3)
    together.learn(features, gain)
    torch.testing.assert_close(together(features), learned((features, gain))(features), atol=0.02, rtol=0)
