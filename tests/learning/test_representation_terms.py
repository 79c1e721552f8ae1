"""Terms of the representation's loss on numbers computed by hand."""

import math

import pytest
import torch

from jepa_agent.learning.representation import Contrast, InfoNCE, default_terms, infonce_loss
from jepa_agent.model.encoders import on_sphere

CORNERS = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).unsqueeze(1)  # (B=2, T=1, D=2), cosine -1 between them


def test_infonce_is_the_cross_entropy_of_finding_ones_own_target():
    # Logits are 1 / 0.5 for the own target and -1 / 0.5 for the other: log(1 + e^-4).
    found = infonce_loss(CORNERS, CORNERS, temperature=0.5)
    torch.testing.assert_close(found, torch.full((2, 1), math.log1p(math.exp(-4.0))))
    swapped = infonce_loss(CORNERS, CORNERS.flip(0), temperature=0.5)
    torch.testing.assert_close(swapped, torch.full((2, 1), math.log1p(math.exp(4.0))))


def test_infonce_of_targets_that_do_not_differ_is_log_of_the_batch():
    same = CORNERS[:1].expand(7, 3, 2)
    torch.testing.assert_close(infonce_loss(same, same), torch.full((7, 3), math.log(7.0)))


def test_infonce_compares_rows_of_the_same_step_only():
    torch.manual_seed(0)
    z_hat, z_target = on_sphere(torch.randn(5, 3, 8)), on_sphere(torch.randn(5, 3, 8))
    together = infonce_loss(z_hat, z_target)
    each = torch.cat([infonce_loss(z_hat[:, t : t + 1], z_target[:, t : t + 1]) for t in range(3)], dim=1)
    torch.testing.assert_close(together, each)


def test_infonce_grows_as_latents_contract_and_pushes_them_apart():
    torch.manual_seed(0)
    centre, offsets = torch.randn(1, 1, 16), torch.randn(32, 1, 16)
    losses = [infonce_loss(z, z).mean() for z in (on_sphere(centre + scale * offsets) for scale in (1.0, 0.3, 0.1))]
    assert losses[0] < losses[1] < losses[2]
    z = (centre + 0.1 * offsets).requires_grad_()
    infonce_loss(on_sphere(z), on_sphere(z)).mean().backward()
    moved = on_sphere(z.detach() - 0.1 * z.grad / z.grad.norm())
    assert moved.var(0).sum() > on_sphere(z.detach()).var(0).sum()


def test_no_gradient_flows_into_targets():
    target = CORNERS.clone().requires_grad_()
    infonce_loss(CORNERS.clone().requires_grad_(), target).sum().backward()
    assert target.grad is None


def test_terms_without_weight_are_left_out():
    names = [term.name for term in default_terms(1.0, 1.0, 1.0, 0.0, 0.0)]
    assert names == ["prediction", "cost", "termination"]
    assert default_terms(1.0, 1.0, 1.0, 0.5, 2.0)[3:] == [InfoNCE(0.5), Contrast(2.0)]


@pytest.mark.parametrize(("env", "weight"), [("Pendulum-v1", 0.3), ("CartPole-v1", None)])
def test_latents_are_told_apart_for_box_actions_alone(env, weight, small):
    weights = {term.name: term.weight for term in small(env, infonce_coef=0.3).terms}
    assert weights.get("infonce") == weight
