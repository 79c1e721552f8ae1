"""What a planner is shown."""

import torch

from jepa_agent.acting.deliberation import deliberate
from jepa_agent.planning import Planner
from jepa_agent.types import Plan


class Asking(Planner):
    """Keeps what the given sequences cost."""

    horizon = 2
    asked: torch.Tensor

    def plan(self, cost_fn, init):
        own = init.sequences[:, :1]
        self.asked = cost_fn(torch.cat([own, own + 0.1, own - 0.1], dim=1).clamp(-1.0, 1.0))
        return Plan(own[:, 0], own[:, 0], torch.zeros_like(own[:, 0]), self.asked[:, 0])


def test_costs_are_relative_to_the_actors_own_sequence_and_raised_by_the_disagreement_on_that(small):
    world = small("Pendulum-v1").world_model

    def objective(z, actions):
        height = actions.sum((-1, -2))
        return torch.stack([7.0 + height, 5.0 + 3.0 * height])  # two members that differ in the slope

    planner, z = Asking(), torch.randn(4, 16)
    with torch.no_grad():
        plan, gain, disagreement = deliberate(world, planner, objective, 2.0, z, torch.zeros(4, 2, 1), torch.Generator())
        own = world.actor_sequence(z, 2).sum((-1, -2))
    candidates = torch.stack([(world.actor_sequence(z, 2) + d).clamp(-1, 1).sum((-1, -2)) for d in (0.0, 0.1, -0.1)], dim=1)
    more = candidates - own.unsqueeze(1)
    expected = 2.0 * more + 2.0 * (2.0 * more).abs() / 2**0.5  # mean of slopes 1 and 3, and two deviations of them
    torch.testing.assert_close(planner.asked, expected, atol=1e-4, rtol=0)
    assert gain.abs().max() < 1e-5
    assert disagreement.abs().max() < 1e-5
    assert torch.equal(plan.actions, plan.mean)
