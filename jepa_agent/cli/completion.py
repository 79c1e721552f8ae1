"""``jepa-agent completion``."""

from __future__ import annotations

from collections.abc import Sequence

from jepa_agent.cli import VERBS
from jepa_agent.cli.flags import parser_of

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


def run(argv: Sequence[str]) -> int:
    """Print the script."""
    shell = parser_of("completion").parse(argv).shell
    cases = "\n".join(f'      {verb}) words="{" ".join(parser_of(verb).flags())}" ;;' for verb in VERBS)
    print(SHELLS[shell] + SCRIPT.format(verbs=" ".join(VERBS), cases=cases), end="")
    return 0
