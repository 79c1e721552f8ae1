"""A memory network in acting and in learning: both must see the same."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from jepa_agent import JEPA
from jepa_agent.model.memory import GRUMemory, MemoryNetwork

KINDS = pytest.mark.parametrize("kind", ["gru", "attention"])
STEPS = 6  # twice the memory of the small agents


def lived(model, steps=STEPS):
    """Episode after episode of ``steps`` into an empty buffer, the state carried; the latents ``(steps, D)`` of the last."""
    env, buffer = gym.make(model.get_env().envs[0].spec.id), model.replay_buffer
    buffer.reset()
    state, starts, latents = None, np.array([True]), []
    for episode in range(2):
        obs, _ = env.reset(seed=episode)
        latents = []
        for step in range(steps):
            action, state = model.predict(obs[None], state, starts, deterministic=True)
            latents.append(model.policy.recall(state, 1).latent[0])
            after, reward, *_ = env.step(action[0])
            starts = np.array([step == steps - 1])
            stored = action if model.policy.action_dim > 1 else model.policy.scale_action(action)
            buffer.add(obs[None], after[None], stored, np.array([reward]), starts, [{"TimeLimit.truncated": starts[0]}])
            obs = after
    return torch.stack(latents)


@KINDS
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("mode", ["actor", "planner"])
def test_learning_sees_the_latents_that_acting_saw(small, env, kind, mode):
    model = small(env, memory=kind, mode=mode).learn(60)
    acted = lived(model)
    ages, size = np.arange(STEPS, 2 * STEPS), model.world_model.past_size
    batch = model.replay_buffer.window(ages, np.zeros_like(ages), 3, past=size)
    first = model.world_model.observe(batch, 0, 1)[:, 0]
    torch.testing.assert_close(first, acted, atol=1e-5, rtol=1e-4)
    # Later steps of a window, asked for together or one per row.
    torch.testing.assert_close(model.world_model.observe(batch, 1, 2)[0], acted[1:3], atol=1e-5, rtol=1e-4)
    each = model.world_model.observe(batch, torch.tensor([2, 1, 2, 1, 1, 0]), 1)[:, 0]
    torch.testing.assert_close(each, acted[[2, 2, 4, 4, 5, 5]], atol=1e-5, rtol=1e-4)


@KINDS
def test_the_past_changes_what_is_seen_and_an_episode_start_forgets_it(small, kind):
    model = small("Pendulum-v1", memory=kind, mode="actor").learn(60)
    obs = np.array([[1.0, 0.0, 0.5]] * 2, dtype=np.float32)
    _, state = model.predict(obs)
    latent = {}
    for name, starts in (("none", [False, False]), ("first", [True, False])):
        _, after = model.predict(obs, state, np.array(starts), deterministic=True)
        latent[name] = model.policy.recall(after, 2).latent
    fresh = model.world_model.encode(obs)[0]
    torch.testing.assert_close(latent["first"][0], fresh, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(latent["none"][0], fresh, atol=1e-3)
    torch.testing.assert_close(latent["first"][1], latent["none"][1])


@KINDS
@pytest.mark.parametrize("mode", ["actor", "auto"])
def test_a_row_depends_on_its_own_past_alone(small, kind, mode):
    model = small("Pendulum-v1", memory=kind, mode=mode).learn(60)
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(5, 3, 3)).astype(np.float32)
    state, alone = None, [None] * 3
    for obs in seen:
        together, state = model.predict(obs, state, deterministic=True)
        single = [model.predict(obs[i], alone[i], deterministic=True) for i in range(3)]
        alone = [s for _, s in single]
        np.testing.assert_allclose(together, np.stack([a for a, _ in single]), atol=1e-4)


@KINDS
def test_the_memory_network_is_learned_through_the_notes_it_was_given(small, kind):
    model = small("Pendulum-v1", memory=kind).learn(60)
    assert model.world_model.memory is not None
    before = [p.clone() for p in model.world_model.memory.parameters()]
    model.learn(10, reset_num_timesteps=False)
    moved = [not torch.equal(a, b) for a, b in zip(before, model.world_model.memory.parameters(), strict=True)]
    assert all(moved)


def test_without_a_network_nothing_of_the_past_is_read(small):
    model = small("Pendulum-v1").learn(30)
    assert model.world_model.past_size == 0
    assert model.replay_buffer.sample_sequences(4, 3, past=0).past is None
    assert model.policy.recall(None, 2).notes.numel() == 0


class Latest(MemoryNetwork):
    """The last latent, as it is."""

    def forward(self, seen, past):
        return past.notes[..., 0, : seen.shape[-1]] * past.mask[..., :1]


def test_a_network_of_ones_own_is_an_object_that_loading_asks_for(small, tmp_path):
    model = small("Pendulum-v1", memory=Latest(2)).learn(40)
    assert model.policy.recall(None, 1).notes.shape[1] == 2
    model.save(tmp_path / "agent")
    with pytest.raises(ValueError, match="memory"):
        JEPA.load(tmp_path / "agent")
    again = JEPA.load(tmp_path / "agent", custom_objects={"memory": Latest(2)})
    assert again.world_model.past_size == 2


@KINDS
def test_a_loaded_agent_remembers_alike(small, kind, tmp_path):
    model = small("CartPole-v1", memory=kind).learn(60)
    model.save(tmp_path / "agent")
    again = JEPA.load(tmp_path / "agent", device="cpu")
    state = again_state = None
    for obs in np.random.default_rng(0).normal(size=(4, 2, 4)).astype(np.float32):
        action, state = model.predict(obs, state, deterministic=True)
        found, again_state = again.predict(obs, again_state, deterministic=True)
        np.testing.assert_array_equal(action, found)
        assert all(np.array_equal(a, b) for a, b in zip(state, again_state, strict=True))


def test_a_part_of_another_kind_is_refused(small):
    for given in ("lstm", 3, GRUMemory):
        with pytest.raises(ValueError, match="memory"):
            small("Pendulum-v1", memory=given)


@KINDS
def test_pictures_and_numbers_are_remembered_too(small, kind):
    env = gym.make("JEPA/PictureAndNumber-v0")
    model = small(env, memory=kind, buffer_size=200).learn(60)
    past, buffer = model.world_model.past_size, model.replay_buffer
    batch = buffer.window(np.array([0, 30]), np.array([0, 0]), 2, None, past)
    assert batch.past.obs["picture"].shape[:2] == (2, past)
    assert batch.past.mask[0].sum() == 0  # nothing was before the oldest step
    assert model.world_model.observe(batch, 1, 2).shape == (2, 2, 16)
