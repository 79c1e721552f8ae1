"""Where value and actor are trained."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from jepa_agent.environments.observations import BAD_OBSERVATION
from jepa_agent.learning.replay_buffer import SequenceReplayBuffer
from jepa_agent.learning.steps import actor_losses, cheapest_costs, imagined_costs, sample_training_steps, value_target
from jepa_agent.model.actor import Draw


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
        actor_losses(
            model.world_model, model.world_model_target, samples._replace(step=torch.full((64,), step)), spread.clone(), 2
        )["distillation"]
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


def test_imagined_costs_are_those_by_which_plans_are_judged(small):
    """With one member, no temperature and an actor that always draws the same, both are one number."""
    model = small("Pendulum-v1", mode="actor", policy_kwargs={"ensemble_size": 1}).learn(60).world_model
    with torch.no_grad():
        model.actor.net[-1].weight.zero_()
        model.actor.net[-1].bias.copy_(torch.tensor([0.3, -20.0]))  # the least spread there is: exp(-5)
        model.actor.log_temperature.fill_(-100.0)
        z, first = model.encode(torch.randn(32, 3)), torch.rand(32, 1) * 2.0 - 1.0
        then = model.actor(z)
        sequence = torch.stack([first, then], dim=1).unsqueeze(1)  # (B, 1, 2, 1)
        judged = model.trajectory_cost(z, sequence).squeeze(1) / model.value_scale
        found = imagined_costs(model, z, Draw(first, first, torch.zeros(32)), horizon=2)
        torch.testing.assert_close(found.mean, judged, atol=2e-3, rtol=0)
        torch.testing.assert_close(found.now, model.cost_to_go(z, first)[0] / model.value_scale)
        at_once = imagined_costs(model, z, Draw(first, first, torch.zeros(32)), horizon=0)
        torch.testing.assert_close(at_once.mean, found.now)
        several = imagined_costs(model, z, Draw(sequence[:, 0], sequence[:, 0], torch.zeros(32, 2)), horizon=2)
        torch.testing.assert_close(several.mean[:, 0], found.mean, atol=2e-3, rtol=0)


@pytest.mark.parametrize("horizon", [0, 1, 2])
def test_options_are_followed_by_the_cheapest_of_all_sequences(horizon, small):
    """With one member for all and a target that equals the model: by hand, sequence by sequence."""
    agent = small("Acrobot-v1", mode="actor", policy_kwargs={"ensemble_size": 1}).learn(60)
    model, options = agent.world_model, torch.eye(3)
    with torch.no_grad():
        z = model.encode(torch.randn(5, 6))
        first = options.expand(5, -1, -1)
        found = cheapest_costs(model, model, z, Draw(first, first, torch.zeros(5, 3)), horizon)

        def cost_of(latent, option, depth):
            if depth == 0:
                return model.cost_to_go(latent, option)[0]
            step = model.cost(latent, option)
            then = model.predict(latent, option)
            best = torch.stack([cost_of(then, options[[i] * 5], depth - 1) for i in range(3)]).amin(0)
            return step.cost + model.gamma * (1.0 - step.terminated) * best

        for k in range(3):
            option = options[[k] * 5]
            by_hand = torch.stack([cost_of(z, option, depth) for depth in range(horizon + 1)]).mean(0)
            torch.testing.assert_close(found.mean[:, k] * model.value_scale, by_hand)
            torch.testing.assert_close(found.now[:, k] * model.value_scale, cost_of(z, option, 0))


def test_options_are_judged_by_the_targets_critic(small):
    agent = small("CartPole-v1", mode="actor").learn(60)
    model, target = agent.world_model, agent.world_model_target
    z, first = model.encode(torch.randn(7, 4)).detach(), torch.eye(2).expand(7, -1, -1)
    draw = Draw(first, first, torch.zeros(7, 2))
    with torch.no_grad():
        before = cheapest_costs(model, target, z, draw, 2).mean
        for weight in model.cost_module.cost_to_go.parameters():
            weight.zero_()
        assert torch.equal(cheapest_costs(model, target, z, draw, 2).mean, before)


@pytest.mark.parametrize(("env", "sequences"), [("CartPole-v1", 8), ("Acrobot-v1", 27), ("Pendulum-v1", float("inf"))])
def test_sequences_are_gone_through_where_they_are_few(env, sequences, small):
    assert small(env).world_model.actor.num_sequences(2) == sequences


def test_later_draws_are_charged_for_their_certainty(small):
    model = small("Pendulum-v1", mode="actor").learn(60).world_model
    z, first = model.encode(torch.randn(64, 3)), torch.zeros(64, 1)
    means = []
    for temperature in (1e-9, 1.0):
        model.actor.log_temperature.fill_(temperature).log_()
        torch.manual_seed(0)
        means.append(imagined_costs(model, z, Draw(first, first, torch.zeros(64)), horizon=1).mean)
    torch.manual_seed(0)
    later = model.actor.draw(model.actor.net(model.predict(z, first))).log_prob
    alive = model.gamma * (1.0 - model.cost(z, first).terminated)
    torch.testing.assert_close(means[1] - means[0], 0.5 * alive * later)  # of two depths, one pays for it


def test_the_gradient_of_the_actor_runs_through_imagined_steps(small):
    model = small("Pendulum-v1", mode="actor").learn(60).world_model
    z = model.encode(torch.randn(16, 3)).detach()
    first = torch.zeros(16, 1, requires_grad=True)
    imagined_costs(model, z, Draw(first, first, torch.zeros(16)), horizon=2).mean.sum().backward()
    deep, first.grad = first.grad, None
    imagined_costs(model, z, Draw(first, first, torch.zeros(16)), horizon=0).mean.sum().backward()
    assert deep.abs().max() > 0
    assert not torch.allclose(deep, first.grad)


def test_targets_are_charged_for_the_certainty_of_what_the_actor_will_do(small):
    agent, batch = experience(small)
    batch = batch._replace(terminated=torch.zeros_like(batch.terminated))
    samples = sample_training_steps(batch, torch.randn(64, 4, 16))
    model, target, found = agent.world_model, agent.world_model_target, []
    for temperature in (0.0, 1.0):
        torch.manual_seed(0)
        model.actor.log_temperature.fill_(temperature).log_()
        found.append(value_target(model, target, samples, 1, 0.0))
    charged = (found[1] - found[0]) / (model.gamma * target.value_scale)
    ends = model.observe(batch, samples.step + 1, 1)[:, 0]
    torch.manual_seed(0)
    torch.testing.assert_close(charged, target.actor.draw(target.actor.net(ends)).log_prob, atol=1e-3, rtol=1e-3)


def test_costs_to_go_begin_at_the_better_of_ending_now_and_going_on_for_ever(small):
    heads = small("Pendulum-v1", mode="actor", gamma=0.9).world_model.cost_module
    heads.observe_cost(torch.tensor([5.0, 7.0]))
    heads.begin_values()
    assert heads.value_offset == 0.0
    for _ in range(2):
        heads.observe_cost(torch.tensor([-30.0, -30.0]), unit=2.0)
    heads.begin_values()
    assert heads.value_offset.item() == pytest.approx((5 + 7 - 4 * 30) / 6 / 2.0 * 10.0)


def test_rewards_of_an_offset_are_not_learned_step_by_step(small):
    env = gym.wrappers.TransformReward(gym.make("Pendulum-v1"), lambda reward: reward + 1000.0)
    model = small(env, mode="actor", learning_starts=50).learn(51)
    world = model.world_model
    assert world.cost_module.value_offset.item() == pytest.approx(-1000.0 * 100.0, rel=0.02)
    with torch.no_grad():
        for weight in world.cost_module.cost_to_go.net.layers[-1].parameters():
            weight.zero_()
    assert (world.cost_to_go(world.encode(torch.randn(32, 3))) == world.cost_module.value_offset).all()
