"""An algorithm looks the same in every picture, and no two of one picture look alike."""

import pytest

from jepa_agent.experiments.baselines import BASELINES
from jepa_agent.pictures.looks import LOOKS, looks
from jepa_agent.planning import kinds


def test_an_algorithm_has_one_look_whoever_stands_beside_it():
    alone, among = looks(["Mine"]), looks(["SAC", "Mine", "JEPA (actor)", "PPO"])
    assert alone["Mine"] == among["Mine"]
    assert among["SAC"] == looks(["SAC"])["SAC"] == LOOKS["SAC"]


def test_every_algorithm_we_compare_has_a_colour_and_a_mark_of_its_own():
    known = [LOOKS[name] for name in ("JEPA", *BASELINES)]
    assert len({look.colour for look in known}) == len({look.marker for look in known}) == len(known)


def test_every_planner_has_a_colour_and_a_mark_of_its_own():
    known = [LOOKS[kind] for kind in kinds() if kind != "auto"]
    assert len({look.colour for look in known}) == len({look.marker for look in known}) == len(known)


def test_modes_share_colour_and_mark_and_differ_in_line_and_filling():
    found = looks(["JEPA (actor)", "JEPA (planner)", "JEPA (auto)", "SAC"])
    ours = [found[f"JEPA ({mode})"] for mode in ("actor", "planner", "auto")]
    assert {(look.colour, look.marker) for look in ours} == {LOOKS["JEPA"][:2]}
    assert len({(str(look.line), look.fill) for look in ours}) == 3


@pytest.mark.parametrize("count", [2, 40])
def test_no_two_unknown_ones_of_a_picture_look_alike(count):
    names = [f"run_{k}" for k in range(count)]
    found = looks(names)
    assert len({found[name][:2] for name in names}) == count
    assert looks(reversed(names)) == found


def test_more_than_there_are_looks_repeat():
    assert len(looks(f"run_{k}" for k in range(100))) == 100
