"""Optional terms of the representation's loss on numbers computed by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from jepa_agent.config import ModelConfig
from jepa_agent.learning.representation import Contrast, Imagined, latents_off_data
from jepa_agent.learning.steps import with_intrinsic_costs
from jepa_agent.learning.terms import (
    Disagreement,
    InverseDynamics,
    MaskedLatents,
    MaskedSteps,
    Reachability,
    Reconstruction,
    SIGReg,
    Smoothness,
    TransitionContrast,
    Variance,
)
from jepa_agent.learning.terms.energies import reachability_loss
from jepa_agent.learning.terms.spread import covariance_loss, epps_pulley, variance_loss
from jepa_agent.learning.terms.time import action_loss, bend
from jepa_agent.model.encoders import on_sphere, random_latents
from jepa_agent.types import SequenceBatch

SIZES = ModelConfig(latent_dim=4, net_arch=(8,), head_arch=(8,))
BOX = spaces.Box(-1.0, 1.0, (3,))


class Given(nn.Module):
    """Answers by a function of its input, and keeps what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        self.asked = x
        return self.answer(x)


def windows(encoded, mask=None, action=None, networks=None, z_hat=None):
    """What a term sees: ``encoded`` are the latents of all observations ``(B, L+1, D)``, of which T = L are imagined."""
    size, length = encoded.shape[0], encoded.shape[1] - 1
    mask = torch.ones(size, length) if mask is None else mask
    action = torch.zeros(size, length, 1) if action is None else action

    def observe(batch, first, count):
        if isinstance(first, int):
            return encoded[:, first : first + count]
        return encoded[torch.arange(size), first].unsqueeze(1)

    model = SimpleNamespace(
        observe=observe,
        term_networks=networks or {},
        cost_module=SimpleNamespace(energy=lambda z: z.sum(-1)),
        predict=lambda z, a: z + a.sum(-1, keepdim=True),
        imagine=lambda z, a: (z + a.sum((-1, -2)).unsqueeze(-1)).unsqueeze(-2),
    )
    batch = SimpleNamespace(mask=mask, action=action)
    z_hat = encoded if z_hat is None else z_hat
    return Imagined(model, batch, z_hat, encoded[:, 1:].detach(), torch.zeros(size, length), torch.zeros(size, length))


# ---------------------------------------------------------------------- spread


def test_the_variance_term_is_a_hinge_on_each_coordinates_standard_deviation():
    z = torch.tensor([[0.0, 1.0], [1.0, 1.0]])  # variances 1/2 and 0
    expected = ((1.0 - math.sqrt(0.5001)) + (1.0 - 0.01)) / 2
    assert variance_loss(z, 1.0).item() == pytest.approx(expected, abs=1e-6)
    assert variance_loss(z, 0.5).item() == pytest.approx((0.5 - 0.01) / 2, abs=1e-6)
    seen = windows(z.unsqueeze(1).expand(2, 3, 2))
    torch.testing.assert_close(Variance().loss(seen), torch.full((2, 1), expected))


def test_the_covariance_term_is_the_sum_of_squares_off_the_diagonal():
    # Covariance of (1, -1) and (-1, 1) is [[2, -2], [-2, 2]]: two entries of 4, over two coordinates.
    assert covariance_loss(torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).item() == 4.0
    assert covariance_loss(torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])).item() == 0.0


def test_no_distribution_on_the_sphere_has_less_covariance_than_is_told():
    torch.manual_seed(0)
    even = covariance_loss(random_latents(200_000, 5, None, torch.device("cpu"))).item()
    assert even == pytest.approx(1 / (5 - 1), rel=0.02)


def test_the_epps_pulley_statistic_of_constants_is_that_of_the_closed_form():
    # All samples 0: phi = 1, and the integral of (1 - e^(-t^2/2))^2 e^(-t^2/2) is sqrt(2 pi) (1 - 2/sqrt(2) + 1/sqrt(3)).
    closed = 10 * math.sqrt(2 * math.pi) * (1 - math.sqrt(2) + 1 / math.sqrt(3))
    found = epps_pulley(torch.zeros(10, 2))
    torch.testing.assert_close(found, torch.full((2,), closed), rtol=2e-3, atol=0.0)
    torch.manual_seed(0)
    normal = epps_pulley(torch.randn(500, 200))
    # Of normal samples it is the integral of (1 - e^(-t^2)) e^(-t^2/2) in the mean, whatever the batch.
    assert normal.mean().item() == pytest.approx(math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3)), rel=0.1)
    assert epps_pulley(torch.randn(500, 200) + 0.5).min() > normal.max()
    assert epps_pulley(2.0 * torch.randn(500, 200)).min() > normal.max()


def test_sigreg_asks_for_the_uniform_distribution_on_the_sphere():
    torch.manual_seed(0)
    even = random_latents(256, 32, None, torch.device("cpu"))
    half = on_sphere(even[:1] + even)  # contracted by half
    losses = [SIGReg().loss(windows(z.unsqueeze(1).expand(-1, 3, -1)))[0, 0] for z in (even, half, even[:1].expand(256, -1))]
    assert losses[0] < 2.0 < 10.0 < losses[1] < losses[2]


# ---------------------------------------------------------------------- time


def test_read_actions_are_scored_by_squared_error_or_by_the_cross_entropy_of_each_choice():
    assert action_loss(torch.tensor([[0.5, 0.0]]), torch.tensor([[0.0, 1.0]]), ()).tolist() == [0.625]
    logits, taken = torch.tensor([[0.0, 0.0, 0.0, math.log(3.0)]]), torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    expected = (math.log(2.0) + math.log(4.0 / 3.0)) / 2  # chances of 1/2 and 3/4
    assert action_loss(logits, taken, (2, 2)).item() == pytest.approx(expected)


@pytest.mark.parametrize(("space", "width"), [(BOX, 3), (spaces.Discrete(5), 5), (spaces.MultiDiscrete([2, 3]), 5)])
def test_inverse_dynamics_reads_each_action_from_the_latents_around_it(space, width):
    reader = InverseDynamics().build(SIZES, BOX, space)
    encoded = torch.arange(2 * 4 * 4, dtype=torch.float32).reshape(2, 4, 4)
    seen = windows(encoded, action=torch.zeros(2, 3, width), networks={"inverse_dynamics": reader})
    reader.net = Given(lambda x: torch.zeros(2, 3, width))
    loss = InverseDynamics().loss(seen)
    torch.testing.assert_close(reader.net.asked[1, 2], torch.cat([encoded[1, 2], encoded[1, 3]]))
    assert loss.shape == (2, 3)
    assert (loss == 0.0).all()  # no choice was taken, and zeros were read of zeros


def test_a_bend_is_one_less_the_cosine_of_two_displacements():
    # Right, right, up, back down, and no further.
    path = torch.tensor([[[0.0, 0.0], [3.0, 0.0], [5.0, 0.0], [5.0, 4.0], [5.0, 1.0], [5.0, 1.0]]])
    torch.testing.assert_close(bend(path), torch.tensor([[0.0, 1.0, 2.0, 1.0]]), atol=1e-3, rtol=0.0)
    still = torch.zeros(1, 3, 2, requires_grad=True)
    bend(still).sum().backward()
    assert still.grad.isfinite().all()


def test_a_bend_across_an_episodes_end_counts_nothing():
    encoded = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [9.0, 9.0]]])
    seen = windows(encoded, mask=torch.tensor([[1.0, 1.0, 0.0]]))
    torch.testing.assert_close(Smoothness().loss(seen), torch.tensor([[2.0, 0.0]]), atol=1e-3, rtol=0.0)


# ---------------------------------------------------------------------- what is hidden


def test_masked_steps_are_predicted_from_the_steps_around_them():
    encoded = on_sphere(torch.randn(2, 4, 4))
    network = Given(lambda x: x[..., :4])
    seen = windows(encoded, mask=torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]), networks={"masked_steps": network})
    loss = MaskedSteps().loss(seen)
    torch.testing.assert_close(network.asked[0, 1], torch.cat([encoded[0, 1], encoded[0, 3]]))
    expected = (encoded[:, :2] - encoded[:, 1:3]).square().mean(-1)  # the step before taken for the hidden one
    torch.testing.assert_close(loss, expected * torch.tensor([[1.0, 1.0], [1.0, 0.0]]), atol=1e-3, rtol=0.0)


def test_hidden_coordinates_reach_the_encoder_as_their_mean_and_are_told(small):
    model = small("Pendulum-v1", representation=[MaskedLatents(hidden=0.999)], learning_starts=100).learn(40)
    world, given = model.world_model, Given(lambda x: torch.zeros(len(x), 16))
    world.term_networks["masked_latents"] = given
    batch = model.replay_buffer.sample_sequences(8, 3)
    target = on_sphere(torch.randn(8, 3, 16))
    seen = Imagined(world, batch, target, target, torch.zeros(8, 3), torch.zeros(8, 3))
    loss = MaskedLatents(hidden=0.999).loss(seen)
    assert (given.asked[:, 16:] == 1.0).all()
    mean = world.encode(world.encoder.norm.mean)
    torch.testing.assert_close(given.asked[:, :16], mean.expand(8, -1))
    torch.testing.assert_close(loss, target[:, :1].square().mean(-1))  # 0 was predicted
    MaskedLatents(hidden=1e-6).loss(seen)
    torch.testing.assert_close(given.asked[:, :16], world.encode(batch.obs[:, 1]))


def test_a_reconstruction_is_of_the_standardised_observation(small):
    model = small("Pendulum-v1", representation=[Reconstruction()], learning_starts=100).learn(40)
    world, batch = model.world_model, model.replay_buffer.sample_sequences(8, 3)
    world.term_networks["reconstruction"] = given = Given(lambda z: torch.zeros(8, 3, 3))
    z_hat = torch.randn(8, 4, 16)
    seen = Imagined(world, batch, z_hat, z_hat[:, 1:], torch.zeros(8, 3), torch.zeros(8, 3))
    expected = world.encoder.norm(batch.obs[:, :3]).square().mean(-1)
    torch.testing.assert_close(Reconstruction().loss(seen), expected)
    assert torch.equal(given.asked, z_hat[:, :3])


# ---------------------------------------------------------------------- energies


def test_reachability_is_the_cross_entropy_of_being_within_the_budget():
    logit, distance = torch.tensor([0.0, math.log(3.0), math.log(3.0)]), torch.tensor([1, 2, 3])
    found = reachability_loss(logit, distance, torch.tensor([1, 2, 2]))  # chances 1/2, 3/4, 3/4; the last is too far
    torch.testing.assert_close(found, torch.tensor([math.log(2.0), math.log(4.0 / 3.0), math.log(4.0)]))


def test_reachability_sees_later_steps_of_its_own_window_and_those_of_another():
    # Latents say which window (first coordinate) and which step (second).
    encoded = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(6.0), indexing="ij"), dim=-1)
    network = Given(lambda x: x[..., :1] * 0.0)
    asked = []
    network.register_forward_hook(lambda _, given, __: asked.append(given[0]))
    mask = torch.ones(64, 5)
    mask[:, 4:] = 0.0
    seen = windows(encoded, mask=mask, networks={"reachability": network})
    torch.manual_seed(0)
    loss = Reachability().loss(seen)
    own, other = asked
    assert (own[:, 0] == own[:, 2]).all()
    assert (other[:, 0] != other[:, 2]).all()
    assert set(own[:, 3].tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert {round(10 * budget) for budget in own[:, 4].tolist()} == {1, 2, 3, 4}
    # At logits of 0 every pair costs log 2; the pair with a step after the episode's end counts nothing.
    expected = 0.5 * math.log(2.0) * (1.0 + (own[:, 3] < 5).float())
    torch.testing.assert_close(loss.squeeze(1), expected)


def test_latents_off_the_data_are_random_perturbed_and_imagined_along_others_actions():
    torch.manual_seed(0)
    encoded = on_sphere(torch.randn(4, 3, 64))
    action = torch.arange(8.0).reshape(4, 2, 1)
    anywhere, perturbed, elsewhere = latents_off_data(windows(encoded, action=action))
    visited = encoded[:, 0]
    near, far = ((found - visited).square().mean(-1) for found in (perturbed, anywhere))
    assert near.max() < 0.5 < 1.0 < far.min()
    torch.testing.assert_close(elsewhere - visited, action.sum(1).roll(1, dims=0).expand(-1, 64))


def test_the_contrast_is_a_mean_of_hinges_and_only_visited_latents_may_shape_the_encoder():
    encoded = on_sphere(torch.randn(4, 3, 64)).requires_grad_()
    # The energy of a latent is the sum of its coordinates: 0, but 64 higher where 1 was added to each.
    seen = windows(encoded, action=torch.full((4, 2, 1), 0.5))
    loss = Contrast(margin=3.0).loss(seen)
    torch.testing.assert_close(loss, torch.full((4, 1), (3.0 + 3.0 + 0.0) / 3), atol=1e-4, rtol=0.0)
    assert not loss.requires_grad
    Contrast(margin=3.0, shape_encoder=True).loss(seen).sum().backward()
    torch.testing.assert_close(encoded.grad[:, 0], torch.full((4, 64), 2.0 / 3.0))
    assert (encoded.grad[:, 1:] == 0.0).all()


def test_observed_transitions_are_contrasted_with_three_that_were_not():
    torch.manual_seed(0)
    encoded = on_sphere(torch.randn(3, 3, 4))
    action = torch.tensor([1.0, 1.0, -1.0]).reshape(3, 1, 1).expand(3, 2, 1)
    network = Given(lambda x: x[..., 5:6])  # the energy is the first coordinate of the latent after the step
    mask = torch.ones(3, 2)
    mask[0, 1] = 0.0
    seen = windows(encoded, mask=mask, action=action, networks={"transition_energy": network})
    loss = TransitionContrast(margin=2.0).loss(seen)
    first = encoded[..., 0]
    expected = []
    for row, other in ((0, 2), (1, 0), (2, 1)):
        after = first[row, 1]
        wrong = [first[other, 1]]
        if row != 1:  # window 1 and the one before it did the same
            wrong.append(first[row, 0] + action[other, 0, 0])
        if row != 0:  # the episode had ended
            wrong.append(first[row, 2])
        expected.append(np.mean([max(0.0, float(after - each) + 2.0) for each in wrong]))
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float32).unsqueeze(1))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SIGReg(num_projections=0), "num_projections must lie between 1 and 4096, got 0"),
        (lambda: Variance(least=2.0), "least must lie above 0 and be at most 1, got 2.0"),
        (lambda: MaskedLatents(hidden=1.0), "hidden must lie between 0 and 1, ends excluded, got 1.0"),
        (lambda: MaskedLatents().build(SIZES, spaces.Dict(a=BOX), BOX), "one vector, got Dict.*: MaskedSteps hides"),
        (lambda: Reconstruction().build(SIZES, spaces.Box(0, 255, (3, 64, 64), np.uint8), BOX), "one vector, got Box"),
    ],
)
def test_settings_and_spaces_that_mean_nothing_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


# ---------------------------------------------------------------------- curiosity


def test_disagreement_is_the_members_spread_in_lengths_of_a_step():
    # Two members expect displacements of +1 and -1 in both coordinates: a variance of 2. Steps are 2 long in each.
    networks = {"disagreement": Given(lambda x: torch.stack([torch.ones(len(x), 2), -torch.ones(len(x), 2)]))}
    model = SimpleNamespace(term_networks=networks)
    z = torch.tensor([[[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]]])
    cost = Disagreement(price=3.0, members=2).intrinsic_cost(model, z, torch.zeros(1, 3, 1))
    torch.testing.assert_close(cost, torch.full((1, 3), -3.0 * math.sqrt(2.0) / 2.0))


def test_disagreeing_predictors_learn_where_the_next_step_leads():
    encoded = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [3.0, 3.0]]])  # the target's latents are those after steps 0 and 1
    networks = {"disagreement": Given(lambda x: torch.stack([torch.full((1, 2), 2.0), torch.full((1, 2), 5.0)]))}
    seen = windows(encoded, action=torch.tensor([[[7.0], [8.0]]]), networks=networks)
    torch.testing.assert_close(Disagreement(members=2).loss(seen), torch.tensor([[(0.0 + 9.0) / 2]]))
    assert networks["disagreement"].asked.tolist() == [[1.0, 1.0, 8.0]]
    over = windows(encoded, mask=torch.tensor([[1.0, 0.0]]), networks=networks)
    assert Disagreement(members=2).loss(over).item() == 0.0  # the episode had ended


def test_intrinsic_costs_are_added_in_units_of_the_running_scale():
    batch = SequenceBatch(None, torch.zeros(2, 3, 1), torch.ones(2, 3), *[torch.zeros(2, 3)] * 2, None, None)
    model = SimpleNamespace(
        observe=lambda batch, first, count: torch.arange(12.0).view(2, 3, 2)[:, first : first + count],
        cost_module=SimpleNamespace(cost_scale=torch.tensor(10.0)),
        term_networks={"disagreement": Given(lambda x: torch.stack([x[:, :2], x[:, :2]]))},
    )
    assert with_intrinsic_costs(model, batch, [Variance(1.0)]) is batch
    assert with_intrinsic_costs(model, batch, [Disagreement(0.0)]) is batch
    assert with_intrinsic_costs(model, batch, [Disagreement(1.0)]).cost.tolist() == batch.cost.tolist()  # they agree
    model.term_networks["disagreement"] = Given(
        lambda x: torch.stack([torch.zeros(len(x), 2), torch.full((len(x), 2), 2.0)])
    )
    paid = with_intrinsic_costs(model, batch, [Disagreement(1.0, price=0.5)])  # variance 2, steps of 2
    torch.testing.assert_close(paid.cost, torch.full((2, 3), 1.0 - 0.5 * math.sqrt(2.0) / 2.0 * 10.0))


@pytest.mark.parametrize("wrong", [{"members": 1}, {"price": -1.0}])
def test_disagreement_needs_two_members_and_a_price(wrong):
    with pytest.raises(ValueError, match="2 members or more and a price of at least 0"):
        Disagreement(**wrong)
