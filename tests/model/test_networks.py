import numpy as np
import pytest
import torch
from gymnasium import spaces

from jepa_agent.model.actor import BoundedActor, CategoricalActor, ImaginedCosts
from jepa_agent.model.blocks import EnsembleMLP, RunningNorm, mlp
from jepa_agent.model.cost import CostModule, JointCostToGo, PerActionCostToGo
from jepa_agent.model.encoders import Encoder, VectorObservation, random_latents
from jepa_agent.model.predictor import Predictor


def on_manifold(z: torch.Tensor) -> bool:
    return torch.allclose(z.mean(-1), torch.zeros(()), atol=1e-4) and torch.allclose(
        z.var(-1, unbiased=False), torch.ones(()), atol=1e-2
    )


def test_running_norm_equals_the_statistics_of_all_it_saw():
    data = torch.randn(57, 3) * torch.tensor([1.0, 10.0, 0.1]) + torch.tensor([5.0, -3.0, 0.0])
    norm = RunningNorm(3)
    for part in data.split([1, 6, 50]):
        norm.update(part)
    torch.testing.assert_close(norm.mean, data.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.var, data.var(0, unbiased=False), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norm(data).std(0, unbiased=False), torch.ones(3), rtol=1e-3, atol=1e-3)


def test_running_norm_travels_with_the_model():
    norm, copy = RunningNorm(2), RunningNorm(2)
    norm.update(torch.tensor([[1.0, 2.0], [3.0, 10.0]]))
    copy.load_state_dict(norm.state_dict())
    assert torch.equal(norm(torch.ones(1, 2)), copy(torch.ones(1, 2)))


def test_ensemble_members_are_independent_perceptrons():
    net = EnsembleMLP(3, 4, [8], 2)
    x = torch.randn(5, 4)
    out = net(x)
    assert out.shape == (3, 5, 2)
    first, norm, activation, last = net.layers
    by_hand = activation(norm(x @ first.weight[1] + first.bias[1])) @ last.weight[1] + last.bias[1]
    torch.testing.assert_close(out[1], by_hand)
    torch.testing.assert_close(net(x.expand(3, 5, 4).contiguous()), out)  # rows of their own, here the same


def test_encoded_predicted_and_random_latents_share_a_manifold():
    z = Encoder(3, 16, [32])(torch.randn(7, 3))
    assert on_manifold(z)
    assert on_manifold(Predictor(16, 2, [32])(z, torch.randn(7, 2)))
    assert on_manifold(random_latents(9, 16, None, torch.device("cpu")))


@pytest.mark.parametrize(
    ("space", "raw", "vector"),
    [
        (spaces.Discrete(3, start=5), np.array([5, 7]), [[1, 0, 0], [0, 0, 1]]),
        (spaces.MultiDiscrete([2, 3]), np.array([[1, 0]]), [[0, 1, 1, 0, 0]]),
        (spaces.MultiDiscrete([2, 2], start=[3, 0]), np.array([[3, 1]]), [[1, 0, 0, 1]]),
        (spaces.Box(-1, 1, (2, 2)), np.arange(4.0).reshape(1, 2, 2), [[0, 1, 2, 3]]),
        (spaces.MultiBinary(2), np.array([[1, 0]]), [[1, 0]]),
    ],
)
def test_observations_become_vectors(space, raw, vector):
    observation = VectorObservation(space)
    assert observation(torch.as_tensor(raw)).tolist() == vector
    assert observation.dim == len(vector[0])


def test_cost_scale_is_the_root_mean_square_of_the_costs():
    module = CostModule(4, 1, [8], JointCostToGo(4, 1, [8], ensemble_size=2), gamma=0.9)
    module.observe_cost(torch.zeros(3))
    assert module.cost_scale == 1.0  # nothing known yet
    module.observe_cost(torch.tensor([3.0]))
    assert module.cost_scale.item() == pytest.approx(1.5)


def test_energy_without_a_head_says_how_to_get_one():
    with pytest.raises(ValueError, match="energy=True"):
        CostModule(4, 1, [8], JointCostToGo(4, 1, [8], 1), 0.9).energy(torch.zeros(1, 4))


def test_bounded_actor_stays_in_bounds_even_when_exploring():
    actor = BoundedActor(4, 2, [8])
    z = torch.randn(50, 4) * 100
    action = actor.explore(actor(z), torch.full((50, 1), 1.0), torch.Generator().manual_seed(0))
    assert action.abs().max() <= 1.0
    assert action.std() > 0.1


def test_one_choice_is_drawn_and_expected_with_its_probabilities():
    torch.manual_seed(0)
    actor = CategoricalActor(4, (3,), [8])
    output = actor.net(torch.randn(1, 4)).detach().expand(20_000, 3)
    drawn = actor.draw(output)
    torch.testing.assert_close(drawn.expected, output.softmax(-1))
    assert set(drawn.action.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(drawn.action.mean(0), drawn.expected[0], atol=0.02, rtol=0)


def test_a_gaussian_draw_knows_its_density_and_the_temperature_holds_its_entropy():
    torch.manual_seed(0)
    actor = BoundedActor(4, 1, [8])
    output = actor.net(torch.randn(1, 4)).detach().expand(100_000, 2)
    drawn = actor.draw(output)
    assert drawn.action.abs().max() <= 1.0
    count, edges = torch.histogram(drawn.action[:, 0], bins=40, range=(-0.95, 0.95), density=False)
    middle = 0.5 * (edges[1:] + edges[:-1])
    found = count / len(output) / (edges[1] - edges[0])
    nearest = (drawn.action - middle).abs().argmin(0)
    torch.testing.assert_close(found, drawn.log_prob[nearest].exp(), atol=0.06, rtol=0.1)
    before = actor.temperature.clone()
    actor.learn_temperature(torch.tensor(-5.0))  # too certain
    assert actor.temperature > before
    for _ in range(5):
        actor.learn_temperature(torch.tensor(3.0))
    assert actor.temperature < before


def test_a_gaussian_moves_down_the_cost_of_its_draws_and_is_charged_for_certainty():
    torch.manual_seed(0)
    actor = BoundedActor(2, 1, [8])
    optimizer = torch.optim.Adam(actor.parameters(), lr=0.02)
    z, spread = torch.ones(64, 2), torch.tensor(1.0)

    def cost_of(drawn):
        cost = (drawn.action - 0.5).square().sum(-1)
        return ImaginedCosts(cost, cost)

    for temperature, most in ((1e-6, 0.2), (1.0, None)):
        actor.log_temperature.fill_(temperature).log_()
        for _ in range(300):
            optimizer.zero_grad()
            actor.improve(actor.net(z), cost_of, spread).loss.mean().backward()
            optimizer.step()
        drawn = actor.draw(actor.net(torch.ones(2000, 2))).action
        if most is not None:
            assert actor(z)[0, 0].item() == pytest.approx(0.5, abs=0.05)
            assert drawn.std() < most
        else:
            assert drawn.std() > 0.4


def test_costs_to_go_of_choices_are_exact_for_probabilities():
    heads = PerActionCostToGo(4, 3, [8], ensemble_size=2)
    z, probability = torch.randn(5, 4), torch.rand(5, 3).softmax(-1)
    each = torch.stack([heads(z, torch.eye(3)[i].expand(5, 3)) for i in range(3)], dim=-1)  # (E, B, A)
    assert each.std(-1).min() > 0
    torch.testing.assert_close(heads(z, probability), (each * probability).sum(-1))


@pytest.mark.parametrize("kind", [JointCostToGo, PerActionCostToGo])
@pytest.mark.parametrize("batch", [8, 7, 2])
def test_all_options_of_a_row_are_seen_by_one_member(kind, batch):
    critic = kind(4, 3, [8], ensemble_size=4)
    z = torch.randn(batch, 5, 4)
    found = critic.options_subsampled(z)
    assert found.shape == (batch, 5, 3)
    for row in range(batch):
        member = row // -(-batch // 4)
        for i, option in enumerate(torch.eye(3)):
            everyone = critic.members(z[row], option.expand(5, -1))
            torch.testing.assert_close(found[row, :, i], everyone[member])


@pytest.mark.parametrize("kind", [JointCostToGo, PerActionCostToGo])
@pytest.mark.parametrize("batch", [8, 7, 2])
@pytest.mark.parametrize("members_per_row", [1, 3])
def test_each_row_is_seen_by_as_many_members_as_asked(kind, batch, members_per_row):
    heads = kind(4, 3, [8], ensemble_size=4)
    z, action = torch.randn(batch, 4), torch.randn(batch, 3)
    everyone, dealt = heads(z, action), heads.forward_subsampled(z, action, members_per_row)
    first = torch.arange(batch) // -(-batch // 4)  # rows are dealt out block by block
    for i in range(members_per_row):
        torch.testing.assert_close(dealt[i], everyone[(first - i) % 4, torch.arange(batch)])


def test_hooks_on_layers_are_heard_and_change_nothing():
    net, x, heard = mlp(3, [8], 2), torch.randn(4, 3), []
    plain = net(x)
    handle = net[0].register_forward_hook(lambda layer, given, found: heard.append(found.shape))
    torch.testing.assert_close(net(x), plain)
    assert heard == [(4, 8)]
    handle.remove()
    net(x)
    assert len(heard) == 1


def test_categorical_exploration_swaps_at_the_given_rate():
    actor = CategoricalActor(2, (4,), [8])
    action = torch.eye(4)[torch.zeros(4000, dtype=torch.long)]
    explored = actor.explore(action, torch.full((4000, 1), 0.4), torch.Generator().manual_seed(0))
    assert (explored.argmax(-1) != 0).float().mean().item() == pytest.approx(0.4 * 3 / 4, abs=0.03)


@pytest.mark.parametrize(
    "actor", [BoundedActor(3, 2, [8]), CategoricalActor(3, (2,), [8]), CategoricalActor(3, (2, 3), [8])]
)
def test_one_draw_of_exploration_serves_all_rows(actor):
    z, spreads = torch.randn(4, 3), torch.full((50, 1), 0.5)
    action = actor(z).unsqueeze(1).expand(-1, 50, -1)
    explored = actor.explore(action, spreads, torch.Generator().manual_seed(0))
    alone = actor.explore(action[2:3], spreads, torch.Generator().manual_seed(0))
    assert (explored != action).any()
    assert torch.equal(explored[2:3], alone)


@pytest.mark.parametrize("options", [5, 40])
def test_all_of_few_options_may_be_done_instead_and_some_of_many(options):
    others = CategoricalActor(3, (options,), [8]).others(torch.eye(options)[:2])
    assert (others.sum(-1) == 1).all()
    assert len(others[0].argmax(-1).unique()) == (options if options == 5 else pytest.approx(5, abs=2))


@pytest.mark.parametrize("actor", [BoundedActor(3, 2, [8]), CategoricalActor(3, (2, 3), [8])])
def test_what_may_be_done_instead_lies_near_and_is_always_the_same(actor):
    action = actor(torch.randn(3, 3))
    others = actor.others(action)
    assert (others != action.unsqueeze(1)).any(1).any(-1).all()
    assert torch.equal(others[1:2], actor.others(action[1:2]))


@pytest.mark.parametrize(("kind", "size"), [(BoundedActor, 2), (CategoricalActor, (2,))])
def test_imitation_is_least_where_the_actor_agrees(kind, size):
    torch.manual_seed(0)
    actor = kind(4, size, [8])
    optimizer = torch.optim.Adam(actor.parameters(), lr=0.05)
    z, plan = torch.randn(1, 4).expand(8, 4), torch.tensor([[1.0, 0.0]]).expand(8, 2)
    before = actor.imitation(actor.net(z), plan).mean()
    for _ in range(100):
        optimizer.zero_grad()
        actor.imitation(actor.net(z), plan).mean().backward()
        optimizer.step()
    assert actor.imitation(actor.net(z), plan).mean() < 0.1 * before
    assert actor(z)[0, 0] > 0.9


def test_several_choices_are_each_one_of_their_own_options():
    torch.manual_seed(0)
    actor = CategoricalActor(4, (2, 4, 3), [8])
    z = torch.randn(200, 4)
    explored = actor.explore(actor(z), torch.full((200, 1), 1.0), torch.Generator().manual_seed(0))
    for action in (actor(z), actor.draw(actor.net(z)).action, explored):
        for block in action.split((2, 4, 3), dim=-1):
            torch.testing.assert_close(block.sum(-1), torch.ones(200))
            assert set(block.unique().tolist()) == {0.0, 1.0}
    counts = [block.sum(0) for block in explored.split((2, 4, 3), dim=-1)]
    assert all((count > 0.6 * 200 / len(count)).all() for count in counts)  # every option is tried
    assert torch.isfinite(actor.regularisation(actor.net(z))).all()


def test_several_choices_are_drawn_with_their_probabilities():
    torch.manual_seed(0)
    actor = CategoricalActor(4, (2, 3), [8])
    output = actor.net(torch.randn(1, 4)).detach().expand(20_000, 5)
    expected = torch.cat([block.softmax(-1) for block in output[:1].split((2, 3), dim=-1)], -1)
    drawn = actor.draw(output)
    torch.testing.assert_close(drawn.action.mean(0, keepdim=True), expected, atol=0.02, rtol=0)
    assert torch.equal(drawn.expected, drawn.action)


@pytest.mark.parametrize("num_choices", [(3,), (2, 3), (40,), (2,) * 20])
def test_probabilities_of_choices_become_the_shares_of_votes(num_choices):
    torch.manual_seed(0)
    actor = CategoricalActor(2, num_choices, [8])
    optimizer = torch.optim.Adam(actor.parameters(), lr=0.03)
    z, rows = torch.ones(64, 2), torch.arange(64)

    def cost_of(drawn):
        # Three voters of four want the first option of every choice, the fourth the last.
        for_last = (rows % 4 == 0).float()[:, None]
        blocks = drawn.action.split(num_choices, dim=-1)
        first, last = (torch.stack([block[..., end] for block in blocks]).sum(0) for end in (0, -1))
        cost = -torch.where(for_last > 0, last, first)
        return ImaginedCosts(cost, cost)

    for _ in range(400):
        optimizer.zero_grad()
        actor.improve(actor.net(z), cost_of, torch.ones(())).loss.mean().backward()
        optimizer.step()
    for block in actor.net(z)[0].split(num_choices):
        chance = block.softmax(-1)
        assert chance[0].item() == pytest.approx(0.75, abs=0.12)
        assert chance[-1].item() == pytest.approx(0.25, abs=0.12)


def test_what_choices_may_cost_is_expected_and_their_entropy_is_known():
    actor = CategoricalActor(2, (3,), [8])
    output = torch.tensor([[0.0, 1.0, 2.0]])
    values = torch.tensor([1.0, 10.0, 100.0])
    found = actor.improve(output, lambda drawn: ImaginedCosts(drawn.action @ values, drawn.action @ values), torch.ones(()))
    chance = output.softmax(-1)
    torch.testing.assert_close(found.cost_to_go, (chance * values).sum(-1))
    torch.testing.assert_close(found.entropy, -(chance * chance.log()).sum(-1))
    torch.testing.assert_close(found.loss, -chance[:, 0].log())


def test_exploring_a_plan_adds_the_deviation_of_the_actors_draw():
    box, choices = BoundedActor(2, 2, [8]), CategoricalActor(2, (2, 2), [8])
    plan, own, drawn = torch.tensor([[0.9, -0.5]]), torch.tensor([[0.0, 0.2]]), torch.tensor([[0.3, 0.1]])
    torch.testing.assert_close(box.explored(plan, own, drawn), torch.tensor([[1.0, -0.6]]))
    plan, own, drawn = torch.tensor([[1.0, 0, 1, 0]]), torch.tensor([[0.0, 1, 0, 1]]), torch.tensor([[0.0, 1, 1, 0]])
    assert choices.explored(plan, own, drawn).tolist() == [[1, 0, 1, 0]]
    assert choices.explored(own, own, drawn).tolist() == drawn.tolist()


def test_several_choices_imitate_the_combination_a_plan_begins_with():
    actor = CategoricalActor(4, (2, 3), [8])
    action, mean = torch.tensor([[0.0, 1, 0, 0, 1]]), torch.tensor([[0.6, 0.4, 0.2, 0.3, 0.5]])
    plan = actor.distillation_target(action, mean)
    assert plan.tolist() == action.tolist()
    agreeing, differing = torch.tensor([[0, 9.0, 0, 0, 9]]), torch.tensor([[9.0, 0, 0, 0, 9]])
    assert actor.imitation(agreeing, plan) < 0.01 < actor.imitation(differing, plan)


def test_what_is_far_from_all_it_saw_is_clipped():
    norm = RunningNorm(1, clip=10.0)
    norm.update(torch.tensor([[-1.0], [1.0]]))
    assert norm(torch.tensor([[50.0], [-1e6], [2.0]])).flatten().tolist() == pytest.approx([10.0, -10.0, 2.0])


@pytest.mark.parametrize(("gamma", "horizon"), [(0.0, 1.0), (0.9, 10.0), (0.99, 100.0), (1.0, 1000.0)])
def test_a_cost_to_go_is_in_units_of_the_discounted_horizon(gamma, horizon):
    module = CostModule(4, 2, [8], JointCostToGo(4, 2, [8], 2), gamma)
    assert module.effective_horizon == pytest.approx(horizon)


def test_the_cost_scale_counts_every_cost_of_a_batch_once():
    module = CostModule(4, 2, [8], JointCostToGo(4, 2, [8], 2), 0.9)
    module.observe_cost(torch.tensor([3.0, -3.0]))
    assert module.cost_scale.item() == pytest.approx(3.0)
    module.observe_cost(torch.tensor([0.0]))
    assert module.cost_scale.item() == pytest.approx(6.0**0.5)
    module.observe_cost(torch.tensor([0.0]), unit=2.0)
    assert module.cost_scale.item() == pytest.approx(4.5**0.5 / 2.0)


def test_a_critics_loss_is_huber_over_all_members_that_see_a_row_and_leaves_its_target_alone():
    critic = JointCostToGo(4, 2, [8], ensemble_size=3)
    z, action, target = torch.randn(5, 4), torch.randn(5, 2), torch.full((5,), 100.0, requires_grad=True)
    loss = critic.loss(z, action, target, members_per_row=3)
    members = critic.members(z, action)
    torch.testing.assert_close(loss, (100.0 - members).abs().mean(0) - 0.5)
    loss.sum().backward()
    assert target.grad is None
    torch.testing.assert_close(critic.expected(z, action), members.sum(0) / 3)


def test_an_untrained_predictor_of_no_weight_stands_still():
    predictor, z = Predictor(8, 2, [16]), random_latents(5, 8, None, torch.device("cpu"))
    with torch.no_grad():
        for weight in predictor.net[-1].parameters():
            weight.zero_()
    torch.testing.assert_close(predictor(z, torch.randn(5, 2)), z, atol=1e-4, rtol=0)
