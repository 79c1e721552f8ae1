"""Help in two lengths, and errors that show how to write it right."""

import os
import shlex

import pytest

from jepa_agent.acting.exploration import EXPLORATIONS
from jepa_agent.acting.mode_switch import modes
from jepa_agent.cli import VERBS, main
from jepa_agent.cli.flags import parser_of
from jepa_agent.cli.parser import Parser
from jepa_agent.config import PlannerConfig, as_kwargs
from jepa_agent.experiments.baselines import BASELINES
from jepa_agent.experiments.exact_models import EXACT_MODELS
from jepa_agent.experiments.laboratory import HORIZONS
from jepa_agent.learning.terms import TERMS
from jepa_agent.model.encoders import ENCODERS
from jepa_agent.model.memory import MEMORIES
from jepa_agent.planning import kinds


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A terminal of eighty columns."""
    monkeypatch.setenv("COLUMNS", "80")


def asked(capsys, *words):
    assert main(words) == 0
    return capsys.readouterr().out


def heads(text):
    """The flags that a help tells of, each as often as it does."""
    lines = [line.split() for line in text.splitlines() if line.startswith("  -")]
    return [word.rstrip(",") for words in lines for word in words[:3] if word.startswith("--")]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_the_first_help_fits_a_screen(verb, capsys):
    lines = asked(capsys, *([verb] if verb else []), "--help").splitlines()
    assert len(lines) <= (24 if not verb else 40)
    assert max(map(len, lines)) <= 80


def test_the_help_of_train_begins_with_what_a_newcomer_needs(capsys):
    short = heads(asked(capsys, "train", "-h"))
    assert {"--env", "--n-timesteps", "--seed", "--mode", "--output", "--progress", "--eval-freq", "--resume"} <= set(short)
    assert not [flag for flag in short if "." in flag]


@pytest.mark.parametrize("verb", VERBS)
def test_all_flags_are_told_once_in_help_all_and_the_first_help_says_that_there_are_more(verb, capsys):
    short, full = asked(capsys, verb, "--help"), asked(capsys, verb, "--help-all")
    assert sorted(heads(full)) == parser_of(verb).flags()
    hidden = set(heads(full)) - set(heads(short)) - {"--help", "--help-all"}
    assert (f"{len(hidden)} more flags" in short) == bool(hidden)
    planner = [flag for flag in heads(full) if flag.startswith("--planner.")]
    assert len(planner) in (0, len(as_kwargs(PlannerConfig())))


def test_a_flag_is_in_the_first_help_only_if_its_group_is_of_the_basics():
    parser = Parser("try", "Try.", "jepa-agent try")
    parser.basics("basics").add_argument("--first", type=int, help="needed")
    parser.add_argument("--later", type=int, help="rarely needed")
    assert heads(parser.format_short_help()) == ["--first"]
    assert {"--first", "--later"} <= set(heads(parser.format_help()))


def test_the_names_that_help_writes_out_are_those_there_are(capsys):
    told = {verb: asked(capsys, verb, "--help-all").replace(",", " ").replace(";", " ").split() for verb in VERBS}
    for name in (*kinds(), *EXPLORATIONS, *ENCODERS, *MEMORIES, *(mode.replace("every_k", "every_4") for mode in modes())):
        assert any(word.strip(".:()") == name for word in told["train"]), name
    for verb in ("train", "pretrain"):
        [terms] = [action.help for action in parser_of(verb)._actions if action.dest == "terms"]
        assert f": {', '.join(term.name for term in TERMS)};" in terms  # some are names of modes, too
    assert set(BASELINES) <= set(told["compare"])
    flags = {action.dest: action for action in parser_of("plan-bench")._actions}
    assert flags["exact"]._typehint.__args__ == tuple(EXACT_MODELS)
    assert f"; {HORIZONS['agent']} for an agent" in flags["horizon"].help


@pytest.mark.parametrize("verb", VERBS)
def test_completion_knows_all_flags(verb, capsys):
    line = next(line for line in asked(capsys, "completion", "bash").splitlines() if line.strip().startswith(f"{verb})"))
    assert line.split('"')[1].split() == parser_of(verb).flags()


def test_whole_numbers_may_be_written_with_an_exponent():
    parser = parser_of("train")
    options = parser.parse(["--env", "CartPole-v1", "-n", "1.5e3", "--agent.buffer_size=1e5", "--output", "1e3"])
    assert (options.n_timesteps, options.agent.buffer_size, options.output) == (1500, 100_000, "1e3")


@pytest.mark.parametrize("given", [["--config", "{}"], ["--config={}"]])
def test_what_is_written_out_wins_over_a_file_wherever_that_stands(tmp_path, given):
    (tmp_path / "settings.yml").write_text("env: CartPole-v1\nn_timesteps: 700\nseed: 3\n")
    file = [word.format(tmp_path / "settings.yml") for word in given]
    for argv in (["-n", "50", *file], [*file, "-n", "50"]):
        options = parser_of("train").parse(argv)
        assert (options.n_timesteps, options.seed) == (50, 3)


TRAIN = "train --env CartPole-v1"
WRONG = {
    "learn --env CartPole-v1": "unknown verb 'learn'; choose one of train, pretrain",
    "Train": "did you mean train or pretrain?",
    "--env CartPole-v1": "write a verb first: jepa-agent train",
    f"{TRAIN} --eval-frq 9": "there is no flag --eval-frq; did you mean --eval-freq?",
    f"{TRAIN} --eval_freq 9": "did you mean --eval-freq?",
    f"{TRAIN} --eval-f 9": "there is no flag --eval-f; did you mean --eval-freq?",  # no abbreviations
    f"{TRAIN} --total-timesteps 9": "did you mean --n-timesteps?",
    f"{TRAIN} --learning-rate 0.1": "did you mean --agent.learning_rate?",
    f"{TRAIN} --agent.ent_coef 0.1": "temperature is learned by itself",
    f"{TRAIN} --xyz": "jepa-agent train --help-all lists all flags",
    f"{TRAIN} --planner.horizon five": "--planner.horizon five: expected a whole number; write --planner.horizon 3",
    f"{TRAIN} --planner.horizon 0": "--planner.horizon must lie between 1 and 1000, got 0",
    f"{TRAIN} --planner.kind cme": "did you mean cem?",
    f"{TRAIN} --planner.descent adamm": "expected one of adam, plain; did you mean adam?",
    f"{TRAIN} --planner cem": "--planner cem: expected a YAML file of settings; one setting alone",
    f"{TRAIN} --model.net_arch 128": "write --model.net_arch '[128,128]'",
    f"{TRAIN} --agent.learning_rate fast": "expected a number; write --agent.learning_rate 0.001",
    f"{TRAIN} --agent.memory grru": "--agent.memory grru: no such name is known; did you mean gru?",
    f"{TRAIN} --env-kwargs 5": """write --env-kwargs '{"gravity": 5.0}'""",
    f"{TRAIN} --env-kwargs sutton_barto:true": "did you mean sutton_barto_reward?",
    f"{TRAIN} --mode planer": "unknown mode 'planer'; did you mean planner?",
    f"{TRAIN} --on-bad-obs end_episode": "did you mean end-episode?",
    f"{TRAIN} --step-timeout 0": "expected a number above 0 and at most 100000; write --step-timeout 10",
    f"{TRAIN} --device gpu": "--device gpu is no device; choose cpu or auto",
    f"{TRAIN} --progress=yes": "--progress takes no value",
    f"{TRAIN} -n 1k": "--n-timesteps 1k: expected a whole number of at least 1; write --n-timesteps 10000",
    f"{TRAIN} -n": "--n-timesteps needs a value: write --n-timesteps 10000",
    f"{TRAIN} --seed -1": "expected a whole number from 0",
    f"{TRAIN} --output": "--output needs a value: write --output runs/mine",
    "train": "--env is missing: write jepa-agent train --env CartPole-v1",
    "train CartPole-v1": "'CartPole-v1' follows no flag: write --env CartPole-v1",
    "train --env cartpole": "did you mean CartPole-v1?",
    "train --env ActionMatters-v0": "did you mean JEPA/ActionMatters-v0?",
    "train --env ALE/Pong-v5": "--env ale_py:ALE/Pong-v5",
    "train --env jepa_agent:CartPol-v1": "did you mean jepa_agent:CartPole-v1?",
    "train --env jepa_agent:Qqqq-v0": "module 'jepa_agent' registers none of that name",
    "evaluate": "MODEL is missing: write jepa-agent evaluate runs/",
    "evaluate nowhere --mode actor": "did you mean --modes?",
    "evaluate nowhere --format yaml": "--format yaml: expected one of table, csv, json",
    "enjoy nowhere --episode 3": "did you mean --episodes?",
    "explain nowhere --outptu x.png": "did you mean --output?",
    "compare --env CartPole-v1 --baselines PPOO --output x": "there is no baseline 'PPOO'; did you mean PPO?",
    "plot": "RUNS is missing: write jepa-agent plot runs/",
    "plot nowhere --window 0": "write --window 10",
    "speed x": "'x' follows no flag",
    "plan-bench --exact pendlum": "did you mean pendulum?",
    "plan-bench --exact pendulum --planners mpii": "did you mean mppi?",
    "envs cartpool": "did you mean CartPole-v1",
    "doctor --dir x": "choose one of --folder",
    "completion fish": "SHELL fish: expected one of bash, zsh",
}


@pytest.mark.parametrize(("line", "says"), WRONG.items(), ids=WRONG)
def test_what_is_wrong_is_told_in_a_line_that_shows_the_way_out(line, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(line)) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert told.err.startswith("jepa-agent")
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert os.listdir(tmp_path) == []
