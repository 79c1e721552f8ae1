"""Arguments of environments, as rl_zoo3 writes them."""

import pytest
import yaml

from jepa_agent.cli import main

WORDS = {
    "None": None,
    "(50,100)": [50, 100],
    "'8x8'": "8x8",
    "1:30": "1:30",
    "True": True,
    "false": False,
    "1e-3": 0.001,
    "[0,1]": [0, 1],
    "8x8": "8x8",
    "{'a': None}": {"a": None},
    "a b:c": "a b:c",
}


@pytest.mark.parametrize("style", ["pairs", "dotted", "joined"])
def test_values_are_python_literals_and_everything_else_is_text(capsys, style):
    named = {f"key{number}": word for number, word in enumerate(WORDS)}
    words = {
        "pairs": ["--env-kwargs", *(f"{name}:{word}" for name, word in named.items())],
        "dotted": [part for name, word in named.items() for part in (f"--env-kwargs.{name}", word)],
        "joined": [f"--env-kwargs.{name}={word}" for name, word in named.items()],
    }[style]
    with pytest.raises(SystemExit):
        main(["train", *words, "--env", "CartPole-v1", "--print_config"])
    found = yaml.safe_load(capsys.readouterr().out)["env_kwargs"]
    assert list(found.values()) == list(WORDS.values())


@pytest.mark.parametrize("name", ["ALE/Pong-v5", "MiniGrid-Empty-5x5-v0", "Nobody-Knows-v0"])
def test_an_id_that_is_not_registered_is_told_how_its_module_is_named(capsys, name):
    assert main(["train", "--env", name, "-n", "10"]) == 2
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert f":{name}" in told
    assert "name its module" in told
