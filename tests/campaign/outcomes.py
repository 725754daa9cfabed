"""What a damaged input may lead to, and which of it is a fault.

    same       status 0 and the result of the undamaged input
    told       status 0, another result, and a line on stderr that names the file
    changed    status 0 and another result, of an input that anybody may change, such
               as the samples of a song
    refused    status 1 or 2 and one line "error: …" that names the file
    ended      by the signal that was sent, with its status and without a traceback

All others are faults:

    different  as `changed`, of a file that we write and could have guarded
    false      refused, though the input says the same as the undamaged one
    unclear    status 1 or 2 without such a line
    traceback  Python's
    hang       a limit of processor time, or of waiting, was reached
    memory     more was asked for than any such input needs
    crash      by a signal that was not sent
    escape     control characters of foreign names reached the terminal
    executed   code of the input was executed
    lost       something that was finished is gone
"""

import re
import signal
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePath

from helpers.programs import Done

from campaign import inside

GOOD = ("same", "told", "changed", "refused", "ended")
CANARY = "canary"
"""A file that hostile inputs make when they are executed."""

_HANGS = (-signal.SIGXCPU, -inside.IDLE_SIGNAL)
# Not the MemoryError that a config raises with its own text.
_MEMORY = re.compile(
    r"MemoryError(?!: campaign)|bad_alloc|Cannot allocate memory|RESOURCE_EXHAUSTED"
)
_PROGRESS = re.compile(r"\d+%\||/s\]|\?[a-z]+/s")


def classify(
    done: Done | None,
    *,
    same: bool,
    guarded: bool,
    names: Iterable[str],
    place: Path,
    usual: str = "",
    harmless: bool = False,
) -> str:
    """The outcome of an input, as in the table above.

    Args:
      done: what the program left; None if it was ended at the last resort.
      same: whether the result is that of the undamaged input.
      guarded: whether another result without a notice is a fault.
      names: texts of which one must be in a message about the file.
      place: the folder that the program ran in.
      usual: what it writes to stderr for the undamaged input.
      harmless: whether the input says the same as the undamaged one.
    """
    if done is None or done.returncode in _HANGS:
        return "hang"
    if (place / CANARY).exists():
        return "executed"
    said = done.stdout + done.stderr
    failed = done.returncode != 0
    if failed and _MEMORY.search(done.stderr):
        return "memory"
    if "Traceback (most recent call last)" in said:
        return "traceback"
    if done.returncode < 0:
        return "crash"
    if any(_is_unsafe(character) for character in said):
        return "escape"
    names = list(names)
    if failed:
        if not is_sentence(done, names):
            return "unclear"
        return "false" if harmless and not guarded else "refused"
    if same:
        return "same"
    if has_notice(done.stderr, usual, names):
        return "told"
    if harmless and not guarded:
        return "false"
    return "different" if guarded else "changed"


def is_sentence(done: Done, names: Iterable[str]) -> bool:
    """Whether a program ended with a message that names something."""
    _, found, message = ("\n" + done.stderr).rpartition("\nerror: ")
    lines = message.strip().count("\n")
    named = any(name in message for name in names)
    return done.returncode in (1, 2) and bool(found) and named and lines < 12


def has_notice(stderr: str, usual: str, names: Iterable[str]) -> bool:
    """Whether a line that is not usual names something."""
    known = set(usual.splitlines())
    lines = (line for line in stderr.splitlines() if not _PROGRESS.search(line))
    return any(name in line for line in lines if line not in known for name in names)


def names_of(target: PurePath) -> list[str]:
    """How messages may name a file: itself, or a folder that it is in."""
    folders = [str(parent) for parent in target.parents if parent != PurePath(".")]
    return [target.name.encode("unicode_escape").decode(), target.name, *folders]


def _is_unsafe(character: str) -> bool:
    return character not in "\n\t\r" and unicodedata.category(character) in ("Cc", "Cs")
