"""Scripts with which a shell completes commands and their flags."""

import argparse

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
_{name}() {{
  local command="${{COMP_WORDS[1]}}" word="${{COMP_WORDS[COMP_CWORD]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{commands}"
  else
    case "$command" in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _{name} {name}
"""


def words_of(parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """Each command with its flags and choices; under "" those of the program itself."""
    found = {"": [w for action in parser._actions for w in action.option_strings]}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                words = [w for a in command._actions for w in a.option_strings]
                choices = [
                    str(choice)
                    for a in command._actions
                    if not a.option_strings
                    for choice in a.choices or ()
                ]
                found[name] = [*words, *choices]
    return found


def script(shell: str, name: str, parser: argparse.ArgumentParser) -> str:
    """What a shell is to read, as at the end of ~/.bashrc; file names are completed.

    Args:
      shell: of `SHELLS`.
      name: of the program.
      parser: its parser, with subcommands.
    """
    words = words_of(parser)
    own = words.pop("")
    if shell == "fish":
        lines = [
            f"complete -c {name} -n __fish_use_subcommand -a {command}"
            for command in words
        ]
        lines += [
            f"complete -c {name} -n __fish_use_subcommand -l {word[2:]}"
            for word in own
            if word.startswith("--")
        ]
        for command, flags in words.items():
            when = f"__fish_seen_subcommand_from {command}"
            for word in flags:
                kind = f"-l {word[2:]}" if word.startswith("--") else f"-a {word}"
                if word.startswith("--") or not word.startswith("-"):
                    lines.append(f"complete -c {name} -n '{when}' {kind}")
        return "\n".join(lines) + "\n"
    cases = "\n".join(
        f'      {command}) words="{" ".join(flags)}" ;;'
        for command, flags in words.items()
    )
    text = _BASH.format(name=name, commands=" ".join([*words, *own]), cases=cases)
    before = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return before + text
