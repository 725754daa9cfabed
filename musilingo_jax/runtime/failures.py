"""Failures of the machine, found in the errors that libraries make of them.

A full disk is an `OSError` in Python. Libraries that write in C++ raise errors of their
own that quote it, in one of three ways:

    RuntimeError from OSError(28, …)                          a cause of the error
    ValueError "… [os_error_code='28'] …"                     TensorStore, below Orbax
    RuntimeError "… No space left on device; write failed"    ArrayRecord
"""

import errno
import os
import re
from collections.abc import Iterator

from musilingo_jax.runtime.errors import UserError, causes, text_of
from musilingo_jax.runtime.printable import printable

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
GONE = (errno.ENOENT, errno.ESTALE)
# What no program provokes on purpose, so that it counts wherever it is in a chain.
_BROKEN = (*NO_SPACE, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)

_QUOTED_NUMBER = re.compile(r"os_error_code='(\d+)'")
_QUOTED_TEXTS = {os.strerror(number): number for number in (*_BROKEN, *GONE)}
# How XLA and libraries in C++ begin or name the lack of memory.
_NO_MEMORY = ("RESOURCE_EXHAUSTED", "std::bad_alloc", "Out of memory")


def system_error(error: BaseException) -> int | None:
    """The system's number of the failure that an exception is about, if there is one.

    Args:
      error: an `OSError`, or what a library has made of one. Of its causes only
        failures of the disk count: a file that does not exist may be part of anything.
    """
    for number, cause in _numbers(error):
        if cause is error or number in _BROKEN:
            return number
    return None


def explain(error: BaseException) -> UserError | None:
    """The message for a failure of the machine; None for any other error.

    For an error that nothing closer to its origin has explained.
    """
    for number, cause in _numbers(error):
        if number in _BROKEN:
            file = _file_of(cause)
            where = "" if file is None else f"{file}: "
            remedy = "free some" if number in NO_SPACE else "repair that"
            return UserError(
                f"{where}{os.strerror(number)}: {remedy} and run the same command again"
            )
    if isinstance(error, OSError) and (sentence := _about_file(error)):
        return UserError(sentence)
    for cause in causes(error):
        if isinstance(cause, MemoryError) or any(
            t in text_of(cause) for t in _NO_MEMORY
        ):
            reason = printable(text_of(cause)).partition("\n")[0]
            return UserError(
                f"there is not enough memory{f' ({reason})' if reason else ''}: end "
                "other programs, choose smaller batches, or use a larger machine"
            )
    return None


def _numbers(error: BaseException) -> Iterator[tuple[int, BaseException]]:
    """The system's numbers in an exception and its causes, each with its exception."""
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno is not None:
            yield cause.errno, cause
            continue
        text = text_of(cause)
        if quoted := _QUOTED_NUMBER.search(text):
            yield int(quoted[1]), cause
        for reason, number in _QUOTED_TEXTS.items():
            if reason in text:
                yield number, cause


def _about_file(error: OSError) -> str | None:
    """One sentence about an `OSError` that can hardly be a bug; None for others.

    Whatever a user names may be a file in a folder that is closed to them, a name that
    is too long, or a folder in place of a file.
    """
    file = _file_of(error)
    if file is None or error.errno in (None, errno.ENOENT, errno.EEXIST):
        return None
    return f"{file}: {error.strerror}"


def _file_of(error: BaseException) -> str | None:
    """The file that an error is about, if it is known by name."""
    name = error.filename if isinstance(error, OSError) else None
    known = isinstance(name, str | bytes | os.PathLike)
    return printable(os.fsdecode(name)) if known else None
