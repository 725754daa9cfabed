"""Digests of large files, remembered from one start of a program to the next.

To hash a language model of 14 GB takes as long as to read it, and a job that is
preempted and restarted would do so each time. Like `git` with its index, a digest is
taken to hold as long as path, size and time of change of all files are what they were.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from musilingo_jax.runtime.paths import user_cache
from musilingo_jax.runtime.storage import write_text

# Files that are smaller together are read in no time, and nothing is remembered.
LARGE = 1 << 27
# A file that was changed in this many seconds might be changed again without its time
# showing it, on file systems whose clock is that coarse.
_SETTLED = 5


def remembered(
    names: Iterable[str], files: Iterable[Path], compute: Callable[[], str]
) -> str:
    """The digest of some files, computed only if it is not known.

    Args:
      names: what, besides the files, the digest is of.
      files: all that `compute` depends on.
      compute: reads them and tells their digest.
    """
    stats = [(path.resolve(), path.stat()) for path in sorted(files)]
    newest = max((stat.st_mtime for _, stat in stats), default=0.0)
    if sum(stat.st_size for _, stat in stats) < LARGE:
        return compute()
    described = [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats]
    key = hashlib.sha256(json.dumps([*names, described]).encode()).hexdigest()
    note = user_cache("digests") / key
    try:
        found = note.read_text(encoding="ascii")
        if len(found) == hashlib.sha256().digest_size * 2:
            return found
    except (OSError, UnicodeDecodeError):
        pass  # Then it is not known.
    found = compute()
    if time.time() - newest > _SETTLED:
        # Where the home folder cannot be written, next time takes as long again.
        with contextlib.suppress(OSError):
            write_text(note, found)
    return found
