"""A distance that may be longer on the way back, on numbers computed by hand, on a one-way ring, and as a cost of plans."""

import math

import numpy as np
import pytest
import torch

from jepa_agent import JEPA, PlannerConfig
from jepa_agent.learning.terms import Cost, Prediction, Quasimetric, Termination
from jepa_agent.learning.terms.quasimetric import interval_distance, quasimetric_loss
from jepa_agent.model.blocks import mlp


def test_intervals_are_measured_once_where_they_overlap():
    x = torch.tensor([[[0.0, 1.0, 5.0, 2.0]]])
    y = torch.tensor([[[2.0, 4.0, 6.0, 1.0]]])
    assert interval_distance(x, y).tolist() == [5.0]  # [0, 2], [1, 4] and [5, 6] cover [0, 4] and [5, 6]; the last is empty
    assert interval_distance(y, x).tolist() == [1.0]  # only the last leads up, from 1 to 2
    assert interval_distance(x, x).tolist() == [0.0]
    inside = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[9.0, 2.0]]])
    assert interval_distance(*inside).tolist() == [9.0]
    two = torch.tensor([[[0.0], [0.0]]]), torch.tensor([[[3.0], [1.0]]])
    assert interval_distance(*two).tolist() == [2.0]  # the mean of 3 and 1


def test_a_detour_is_never_shorter_and_nothing_is_below_zero():
    x, y, z = torch.randn(3, 200, 4, 8, generator=torch.Generator().manual_seed(0))
    assert (interval_distance(x, z) <= interval_distance(x, y) + interval_distance(y, z) + 1e-5).all()
    assert (interval_distance(x, y) > 0).all()
    assert (interval_distance(x, y) - interval_distance(y, x)).abs().mean() > 0.1


def test_a_step_is_held_to_one_and_others_are_pushed_until_they_are_far():
    loss = quasimetric_loss(torch.tensor([0.5, 3.0]), torch.tensor([30.0, 30.0]), far=30.0, constraint=2.0)
    assert loss.tolist() == pytest.approx([10 * math.log(2), 8 + 10 * math.log(2)])
    near, far = quasimetric_loss(torch.ones(2), torch.tensor([10.0, 100.0]), far=30.0, constraint=2.0).tolist()
    assert near == pytest.approx(10 * math.log1p(math.exp(2.0)))
    assert far < 0.01
    with pytest.raises(ValueError, match="far and constraint must be above 0"):
        Quasimetric(far=0.0)


def test_on_a_one_way_ring_the_way_back_is_the_long_one():
    torch.manual_seed(0)
    net, states = mlp(6, [32], 16 * 8), torch.eye(6)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)

    def distances():
        placed = net(states).unflatten(-1, (16, 8))
        return interval_distance(*torch.broadcast_tensors(placed.unsqueeze(1), placed.unsqueeze(0)))

    ring = torch.arange(6)
    for _ in range(500):
        found = distances()
        step = found[ring, (ring + 1) % 6]
        loss = quasimetric_loss(step.unsqueeze(1), found, far=30.0, constraint=10.0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = distances().detach()
    ways = (ring.unsqueeze(0) - ring.unsqueeze(1)) % 6  # steps from each state to each other
    assert (found - ways).abs().max() < 0.5  # 1.1, 2.2, 3.3, 4.3 and, for the way back of one step, 5.0 to 5.2


def test_it_is_learned_saved_and_planned_with(small, tmp_path):
    term = Quasimetric(0.1)
    model = small("Pendulum-v1", representation=[Prediction(), Cost(), Termination(), term], mode="actor").learn(40)
    model.save(tmp_path / "agent")
    assert JEPA.load(tmp_path / "agent").terms[-1] == term
    world = model.world_model
    with torch.no_grad():
        goal = world.encode([[1.0, 0.0, 0.0]])[0]
        assert term.distance(world, goal, goal) == 0.0
    with model.using_cost(lambda z: term.distance(world, z, goal), PlannerConfig(horizon=3)):
        assert np.isfinite(model.predict(np.zeros(3, np.float32))[0]).all()
