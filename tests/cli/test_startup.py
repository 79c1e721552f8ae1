"""What is asked of the shell is answered before torch is imported."""

import subprocess
import sys

import pytest

import jepa_agent
from jepa_agent.cli import VERBS, module_of
from jepa_agent.cli.flags import FLAGS


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["completion", "bash"], ["trian"]])
def test_nothing_heavy_is_imported_to_say_what_there_is(words):
    code = (
        "import sys; from jepa_agent.cli import main; main(sys.argv[1:]); "
        "print([name for name in ('torch', 'stable_baselines3', 'jsonargparse') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", VERBS)
def test_flags_that_are_completed_are_those_there_are(verb):
    actions = module_of(verb).build_parser()._actions
    flags = {option for action in actions for option in action.option_strings if option.startswith("--")}
    assert tuple(sorted(flags)) == FLAGS[verb]


def test_every_public_name_can_be_imported_and_is_listed():
    assert all(getattr(jepa_agent, name) is not None for name in jepa_agent.__all__)
    assert set(jepa_agent.__all__) <= set(dir(jepa_agent))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = jepa_agent.Nothing
