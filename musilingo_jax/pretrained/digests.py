"""Digests of large files, kept from one start of a program to the next.

Hashing a language model of 14 GB takes as long as reading it, and a job that is
preempted and restarted would do so each time. As in git's index, a digest is valid as
long as the path, size and modification time of all files stay the same.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from musilingo_jax.runtime.paths import user_cache
from musilingo_jax.runtime.storage import write_text

# Below this total size hashing is instant, so no digest is kept.
LARGE = 1 << 27
# On file systems with coarse clocks, a file that changed less than this many seconds
# ago may change again without a new modification time.
_SETTLED = 5


def remembered(
    names: Iterable[str], files: Iterable[Path], compute: Callable[[], str]
) -> str:
    """The digest of some files, computed only if none is kept that is still valid.

    Args:
      names: what the digest covers besides the files.
      files: all files that `compute` depends on.
      compute: reads the files and returns their digest.
    """
    stats = [(path.resolve(), path.stat()) for path in sorted(files)]
    newest = max((stat.st_mtime for _, stat in stats), default=0.0)
    if sum(stat.st_size for _, stat in stats) < LARGE:
        return compute()
    described = [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats]
    key = hashlib.sha256(json.dumps([*names, described]).encode()).hexdigest()
    kept = user_cache("digests") / key
    try:
        digest = kept.read_text(encoding="ascii")
        if len(digest) == hashlib.sha256().digest_size * 2:
            return digest
    except (OSError, UnicodeDecodeError):
        pass  # None was kept, or the file is damaged.
    digest = compute()
    if time.time() - newest > _SETTLED:
        # If the home folder cannot be written, the next start computes it again.
        with contextlib.suppress(OSError):
            write_text(kept, digest)
    return digest
