import pytest
import torch

from jepa_agent.mode_switch import ActorMode, AutoMode, EveryK, PlannerMode, make_mode_switch
from jepa_agent.working_memory import WorkingMemory


def memory(*steps):
    empty = WorkingMemory.empty(len(steps), 2, 2, 1, 2)
    return empty._replace(steps=torch.tensor(steps))


def test_actor_and_planner_decide_the_same_everywhere():
    assert ActorMode().wants_plan(memory(0, 5)).tolist() == [False, False]
    assert PlannerMode().wants_plan(memory(0, 5)).tolist() == [True, True]


def test_every_k_counts_each_environment_from_its_own_start():
    assert EveryK(3).wants_plan(memory(0, 1, 2, 3, 6)).tolist() == [True, False, False, True, True]


def test_auto_takes_only_gains_that_disagreement_does_not_explain():
    gain, disagreement = torch.tensor([1.0, 1.0, -1.0, torch.nan]), torch.tensor([0.5, 2.0, 0.0, 0.0])
    assert AutoMode(confidence=1.0).accepts(gain, disagreement).tolist() == [True, False, False, False]


def test_planner_mode_takes_every_plan():
    assert PlannerMode().accepts(torch.tensor([-1.0]), torch.tensor([9.0])).tolist() == [True]


def test_names():
    assert make_mode_switch("every_7") == EveryK(7)
    assert make_mode_switch("every_k") == EveryK(4)
    assert make_mode_switch(AutoMode(2.0)) == AutoMode(2.0)
    for wrong in ("fast", "every_0", "every_", None):
        with pytest.raises(ValueError, match="choose actor"):
            make_mode_switch(wrong)
