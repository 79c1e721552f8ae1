import pytest
import torch

from jepa_agent.acting.gain_model import GainModel
from jepa_agent.acting.mode_switch import (
    NUM_FEATURES,
    ActorMode,
    AutoMode,
    CandidateCosts,
    DisagreementMode,
    EveryK,
    PlannerMode,
    RandomMode,
    Situation,
    SurpriseMode,
    make_mode_switch,
)
from jepa_agent.acting.working_memory import WorkingMemory
from jepa_agent.config import AgentConfig

BUDGETED = (RandomMode, SurpriseMode, DisagreementMode, AutoMode)


def memory(*steps):
    empty = WorkingMemory.empty(len(steps), 2, 1, 2)
    return empty._replace(steps=torch.tensor(steps))


class GainOfDisagreement(GainModel):
    """Expects three times the ensemble's disagreement; searches gained a half in the mean."""

    def __init__(self):
        super().__init__(NUM_FEATURES)
        self.moment[0, 0], self.product[0] = 10.0, 5.0

    def forward(self, features):
        return 3.0 * features[:, 2]


def candidates(costs):
    """Costs ``(E, B, 2 + K)`` of the actor's action, the remembered plan's, and others."""
    return CandidateCosts(costs[..., 0], costs[..., 1], costs[..., 2:])


def situation(memory, surprise=None, costs=None):
    surprise = torch.zeros(len(memory.steps)) if surprise is None else surprise
    found = candidates(torch.zeros(2, len(memory.steps), 2) if costs is None else costs)
    return Situation(memory, surprise, lambda: found, GainOfDisagreement(), unit=torch.tensor(2.0))


def live(switch, scores, milliseconds=1.0):
    """Where a switch searches, ``(T, B)``, when surprise and disagreement both follow ``scores`` ``(T, B)``."""
    remembered, searched = memory(*[0] * scores.shape[1]), []
    for score in scores:
        judged = torch.stack([score, -score]).unsqueeze(-1).expand(2, len(score), 2)
        now = situation(remembered, score, judged)
        wanted = switch.wants_plan(now)
        remembered = remembered.searched(wanted, milliseconds * wanted, torch.zeros_like(score), switch.control(now))
        remembered = remembered._replace(steps=remembered.steps + 1)
        searched.append(wanted)
    return torch.stack(searched)


def scores(kind, steps=200):
    time = torch.arange(steps).float()
    generator = torch.Generator().manual_seed(123)
    return {
        "noise": torch.rand(steps, generator=generator),
        "constant": torch.ones(steps),
        "nothing": torch.zeros(steps),
        "rising": time,
        "falling": steps - time,
        "bursts": (time % 40 < 10).float() + 0.01 * torch.rand(steps, generator=generator),
        "huge": 1e6 * torch.rand(steps, generator=generator),
    }[kind]


def test_actor_and_planner_decide_the_same_everywhere():
    assert ActorMode().wants_plan(situation(memory(0, 5))).tolist() == [False, False]
    assert PlannerMode().wants_plan(situation(memory(0, 5))).tolist() == [True, True]


def test_every_k_counts_each_environment_from_its_own_start():
    assert EveryK(3).wants_plan(situation(memory(0, 1, 2, 3, 6))).tolist() == [True, False, False, True, True]


@pytest.mark.parametrize("kind", ["noise", "constant", "nothing", "rising", "falling", "bursts", "huge"])
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("switch", BUDGETED)
def test_a_budget_is_held_within_a_tenth_over_an_episode(switch, fraction, kind):
    searched = live(switch(plan_fraction=fraction), scores(kind).unsqueeze(1))
    assert abs(searched.float().mean() - fraction) <= 0.1 * fraction + 1e-6


@pytest.mark.parametrize("switch", BUDGETED)
def test_a_budget_of_time_is_held_within_a_tenth_over_an_episode(switch):
    searched = live(switch(ms_per_step=0.5), scores("noise").unsqueeze(1), milliseconds=2.0)
    assert 2.0 * searched.float().mean() == pytest.approx(0.5, rel=0.1)


def test_only_a_budget_of_time_looks_at_the_clock():
    assert SurpriseMode(ms_per_step=1.0).clocked
    assert not SurpriseMode().clocked
    assert not PlannerMode().clocked


@pytest.mark.parametrize("switch", [SurpriseMode(), DisagreementMode(), AutoMode(plan_fraction=0.25)])
def test_searches_fall_where_the_score_is_high(switch):
    score = scores("noise", 600)
    searched, score = live(switch, score.unsqueeze(1))[200:, 0], score[200:]  # once the threshold has found its place
    assert score[searched].mean() > 0.8
    assert score[~searched].mean() < 0.5


def test_random_searches_heed_no_score():
    score = scores("noise")
    searched = live(RandomMode(), score.unsqueeze(1))[:, 0]
    assert torch.equal(searched, live(RandomMode(), 1.0 - score.unsqueeze(1))[:, 0])
    assert not torch.equal(searched, live(RandomMode(seed=1), score.unsqueeze(1))[:, 0])
    assert 0.4 < score[searched].mean() < 0.6


@pytest.mark.parametrize("switch", BUDGETED)
def test_an_environment_is_decided_on_as_if_it_were_alone(switch):
    both = torch.stack([scores("noise"), scores("rising")], dim=1)
    together = live(switch(plan_fraction=0.25), both)
    alone = [live(switch(plan_fraction=0.25), column.unsqueeze(1))[:, 0] for column in both.T]
    assert torch.equal(together, torch.stack(alone, dim=1))


def test_auto_searches_always_unless_given_a_budget():
    assert live(AutoMode(), scores("noise").unsqueeze(1)).all()


def test_auto_takes_only_gains_that_disagreement_does_not_explain():
    gain, disagreement = torch.tensor([1.0, 1.0, -1.0, torch.nan]), torch.tensor([0.5, 2.0, 0.0, 0.0])
    assert AutoMode(confidence=1.0).accepts(gain, disagreement).tolist() == [True, False, False, False]
    assert AutoMode(plan_fraction=0.5).accepts(gain, disagreement).all()  # it has chosen where to search


def test_auto_leaves_a_plan_that_gains_nothing_to_the_actor():
    assert AutoMode().accepts(torch.zeros(1), torch.zeros(1)).tolist() == [False]
    assert AutoMode(confidence=2.0).accepts(torch.tensor([1.0]), torch.tensor([0.5])).tolist() == [False]


def test_auto_asks_for_more_than_every_plan_has():
    assert AutoMode().confidence > AgentConfig().plan_pessimism


def test_planner_mode_takes_every_plan():
    assert PlannerMode().accepts(torch.tensor([-1.0]), torch.tensor([9.0])).tolist() == [True]


def test_costs_to_go_are_computed_once_and_only_if_asked_for():
    calls = []
    costs = lambda: calls.append(1) or candidates(torch.zeros(2, 1, 2))  # noqa: E731
    asked = Situation(memory(1), torch.zeros(1), costs, GainOfDisagreement(), unit=torch.ones(()))
    SurpriseMode().wants_plan(asked)
    assert not calls
    DisagreementMode().wants_plan(asked)
    AutoMode(plan_fraction=0.5).wants_plan(asked)
    assert len(calls) == 1


def test_features_tell_what_a_gain_may_depend_on():
    remembered = memory(3, 3)._replace(searches=torch.tensor([2.0, 0.0]), recent_gain=torch.tensor([1.4, 0.0]))
    # (E, B, 3): the actor's action, the remembered plan's, and one more; no plan is remembered before the first search.
    costs = torch.tensor([[[5.0, 2.0, 4.0], [5.0, 2.0, 4.0]], [[7.0, 3.0, 6.0], [7.0, 3.0, 6.0]]])
    now = situation(remembered, torch.tensor([0.2, 0.3]), costs)
    plan = (3.5 - 0.5**0.5) / 2.0  # ahead by 3 and by 4, less the spread of that, in units of 2
    expected = [[1.0, 0.2, 0.5, 0.7, plan], [1.0, 0.3, 0.5, 0.0, 0.5]]
    torch.testing.assert_close(now.features, torch.tensor(expected))
    assert now.expected_gain.tolist() == [3.0, 3.0]
    assert now.mean_gain.tolist() == [1.0, 1.0]
    assert now.cost_to_go.tolist() == [6.0, 6.0]


@pytest.mark.parametrize("switch", [SurpriseMode(), DisagreementMode(), AutoMode(plan_fraction=0.25)])
def test_a_budget_is_not_overdrawn_at_any_step_but_the_first(switch):
    score = torch.cat([torch.full((20,), 50.0), torch.zeros(180)])
    searched = live(switch, score.unsqueeze(1))[:, 0].cumsum(0)
    assert (searched <= (1.1 * 0.25 * torch.arange(1, 201)).clamp(min=1.0)).all()
    assert searched[19] == 5
    assert searched[-1] >= 0.225 * 200


def test_a_search_is_made_at_the_first_step_and_whenever_two_are_due():
    searched = live(AutoMode(plan_fraction=0.25), scores("nothing").unsqueeze(1))[:, 0]
    assert searched[0]
    assert max(searched.nonzero().squeeze(-1).diff()) <= 12


def test_names():
    assert make_mode_switch("every_7") == EveryK(7)
    assert make_mode_switch("every_k") == EveryK(4)
    assert make_mode_switch(AutoMode(confidence=3.0)) == AutoMode(confidence=3.0)
    assert make_mode_switch("auto") == AutoMode(plan_fraction=1.0)
    assert make_mode_switch("auto_0.1") == AutoMode(plan_fraction=0.1)
    assert make_mode_switch("surprise_2ms") == SurpriseMode(ms_per_step=2.0)
    assert make_mode_switch("disagreement") == DisagreementMode(plan_fraction=0.25)
    assert make_mode_switch("random_0.5") == RandomMode(plan_fraction=0.5)
    for wrong in ("fast", "every_0", "every_", "auto_", "planner_0.1", "auto_ms", None):
        with pytest.raises(ValueError, match=r"choose actor|did you mean (every_4|auto)"):
            make_mode_switch(wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [("auto_0", "nothing to spend"), ("auto_0.0ms", "nothing to spend"), ("random_1.5", "plan_fraction must lie")],
)
def test_budgets_out_of_range_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        make_mode_switch(wrong)
    with pytest.raises(ValueError, match="ms_per_step must be"):
        SurpriseMode(ms_per_step=-1.0)
