"""``jepa-agent completion``. Flags are listed in `jepa_agent.cli.flags`, so that no shell need wait for torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from jepa_agent.cli import VERBS, UsageError
from jepa_agent.cli.flags import FLAGS

SCRIPT = """\
# jepa-agent: completion of verbs and flags. For bash: eval "$(jepa-agent completion bash)"
_jepa_agent() {{
  local words word="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{verbs}"
  else
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
  fi
  case "$word" in
    -*) COMPREPLY=($(compgen -W "$words" -- "$word")) ;;
    *) if [ "$COMP_CWORD" -eq 1 ]; then COMPREPLY=($(compgen -W "$words" -- "$word"))
       else COMPREPLY=($(compgen -f -- "$word")); fi ;;
  esac
}}
complete -o filenames -F _jepa_agent jepa-agent
"""
SHELLS = {"bash": "", "zsh": "autoload -U +X bashcompinit && bashcompinit\n"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def build_parser() -> argparse.ArgumentParser:
    """The verb's flags."""
    parser = _Parser(
        prog="jepa-agent completion",
        usage="%(prog)s {bash,zsh}",
        description='Print a script that completes verbs and flags: eval "$(jepa-agent completion bash)" in ~/.bashrc',
    )
    parser.add_argument("shell", choices=list(SHELLS), help="bash or zsh")
    return parser


def run(argv: Sequence[str]) -> int:
    """Print the script."""
    shell = build_parser().parse_args(argv).shell
    cases = "\n".join(f'      {verb}) words="{" ".join(FLAGS[verb])}" ;;' for verb in VERBS)
    print(SHELLS[shell] + SCRIPT.format(verbs=" ".join(VERBS), cases=cases), end="")
    return 0
