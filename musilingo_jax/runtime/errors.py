"""Errors meant for the person at the keyboard."""

from collections.abc import Iterator


class UserError(Exception):
    """Something that the user can correct: one sentence says what, where and how.

    Programs print it as `error: …` and exit with 1; a traceback is only for our bugs.
    """

    exit_code = 1


class UsageError(UserError):
    """The command line itself is wrong: an unknown flag, key or argument."""

    exit_code = 2


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, the one that it was raised from or during, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
