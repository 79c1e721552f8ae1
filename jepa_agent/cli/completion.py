"""``jepa-agent completion``."""

from __future__ import annotations

from collections.abc import Sequence

from jepa_agent.cli import VERBS, module_of
from jepa_agent.cli.common import Parser

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


def build_parser() -> Parser:
    """The verb's flags."""
    parser = Parser(
        "completion", "Print a script that completes verbs and flags.", 'eval "$(jepa-agent completion bash)" in ~/.bashrc'
    )
    parser.add_argument("shell", choices=list(SHELLS), help="bash or zsh")
    return parser


def run(argv: Sequence[str]) -> int:
    """Print the script."""
    shell = build_parser().parse(argv).shell
    cases = "\n".join(f'      {verb}) words="{" ".join(flags(verb))}" ;;' for verb in VERBS)
    print(SHELLS[shell] + SCRIPT.format(verbs=" ".join(VERBS), cases=cases), end="")
    return 0


def flags(verb: str) -> list[str]:
    """The flags of a verb."""
    parser = module_of(verb).build_parser()
    return sorted({option for action in parser._actions for option in action.option_strings if option.startswith("--")})
