import pytest
import torch

from jepa_agent.model.memory import AttentionMemory, GRUMemory, make_memory
from jepa_agent.types import Past

D, A, K = 8, 2, 4
KINDS = pytest.mark.parametrize("kind", [GRUMemory, AttentionMemory])


def built(kind):
    torch.manual_seed(0)
    return kind(D, A, K), torch.randn(5, D), torch.randn(5, K, D + A + 1)


@KINDS
def test_without_a_past_nothing_is_added(kind):
    memory, seen, notes = built(kind)
    assert memory(seen, Past(notes, torch.zeros(5, K))).eq(0).all()


@KINDS
def test_masked_notes_are_not_looked_at(kind):
    memory, seen, notes = built(kind)
    mask = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(5, K)
    other = torch.cat([notes[:, :2], torch.randn(5, 2, D + A + 1)], dim=1)
    torch.testing.assert_close(memory(seen, Past(notes, mask)), memory(seen, Past(other, mask)))
    assert not torch.allclose(memory(seen, Past(notes, mask)), memory(seen, Past(notes, torch.ones(5, K))))


@KINDS
def test_the_order_of_the_past_matters(kind):
    memory, seen, notes = built(kind)
    mask = torch.ones(5, K)
    assert not torch.allclose(memory(seen, Past(notes, mask)), memory(seen, Past(notes.flip(1), mask)), atol=1e-3)


@KINDS
def test_every_note_reaches_the_latent_and_no_row_another(kind):
    memory, seen, notes = built(kind)
    notes.requires_grad_()
    memory(seen, Past(notes, torch.ones(5, K)))[2].square().sum().backward()
    assert (notes.grad[2].abs().sum(-1) > 0).all()
    assert notes.grad[[0, 1, 3, 4]].eq(0).all()


@KINDS
def test_several_steps_at_a_time_are_as_each_alone(kind):
    memory, seen, notes = built(kind)
    mask = torch.tensor([1.0, 1.0, 1.0, 0.0]).expand(5, K)
    together = memory(torch.stack([seen, -seen], 1), Past(torch.stack([notes, -notes], 1), torch.stack([mask, mask], 1)))
    torch.testing.assert_close(together[:, 0], memory(seen, Past(notes, mask)))
    torch.testing.assert_close(together[:, 1], memory(-seen, Past(-notes, mask)))


def test_a_network_is_chosen_by_name_or_copied_as_given():
    own = GRUMemory(D, A, size=3, hidden_dim=5)
    copied = make_memory(own, D, A, K)
    assert isinstance(copied, GRUMemory)
    assert copied.size == 3
    assert copied.output.weight is not own.output.weight
    assert make_memory("none", D, A, K) is None
    assert isinstance(make_memory("attention", D, A, K), AttentionMemory)
    with pytest.raises(ValueError, match=r"'lstm' .* choose one of none, gru, attention"):
        make_memory("lstm", D, A, K)
