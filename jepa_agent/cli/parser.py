"""A parser that helps in two lengths and answers what is wrong in one line. It imports neither torch nor an agent."""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt, restricted_number_type

from jepa_agent.cli import UsageError
from jepa_agent.config import MOST_SECONDS, OF_OTHERS, did_you_mean
from jepa_agent.persistence.plain_data import check_import
from jepa_agent.persistence.yaml_file import read_yaml

SECONDS = restricted_number_type("Seconds", float, [(">", 0), ("<=", MOST_SECONDS)])
SEED = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32 - 20_000)])
HELP, HELP_ALL = ["-h", "--help"], "--help-all"
_EXPECTED: dict[Any, str] = {  # what a value must be, by its flag's type
    PositiveInt: "a whole number of at least 1",
    NonNegativeInt: "a whole number of at least 0",
    SEED: f"a whole number from 0 to {2**32 - 20_001}",
    int: "a whole number",
    PositiveFloat: "a number above 0",
    SECONDS: f"a number above 0 and at most {MOST_SECONDS}",
    float: "a number",
    dict: "arguments by name",
    tuple: "whole numbers in brackets, in quotes",
}
_EXAMPLES = {  # of values, by what a flag sets, where its default shows none
    "baseline_timesteps": "20000",
    "baselines": "PPO DQN",
    "config": "settings.yml",
    "data": "runs/pendulum",
    "env": "CartPole-v1",
    "env_kwargs": """'{"gravity": 5.0}' or gravity:5.0""",
    "eval_mode": "actor",
    "filter": "cart",
    "from": "runs/pretrained",
    "horizon": "5",
    "model": "runs/jepa/CartPole-v1_1",
    "output": "runs/mine",
    "planners": "mppi cem",
    "ray": "auto",
    "resume": "runs/jepa/CartPole-v1_1",
    "runs": "runs/pendulum",
    "step_timeout": "10",
    "study": "study.yaml",
    "tensorboard_log": "runs/tensorboard",
    "terms": "prediction inverse_dynamics:0.1",
    "threshold": "195",
}


class _Help(argparse.Action):
    """Print the help that is asked for, and leave."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> NoReturn:
        parser.print_asked_help([option_string])
        raise SystemExit(0)


class _Formatter(DefaultHelpFormatter):
    """What a flag does, and its default as it would be written; types are seen by that."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.required and action.option_strings:
            return f"{text} (required)"
        said = action.default is None or action.default is False or action.default in ({}, "", argparse.SUPPRESS)
        return text if said or "default" in text else f"{text} (default: {_as_written(action.default)})"

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        values = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {values}"


class Parser(ArgumentParser):
    """jsonargparse with help in two lengths, and errors of one line that show how to write it right.

    Flags that are added to a group of `basics` are what a newcomer needs: ``--help`` shows them. All others are in
    ``--help-all`` alone.
    """

    def __init__(self, verb: str, description: str, example: str):
        super().__init__(
            prog=f"jepa-agent {verb}",
            description=f"{description} Example: {example}",
            formatter_class=_Formatter,
            exit_on_error=False,
            default_env=False,
            allow_abbrev=False,
            add_help=False,
        )
        self._basics = [self._positionals]
        self._optionals.title = "more"
        for names, what in ((HELP, "show the flags to begin with"), ([HELP_ALL], "show all flags")):
            self.add_argument(*names, action=_Help, nargs=0, default=argparse.SUPPRESS, help=what)

    def basics(self, title: str) -> Any:
        """A group of flags that ``--help`` shows.

        Args:
            title: Written above them.
        """
        group = self.add_argument_group(title)
        self._basics.append(group)
        return group

    # ------------------------------------------------------------------ help

    def flags(self) -> list[str]:
        """All long flags, sorted; not the one that jsonargparse adds for a package which may be there."""
        found = {option for action in self._actions for option in action.option_strings if option.startswith("--")}
        return sorted(found - {"--print_shtab"})

    def print_asked_help(self, argv: Sequence[str]) -> bool:
        """Print the help that ``argv`` asks for, of all flags or of those that a newcomer needs; whether it asks."""
        if not {*HELP, HELP_ALL} & set(argv):
            return False
        print(self.format_help() if HELP_ALL in argv else self.format_short_help(), end="")
        return True

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """The help of all flags."""
        return self._format([*self._basics, *(group for group in self._action_groups if group not in self._basics)])

    def format_short_help(self) -> str:
        """The help of the flags that a newcomer needs."""
        shown = {action for group in self._basics for action in group._group_actions}
        hidden = [action for action in self._actions if action not in shown and not isinstance(action, _Help)]
        kinds = ", ".join(f"--{name}.*" for name in self.groups or ())
        self.epilog = (
            f"{len(hidden)} more flags{f', with {kinds}' if kinds else ''}: {self.prog} {HELP_ALL}" if hidden else None
        )
        try:
            return self._format(self._basics)
        finally:
            self.epilog = None

    def _format(self, groups: Sequence[Any]) -> str:
        """The help of groups of flags; what the verb is for comes before them, so its usage does not name all flags."""
        names = [f"[{one.dest}]" if one.nargs in ("?", "*") else one.dest for one in self._actions if not one.option_strings]
        self.usage = " ".join(["%(prog)s", *names, "[flags]"])
        before, self._action_groups = self._action_groups, list(groups)
        try:
            return super().format_help()
        finally:
            self._action_groups = before

    # ------------------------------------------------------------------ parsing

    def parse(self, argv: Sequence[str]) -> Namespace:
        """Parsed and instantiated settings; `UsageError` for anything that does not fit."""
        return self.build(self.parse_plain(argv))

    def parse_plain(self, argv: Sequence[str]) -> Namespace:
        """Settings as plain values, as they are written to a config file."""
        with self._one_line_errors():
            self._check_data(argv)
            return self.parse_args(self._words(argv))

    def _check_data(self, argv: Sequence[str]) -> None:
        """``ValueError`` if settings name a class to be built, or a config file an environment's module that the user did
        not name himself."""
        for option, value in pairwise([*argv, ""]):
            name, equals, inline = option.partition("=")
            if name == "--config":
                content = read_yaml(Path(inline if equals else value))
                env = content.get("env") if isinstance(content, dict) else None
                if isinstance(env, str) and env not in argv and f"--env={env}" not in argv:
                    check_import(env, inline or value, "--env")
            elif "class_path" in option:
                raise ValueError(f"{option}: class_path names what is to be called, which settings may not: leave it out")

    def given(self, argv: Sequence[str]) -> Namespace:
        """Plain values of what is said in ``argv``, and nothing else."""
        with self._one_line_errors():
            return self.parse_args(self._words(argv), defaults=False)

    def build(self, plain: Namespace) -> Namespace:
        """Plain values turned into the objects they describe, their ranges checked."""
        with self._one_line_errors():
            return self.instantiate(plain)

    def _words(self, argv: Sequence[str]) -> list[str]:
        """``argv`` with ``1e3`` as 1000 where a whole number is expected, and the environment's arguments in one word."""
        words: list[str] = []
        for word in _zoo_style(argv):
            name, equals, value = word.partition("=")
            flag, text = (name, value) if equals else (words[-1] if words else "", word)
            if re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d", text) and _is_whole(self._option_string_actions.get(flag)):
                number = float(text)
                text = str(int(number)) if number.is_integer() else text
                word = f"{flag}={text}" if equals else text
            words.append(word)
        return words

    # ------------------------------------------------------------------ errors

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        try:
            yield
        except UsageError:
            raise
        except Exception as error:  # jsonargparse and the dataclasses' range checks raise many kinds
            raise UsageError(self._one_line(str(error))) from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # type: ignore[override]
        """As argparse's, but what is wrong is raised, for `main` to print in one line.

        Raises:
            UsageError: Always.
        """
        raise UsageError(self._one_line(str(message)))

    def _one_line(self, message: str) -> str:
        """What jsonargparse and argparse say, in one line that shows how to write it right."""
        lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
        text = "; ".join(lines) if lines else message
        if found := re.match(r"unrecognized arguments: (.*)", text):
            return self._unknown(found[1].split()[0])
        if found := re.match(r"Option '([\w.\-]+)' is not accepted|Group '(\w+)' does not accept option '(\w+)'", text):
            return self._unknown_key(found[1] or f"{found[2]}.{found[3]}")
        if found := re.match(r"(\w+) must ", text):  # of a range, which names no flag
            flags = [action.option_strings[0] for action in self._actions if action.dest.endswith(f".{found[1]}")]
            return text.replace(found[1], flags[0], 1) if len(flags) == 1 else text
        if found := re.match(r"the following arguments are required: (.+)", text):
            missing = [action for action in map(self._action_of, found[1].split(", ")) if action]
            return "; ".join(f"{_name(action)} is missing: write {self.prog} {_written(action)}" for action in missing)
        found = re.match(r'(?:argument ([\w\-./]+)|Parser key "([^"]+)")(?: element \d+)?:;? ?(.*)', text)
        action = self._action_of(found[1] or found[2]) if found else None
        if not found or action is None:
            return text
        return _what_is_wrong(action, found[3])

    def _action_of(self, name: str) -> argparse.Action | None:
        """The action of a flag (as ``-n/--n-timesteps``) or of a setting's name (as ``planner.horizon``)."""
        flag = name.split("/")[-1]
        return next((one for one in self._actions if flag in one.option_strings or flag.replace("-", "_") == one.dest), None)

    def _unknown(self, word: str) -> str:
        word = word.partition("=")[0]
        if not word.startswith("-"):
            missing = [one for one in self._actions if one.required and not set(one.option_strings) & set(self.args)]
            way_out = f": write {_written(missing[0])}" if missing else ""
            return f"{word!r} follows no flag{way_out}{self._all_flags()}"
        if why := _why_gone(word):
            return f"there is no flag {word}: {why}"
        return f"there is no flag {word}{did_you_mean(word, self.flags()) or self._all_flags()}"

    def _unknown_key(self, key: str) -> str:
        if why := _why_gone(key):
            return f"there is no setting {key}: {why}"
        keys = sorted({action.dest for action in self._actions})
        return f"there is no setting {key}{did_you_mean(key, keys) or self._all_flags()}"

    def _all_flags(self) -> str:
        return f"; {self.prog} {HELP_ALL} lists all flags"


def _why_gone(name: str) -> str | None:
    """Why an agent of SB3's or of an earlier version has a setting that is none here."""
    return OF_OTHERS.get(name.rpartition(".")[2].strip("-").replace("-", "_"))


def _type_of(action: argparse.Action | None) -> Any:
    """The type of a flag's values."""
    return getattr(action, "_typehint", None) or getattr(action, "type", None)


def _is_whole(action: argparse.Action | None) -> bool:
    kind = _type_of(action)
    return isinstance(kind, type) and issubclass(kind, int)


def _choices(action: argparse.Action) -> list[str]:
    """The values that a flag takes, where these are few."""
    kind = _type_of(action)
    return list(action.choices or (get_args(kind) if get_origin(kind) is Literal else ()))


def _name(action: argparse.Action) -> str:
    """A flag as it is written, or the name of a positional argument in capitals."""
    return action.option_strings[-1] if action.option_strings else (action.dest.upper())


def _example(action: argparse.Action) -> str:
    """A value that a flag takes."""
    if action.dest in _EXAMPLES:
        return _EXAMPLES[action.dest]
    if choices := _choices(action):
        return choices[0]
    return "1000" if action.default is None else _as_written(action.default)


def _as_written(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, tuple):
        return f"'[{','.join(map(str, value))}]'"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _written(action: argparse.Action) -> str:
    """A flag with a value, or the value of a positional argument."""
    return " ".join([*action.option_strings[-1:], _example(action)])


def _what_is_wrong(action: argparse.Action, told: str) -> str:
    """What was given for a flag, what was expected, how to write it.

    Args:
        action: Of the flag.
        told: What jsonargparse or argparse has to say.
    """
    name = _name(action)
    given = re.search(r"Got value: (.*)|invalid literal for int\(\) with base 10: '(.*)'|invalid choice: '(.*?)'", told)
    bound = re.search(r"(\S+) does not conform to|could not convert string to float: '(.*)'", told)
    value = next((group for found in (given, bound) if found for group in found.groups() if group is not None), None)
    if "expected one argument" in told or "expected at least one argument" in told:
        return f"{name} needs a value: write {_written(action)}"
    if "explicit argument" in told:
        return f"{name} takes no value: write {name} alone"
    if "Unable to load config" in told:
        wrong = re.search(r"Unable to load config '(.*?)'", told)
        said = f" {wrong[1]}" if wrong else ""
        return f"{name}{said}: expected a YAML file of settings; one setting alone is written as {name}.NAME VALUE"
    if value is None:
        return f"{name}: {told}"
    if choices := _choices(action):
        return f"{name} {value}: expected one of {', '.join(choices)}{_near(value, choices)}"
    kind = get_origin(_type_of(action)) or _type_of(action)
    args = get_args(_type_of(action))
    kind = args[0] if kind is list and args else kind
    return f"{name} {value}: expected {_EXPECTED.get(kind, 'another value')}; write {_written(action)}"


def _near(value: str, choices: Sequence[str]) -> str:
    hint = did_you_mean(value, choices)
    return hint if "did you mean" in hint else ""


# ---------------------------------------------------------------------- arguments of environments


def _zoo_style(argv: Sequence[str]) -> list[str]:
    """``--env-kwargs g:9.8 k:'8x8'`` as rl_zoo3 has it, and ``--env-kwargs.g 9.8``, whose values are Python literals, as one
    ``--env-kwargs`` of JSON."""
    words: list[str] = []
    found: dict[str, Any] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        dotted = re.fullmatch(r"--env-kwargs\.(\w+)(?:=(.*))?", word, re.DOTALL)
        if dotted and (dotted[2] is not None or rest):
            found[dotted[1]] = _literal(rest.pop(0) if dotted[2] is None else dotted[2])
            continue
        pairs = []
        while word == "--env-kwargs" and rest and (pair := re.fullmatch(r"(\w+):(.+)", rest[0], re.DOTALL)):
            pairs.append((pair[1], _literal(pair[2])))
            rest.pop(0)
        found.update(pairs)
        if not pairs:
            words.append(word)
    return [*words, f"--env-kwargs={json.dumps(found)}"] if found else words


def _literal(text: str) -> Any:
    """What a Python literal means, or YAML's words for some of them; anything else is a text."""
    words = {"true": True, "false": False, "null": None}
    try:
        value = ast.literal_eval(text)
        json.dumps(value)
        return value
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return words.get(text, text)
