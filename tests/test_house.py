"""The house keeps its plan: few rooms at the top, one class, one direction."""

import re
from functools import cache
from pathlib import Path

import pytest

import jepa_agent
from jepa_agent import JEPA

grimp = pytest.importorskip("grimp")
ROOT = Path(jepa_agent.__file__).parent
DOORS = ("cli", "zoo", "experiments", "envs")


@pytest.fixture(scope="module")
def imports():
    """By module of the library, doors and the package's own door left out, what it imports directly."""
    graph = grimp.build_graph("jepa_agent")
    rooms = {name for name in graph.modules if name.count(".") and name.split(".")[1] not in DOORS}
    return {name: sorted(graph.find_modules_directly_imported_by(name) & rooms) for name in rooms}


def test_few_modules_stand_at_the_top():
    assert len(list(ROOT.glob("*.py"))) <= 12


def test_the_agent_is_one_class():
    assert [base for base in JEPA.__mro__ if base.__module__.startswith("jepa_agent.")] == [JEPA]


def test_no_import_leads_back_and_no_chain_of_them_is_long(imports):
    under_way = []

    @cache
    def longest(name):
        assert name not in under_way, f"a circle: {' -> '.join([*under_way, name])}"
        under_way.append(name)
        chain = (name, *max((longest(other) for other in imports[name]), key=len, default=()))
        under_way.pop()
        return chain

    chain = max(map(longest, imports), key=len)
    assert len(chain) <= 10, " -> ".join(chain)


def test_the_contract_of_floors_is_short_and_names_every_room(imports):
    contract = (ROOT.parent / "pyproject.toml").read_text().partition("layers = [")[2].partition("]")[0]
    floors = re.findall(r'"(.*)"', contract)
    assert len(floors) <= 10
    named = {room for floor in floors for room in floor.split(" | ")}
    assert {".".join(name.split(".")[:2]) for name in imports} - {"jepa_agent._version"} <= named


def test_the_drawing_of_the_house_names_files_that_are_there():
    drawing = (ROOT.parent / "docs" / "architecture.md").read_text()
    changes = drawing.partition("## Where do I change")[2]
    rows = [line for line in changes.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) >= 10
    for row in rows:
        files = re.findall(r"`(jepa_agent/[\w/.]+)`", row)
        assert 1 <= len(files) <= 3, row
        assert all((ROOT.parent / file).exists() for file in files), row
    for file in re.findall(r"`([\w/]+\.py)`", drawing):
        assert (ROOT.parent / file).exists() or (ROOT / file).exists(), file
