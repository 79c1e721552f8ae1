import torch

from jepa_agent.callbacks import LatentCallback
from jepa_agent.learning.diagnostics import latent_health


def test_watching_the_latents_does_not_change_training(small):
    plain = small("CartPole-v1").learn(120)
    watched = small("CartPole-v1").learn(120, callback=LatentCallback(freq=20))
    for first, second in zip(plain.policy.parameters(), watched.policy.parameters(), strict=True):
        assert torch.equal(first, second)


def test_collapse_shows(small):
    model = small("CartPole-v1").learn(60)
    batch = model.replay_buffer.sample_sequences(64, 3)
    alive = latent_health(model.world_model, batch)
    with torch.no_grad():
        model.world_model.encoder.net[0].weight.zero_()  # every observation now looks the same
    dead = latent_health(model.world_model, batch)
    assert alive["std"] > 0.05 > dead["std"]
    assert alive["rank"] > 1.5


def test_diagnostics_are_logged_under_latent(small):
    model = small("CartPole-v1")
    model.learn(60, callback=LatentCallback(freq=60), log_interval=1000)
    assert {"latent/std", "latent/rank", "latent/error_first", "latent/error_last"} <= set(model.logger.name_to_value)
