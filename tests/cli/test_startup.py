"""What is asked of the shell, and what is mistyped, is answered before torch is imported."""

import subprocess
import sys

import pytest

import jepa_agent


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["--help"],
        ["trian"],
        ["completion", "bash"],
        ["train", "--help"],
        ["compare", "--help-all"],
        ["train", "--env", "CartPole-v1", "--eval-frq", "3"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_to_say_what_there_is(words):
    code = (
        "import sys; from jepa_agent.cli import main; main(sys.argv[1:]); "
        "print([name for name in ('torch', 'stable_baselines3', 'matplotlib') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_every_public_name_can_be_imported_and_is_listed():
    assert all(getattr(jepa_agent, name) is not None for name in jepa_agent.__all__)
    assert set(jepa_agent.__all__) <= set(dir(jepa_agent))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = jepa_agent.Nothing
