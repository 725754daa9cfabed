"""What programs that listen have in common: this machine's names, and their secrets."""

import argparse
import os
from pathlib import Path

from musilingo_jax.runtime.command_line import CommandParser, nonempty
from musilingo_jax.runtime.errors import UserError

# Letters of a secret, so that no device or video is read to its end.
_LONGEST = 4096

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""The names of this machine that no other machine reaches."""


def add_arguments(parser: CommandParser, *, port: int) -> None:
    """The arguments that name a model, and the address to listen at.

    Args:
      parser: gets `--model --adapter --style --host --port`.
      port: unless the command line says otherwise.
    """
    add = parser.add_argument
    model = "a run, the folder of a release, or a name; default: the embedded model"
    add("--model", metavar="SOURCE", type=nonempty, help=model)
    add("--adapter", metavar="DIR", type=nonempty, help="another adapter for the model")
    add("--style", metavar="NAME", help="of a release: evaluation or demo")
    host = "address to listen at (default: 127.0.0.1, for this machine only)"
    add("--host", metavar="ADDRESS", type=nonempty, default=LOOPBACK[0], help=host)
    free = f"0: any that is free (default: {port})"
    add("--port", metavar="N", type=_port, default=port, help=free)


def shown_name(source: str) -> str:
    """What people elsewhere call a model: of a folder its name, and not its path."""
    return Path(source).resolve().name if Path(source).exists() else source


def _port(text: str) -> int:
    """A port, as the `type` of an argument.

    Raises:
      argparse.ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text} is not a port from 0 to 65535")
    return int(text)


def secret(path: str | None, *, flag: str, variable: str) -> tuple[str, str] | None:
    """A secret in a file, else that in the environment, and which of the two it is.

    White space around it is no part of it, nor is the mark with which editors on
    Windows begin a file.

    Args:
      path: of the file; None for the environment.
      flag: with which the file was named, for messages.
      variable: of the environment.

    Returns:
      None if there is neither.

    Raises:
      UserError: the file cannot be read.
    """
    if path is None:
        found = os.environ.get(variable)
        return None if found is None else (found.strip(), variable)
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            found = file.read(_LONGEST + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UserError(f"{flag}={path}: cannot be read: {reason}") from error
    if len(found) > _LONGEST:
        raise UserError(
            f"{flag}={path}: is longer than {_LONGEST} letters: no secret is"
        )
    return found, path
