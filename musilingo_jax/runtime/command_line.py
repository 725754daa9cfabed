"""Parses command lines: absl flags, `--config`, subcommands and `--help`.

Programs define their flags with absl, which `--config` and its overrides need. A
program with subcommands also has a `CommandParser`: absl takes the flags that it knows
from anywhere on the command line, and the parser gets the rest:

    cache export --config=tiny --out=x.npz --config.run=runs/a

    absl            --config=tiny --config.run=runs/a
    CommandParser   export --out=x.npz

Every mistake is a `UsageError` of one sentence.
"""

import argparse
import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_dict import RequiredValueError

from musilingo_jax.runtime.configs import find_config
from musilingo_jax.runtime.errors import UsageError, UserError, causes, text_of
from musilingo_jax.runtime.top_level import check_top_level

# absl counts a flag among those of the module that defines it. This module defines
# flags for the programs that call it.
flags.disclaim_key_flags()

_HELP = {"--help", "-h", "-?", "--helpshort"}


def define_config() -> None:
    """Defines `--config=NAME`, whose values `--config.KEY=VALUE` overrides."""
    config_flags.DEFINE_config_file(
        "config",
        None,
        "the config: a name such as tiny, or a file; --config.KEY=VALUE sets a value",
        lock_config=True,
    )


def typed_keys() -> set[str]:
    """The keys of the config that the command line sets, such as "generate.top_p"."""
    return set(config_flags.get_override_values(flags.FLAGS["config"]))


def required_config(*keys: str) -> ConfigDict:
    """The config that `--config` names.

    Args:
      *keys: what the program reads of it, as in `check_top_level`.

    Raises:
      UsageError: there is no `--config`, or the config lacks one of the keys or has
        a value of another kind there.
    """
    config = flags.FLAGS.config
    if config is None:
        raise UsageError("--config is missing: name a config, as in --config=tiny")
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    if missing := [k for k in keys if "." not in k and k not in config]:
        raise UsageError(
            f"--config={path}: the config lacks {', '.join(missing)}; see "
            "configs/tiny.py for a config that has all keys"
        )
    try:
        check_top_level(config, keys, "config")
    except UserError as error:
        raise UsageError(str(error)) from error
    return config


def parse_flags(argv: list[str], *, known_only: bool = False) -> list[str]:
    """Parses absl's flags; returns the program's name and the other arguments.

    Args:
      argv: the command line, with the program's name.
      known_only: whether to leave flags that absl does not know to another parser.

    Raises:
      UsageError: a flag is unknown, has a wrong value or several, or the config is
        wrong.
    """
    _check_given_once(argv)
    argv = _with_config_found(argv)
    try:
        with _no_bytecode():
            rest = flags.FLAGS(argv, known_only=known_only)
        config: Any = flags.FLAGS.config if "config" in flags.FLAGS else None
        _check_returned(config, argv)
        return rest
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:  # The file may exit, and so may a flag of absl.
        if message := _message(error, argv):
            raise UsageError(message) from error
        raise


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    """Leaves no `__pycache__` beside a config.

    Its bytecode would also be taken for a config of the same second and size.
    """
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def wants_help(argv: Sequence[str]) -> bool:
    """Whether a command line asks for help, whatever else it says."""
    return not _HELP.isdisjoint(argv[1:])


def help_text(description: str, usage: str) -> str:
    """The help of a program without subcommands.

    Args:
      description: the docstring of the program, which begins with examples.
      usage: the form of its command line.
    """
    parser = CommandParser(description=description, usage=usage)
    list_flags(parser)
    return parser.format_help()


def list_flags(parser: argparse.ArgumentParser, *names: str) -> None:
    """Adds absl flags to the help of a parser, which never gets to parse them.

    Args:
      parser: of the program or of one of its subcommands.
      *names: of the flags; all that the program defines if there are none.
    """
    ours = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
    group = parser.add_argument_group("flags")
    for flag in ours:
        if names and flag.name not in names:
            continue
        # absl adds this to flags that may be repeated.
        text = str(flag.help).partition(";\n")[0]
        if flag.default not in (None, False, "", []):
            text += f" (default: {flag.default})"
        options: dict[str, Any] = {}
        if flag.boolean:
            options["action"] = "store_true"
        else:
            number = flag.flag_type() in ("int", "float")
            options["metavar"] = "N" if number else flag.name.split("_")[-1].upper()
        group.add_argument(f"--{flag.name}", help=text.replace("%", "%%"), **options)


class CommandParser(argparse.ArgumentParser):
    """An argparse parser that raises `UsageError`, for a program or a subcommand."""

    def __init__(self, **options: Any):
        super().__init__(
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
                prog, max_help_position=36
            ),
            # A unique prefix is not the flag: scripts would break with the next flag.
            allow_abbrev=False,
            **options,
        )
        self._intermixing = False

    def error(self, message: str) -> NoReturn:
        """Raises `UsageError` where argparse would print and exit.

        Raises:
          UsageError: always.
        """
        raise UsageError(f"{message} (try {self.prog} --help)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but with flags between the words of an open list of them.

        In `ask SONG --json QUESTION`, argparse gives the list no words, for it ends at
        the first flag, and then does not know the question.
        """
        has_list = any(action.nargs == "*" for action in self._get_positional_actions())
        if not has_list or self._intermixing:
            return super().parse_known_args(args, namespace)
        self._intermixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixing = False

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """Parses a command line, of which absl takes the flags that it knows.

        Raises:
          UsageError: it is wrong.
          SystemExit: with status 0, after `--help`.
        """
        rest = argv if wants_help(argv) else parse_flags(argv, known_only=True)
        return self.parse_args(_command_first(rest[1:]))


def positive(text: str) -> int:
    """A whole number of at least 1, as the `type` of an argument.

    Raises:
      argparse.ArgumentTypeError: it is not one.
    """
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return int(text)


def nonempty(text: str) -> str:
    """A text with at least one character, as the `type` of an argument.

    Raises:
      argparse.ArgumentTypeError: it is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return text


def _command_first(words: list[str]) -> list[str]:
    """Moves the subcommand to the front, where argparse expects it.

        --out DIR split SOURCE    split --out DIR SOURCE

    The subcommand is the first word that is neither a flag nor the value of one. A
    switch such as `--json` would hide it, but none is allowed before a subcommand.
    """
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        is_value = before.startswith("--") and "=" not in before and before not in _HELP
        if not word.startswith("-") and not is_value:
            return [word, *words[:place], *words[place + 1 :]]
    return words


def _check_given_once(argv: list[str]) -> None:
    """Checks that no flag is given twice with different values.

    absl and argparse take the last one.

    Raises:
      UsageError: one is.
    """
    given: dict[str, str] = {}
    words = argv[1 : argv.index("--")] if "--" in argv else argv[1:]
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if not re.match(r"--?[A-Za-z]", word):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not equals:
            value = "" if following.startswith("-") else following
        if name in flags.FLAGS:
            flag = flags.FLAGS[name]
            if isinstance(flag, flags.MultiFlag):
                continue
            if flag.boolean and not equals:
                value = "true"
        elif name.startswith("no") and name[2:] in flags.FLAGS:
            name, value = name[2:], "false"
        if given.setdefault(name, value) != value:
            raise UsageError(
                f"--{name} is given twice, as {given[name]!r} and as {value!r}: give "
                "it once"
            )


def _with_config_found(argv: list[str]) -> list[str]:
    """The command line with the path of the config that `--config` names."""
    found = list(argv)
    for place, word in enumerate(argv):
        flag, equals, named = word.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if equals:
            found[place] = f"{flag}={find_config(named)}"
        elif place + 1 < len(argv):
            found[place + 1] = find_config(argv[place + 1])
    return found


def _message(error: BaseException, argv: list[str]) -> str | None:
    """Explains why flags could not be parsed; None if that is a bug of ours.

    config_flags runs the config's file and sets the overrides during parsing, so the
    error may be one of the file's own code. absl and config_flags each wrap some of
    them in another error.
    """
    path = _config_path(argv)
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, SyntaxError) and cause.filename in (path, None):
            line = f":{cause.lineno}" if cause.lineno else ""
            return f"--config: {path}{line} is not valid Python ({cause.msg})"
        frames = traceback.extract_tb(cause.__traceback__)
        lines = [frame.lineno for frame in frames if _same_file(frame.filename, path)]
        if lines:
            kind = type(cause).__name__
            return f"--config: {path}:{lines[-1]} raised {kind}: {text_of(cause)}"
        if isinstance(cause, RequiredValueError):
            return f"--config={path}: a required value is not set ({text_of(cause)})"
        if isinstance(cause, AttributeError) and "FrozenConfigDict" in text_of(cause):
            return (
                f"--config={path}: get_config returned an object of type "
                "FrozenConfigDict; it must return a ConfigDict"
            )
        if isinstance(cause, AttributeError) and cause.name == "get_config":
            return f"--config: {path} has no function get_config"
    if isinstance(error, flags.Error) and "whilst parsing config file" in str(error):
        # The message has a traceback in it.
        kind = type(chain[-1]).__name__
        return f"--config: {path} cannot be used ({kind}: {text_of(chain[-1])})"
    if isinstance(error, flags.Error):
        # Required flags, which absl reports on a line each.
        if missing := re.findall(r"^flag --(\w+)=None: ", str(error), re.MULTILINE):
            return f"--{', --'.join(missing)} must be given (try --help)"
        return f"{' '.join(str(error).split())} (try --help)"
    if isinstance(error, OSError):
        reasons = [cause.strerror for cause in chain if isinstance(cause, OSError)]
        return f"--config={path}: cannot be read ({reasons[-1]})"
    if isinstance(error, KeyError | AttributeError):
        return _unknown_key(error, argv)
    if isinstance(error, TypeError | ValueError):
        return f"--config: {text_of(chain[-1])}"
    return None


def _check_returned(config: Any, argv: list[str]) -> None:
    """Checks what `get_config` has returned, if there is a config at all.

    Raises:
      UsageError: it is not a config, or names no folder for the run.
      OSError: the file could not be read.
    """
    path = _config_path(argv)
    if path is None:
        return
    hasattr(config, "get")  # If the file cannot be read, this raises an OSError.
    if type(config) is not ConfigDict:
        raise UsageError(
            f"--config={path}: get_config returned {_an_object(config)}; it must "
            "return a ConfigDict"
        )
    if config.get("run") == "":
        raise UsageError("--config.run is empty: name a folder, e.g. runs/mine")


def _an_object(value: Any) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"


def _config_path(argv: list[str]) -> str | None:
    """The file that `--config` names, once it was found."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        flag, equals, named = word.partition("=")
        if flag in ("--config", "-config"):
            return (named if equals else following).partition(":")[0]
    return None


def _same_file(name: str, path: str | None) -> bool:
    return path is not None and os.path.abspath(name) == os.path.abspath(path)


def _unknown_key(error: Exception, argv: list[str]) -> str:
    """One sentence from the nested errors with which config_flags refuses a key."""
    while isinstance(error.args[0], Exception):
        error = error.args[0]
    key, _, advice = str(error.args[0]).partition("\n")
    key = key.strip("'\"")
    # The error names the last part of the key only; the flag has all of it.
    typed = (word.split("=")[0] for word in argv if word.startswith("--config."))
    flag = next((flag for flag in typed if key in flag.split(".")), "--config")
    return f"{flag}: the config has no key {key!r}. {advice}".strip()
