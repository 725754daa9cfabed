"""Errors meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user can mend: one sentence says what, where and how.

    Programs print it as `error: …` and exit with 1; a traceback is only for our bugs.
    """

    exit_code = 1


class UsageError(UserError):
    """The command line itself is wrong: an unknown flag, key or argument."""

    exit_code = 2
