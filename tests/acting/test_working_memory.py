import numpy as np
import pytest
import torch

from jepa_agent.acting.working_memory import Control, WorkingMemory


def empty(batch=2):
    return WorkingMemory.empty(batch, latent_dim=4, action_dim=2, horizon=3)


def step(memory, value):
    batch = len(memory.steps)
    return memory.remember(
        torch.full((batch, 4), value),
        torch.full((batch, 2), value),
        torch.arange(3.0).view(1, 3, 1).expand(batch, 3, 2) + value,
        torch.zeros(batch, dtype=torch.int64),
    )


def test_remembers_the_last_step_and_counts_them():
    memory = empty()
    for value in (1.0, 2.0, 3.0):
        memory = step(memory, value)
    assert memory.latent[1].tolist() == [3.0] * 4
    assert memory.action[1].tolist() == [3.0] * 2
    assert memory.plan[0, :, 0].tolist() == [3.0, 4.0, 5.0]
    assert memory.steps.tolist() == [3, 3]


def test_survives_packing():
    memory = step(empty(), 1.5)
    again = WorkingMemory.unpack(memory.pack(), empty())
    assert all(torch.equal(a, b) for a, b in zip(memory, again, strict=True))


def test_unpacking_does_not_write_into_the_callers_arrays():
    packed = step(empty(), 1.0).pack()
    kept = [array.copy() for array in packed]
    again = WorkingMemory.unpack(packed, empty())
    for field in again:
        field.zero_()
    assert all(np.array_equal(a, b) for a, b in zip(packed, kept, strict=True))


def test_clearing_one_row_leaves_the_other():
    memory = step(empty(), 2.0).clear(torch.tensor([True, False]))
    assert memory.steps.tolist() == [0, 1]
    assert not any(field[0].any() for field in memory)
    assert memory.action[1].tolist() == [2.0, 2.0]


def test_clearing_forgets_what_is_not_a_number_too():
    memory = step(empty(), float("nan")).clear(torch.tensor([True, False]))
    assert memory.latent[0].eq(0).all()
    assert memory.latent[1].isnan().all()


def test_surprise_is_the_distance_to_what_was_expected_and_nothing_at_a_start():
    memory = step(empty(), 1.0).clear(torch.tensor([True, False]))
    assert memory.surprise(torch.full((2, 4), 5.0), torch.full((2, 4), 2.0)).tolist() == [0.0, 3.0]


def test_warm_start_drops_the_executed_action_and_holds_the_last():
    assert step(empty(1), 0.0).warm_start()[0, :, 0].tolist() == [1.0, 2.0, 2.0]


def test_a_state_of_another_form_is_refused():
    with pytest.raises(ValueError, match=r"2 env\(s\)"):
        WorkingMemory.unpack(empty(3).pack(), empty(2))
    with pytest.raises(ValueError, match="predict"):
        WorkingMemory.unpack(np.zeros(3), empty(2))


def test_searches_are_counted_where_they_were_made_and_their_gains_fade():
    memory, rows = empty(), torch.tensor([True, False])
    control = Control(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0]))
    for gain in (4.0, 0.0):
        memory = memory.searched(rows, 2.5 * rows, torch.full((2,), gain), control)
    assert memory.searches.tolist() == [2.0, 0.0]
    assert memory.milliseconds.tolist() == [5.0, 0.0]
    assert memory.recent_gain.tolist() == [1.0, 0.0]  # half of 4, halved by a search that gained nothing
    assert all(torch.equal(kept, given) for kept, given in zip(memory.control, control, strict=True))
    assert not any(field.any() for field in memory.clear(torch.tensor([True, True])))


def test_rows_can_be_taken():
    memory = step(empty(3), 1.0)._replace(steps=torch.tensor([5, 6, 7]))
    taken = memory.take(torch.tensor([2, 0]))
    assert taken.steps.tolist() == [7, 5]
    assert all(len(field) == 2 for field in taken)


def test_notes_are_kept_newest_first_and_count_only_for_this_episode():
    memory = WorkingMemory.empty(2, latent_dim=4, action_dim=2, horizon=3, notes=(3, 1))
    for value in (1.0, 2.0, 3.0, 4.0):
        memory = step(memory.note(torch.full((2, 1), value)), value)
    assert memory.past().notes[0, :, 0].tolist() == [4.0, 3.0, 2.0]
    memory = memory.clear(torch.tensor([True, False]))
    memory = step(memory.note(torch.full((2, 1), 5.0)), 5.0)
    assert memory.past().mask.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert memory.past().notes[:, :, 0].tolist() == [[5, 0, 0], [5, 4, 3]]
