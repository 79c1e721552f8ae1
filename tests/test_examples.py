"""Every script in examples/ runs, is short, and says how to run it."""

import importlib.util
import math
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
STEPS = 130  # a few updates after the 100 random steps

# What must come out even after so few steps.
CLAIMS = {
    "exact_resume": lambda found: found["equal"] and found["learned since"] > 0 and found["steps"] == STEPS + STEPS // 2,
    "goal_at_run_time": lambda found: found["before"] == found["after"] < found["asked"],
    "own_planner": lambda found: found["actor"] != found["planner"],
    "own_representation_term": lambda found: found["with"] > found["without"],
    "swap_sac": lambda found: found.keys() == {"SAC", "JEPA"},
    "vec_normalize": lambda found: found["statistics kept"],
}


@pytest.fixture(params=SCRIPTS, ids=lambda path: path.stem)
def script(request):
    return request.param


def test_there_are_scripts_and_every_claim_is_of_one():
    assert CLAIMS.keys() <= {path.stem for path in SCRIPTS}


def test_a_script_runs_and_returns_finite_numbers(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location(f"examples_{script.stem}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.main(STEPS)
    assert found
    assert all(math.isfinite(value) for value in found.values()), found
    assert CLAIMS.get(script.stem, lambda found: True)(found), found
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_a_script_is_short_and_says_how_to_run_it(script):
    text = script.read_text()
    assert len(text.splitlines()) < 60
    assert f"Run: python examples/{script.name}" in text.split('"""')[1]
    assert text.rstrip().endswith('if __name__ == "__main__":\n    print(main())')
