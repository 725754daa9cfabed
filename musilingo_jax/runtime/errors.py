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


def text_of(error: BaseException) -> str:
    """The text of an exception, whatever a class of somebody's own does to make it."""
    try:
        return str(error)
    except Exception as another:
        return f"its text cannot be made: {type(another).__name__}"


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, all that it was raised from or during, and those of groups.

    The exception itself comes first, then those that are next to it:

        RuntimeError ◀── ExceptionGroup ─┬─ OSError ◀── KeyboardInterrupt
                                         └─ ValueError
    """
    found, queue = {id(error)}, [error]
    for current in queue:  # It grows meanwhile.
        yield current
        others = [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            others += current.exceptions
        for other in others:
            if other is not None and id(other) not in found:
                found.add(id(other))
                queue.append(other)
