"""Where value and actor are trained."""

import numpy as np
import torch

from jepa_agent.environments.observations import BAD_OBSERVATION
from jepa_agent.learning.replay_buffer import SequenceReplayBuffer
from jepa_agent.learning.steps import actor_losses, sample_training_steps


def experience(small):
    """An agent, and windows whose first steps all had plans."""
    model = small("Pendulum-v1", mode="actor").learn(60)
    batch = model.replay_buffer.sample_sequences(64, 6)
    plans = torch.rand(64, 1, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    return model, batch._replace(planned=torch.ones(64, dtype=torch.bool), plan_mean=plans)


def test_half_of_the_steps_are_where_the_agent_was_and_latents_there_carry_no_gradient(small):
    _, batch = experience(small)
    z_hat = torch.randn(64, 4, 16, requires_grad=True)
    torch.manual_seed(0)
    steps = torch.stack([sample_training_steps(batch, z_hat).step for _ in range(100)])
    assert set(steps.unique().tolist()) == {0, 1, 2}
    assert abs((steps == 0).float().mean().item() - (0.5 + 0.5 / 3)) < 0.02
    samples = sample_training_steps(batch, z_hat)
    assert not samples.z.requires_grad
    assert torch.equal(samples.z, z_hat[samples.row, samples.step])
    assert torch.equal(samples.weight, batch.mask[samples.row, samples.step])


def test_plans_are_imitated_where_they_were_made_only(small):
    model, batch = experience(small)
    samples = sample_training_steps(batch, torch.randn(64, 4, 16))
    spread = torch.ones(()) * 1e-3
    at_first, later = (
        actor_losses(model.world_model, samples._replace(step=torch.full((64,), step)), spread.clone())["distillation"]
        for step in (0, 1)
    )
    assert at_first > 0
    assert later == 0


def test_a_step_that_was_none_is_in_no_window(small):
    space, actions = small("Pendulum-v1").observation_space, small("Pendulum-v1").action_space
    buffer = SequenceReplayBuffer(10, space, actions, n_envs=1)
    for t in range(6):
        obs, info = np.full((1, 3), float(t), np.float32), {BAD_OBSERVATION: t == 2}
        buffer.add(obs, obs + 1, np.zeros((1, 1), np.float32), np.zeros(1), np.array([t == 2]), [info])
    assert buffer.window(np.array([0]), np.array([0]), 5).mask[0].tolist() == [1, 1, 0, 0, 0]
    assert buffer.window(np.array([2]), np.array([0]), 3).mask[0].tolist() == [0, 0, 0]
