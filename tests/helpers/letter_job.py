"""A job whose items are words and whose rows say how long they are."""

import functools
import time
from pathlib import Path

from etils import epath

from musilingo_jax.jobs import row_job
from musilingo_jax.jobs.engine import THIS_PROCESS
from musilingo_jax.jobs.job import Place
from musilingo_jax.jobs.journal import FOLDER
from musilingo_jax.jobs.row_job import Result
from musilingo_jax.jobs.share import Share
from musilingo_jax.runtime.errors import UserError

WORDS = [f"{'x' * n}{n}" for n in range(17)]
ALL = Share(0, 1)


def place(folder, **changes):
    given = {"identity": {"version": 1}, "shard_items": 3, **changes}
    return Place(
        epath.Path(folder),
        **given,
        flag="--out",
        busy="counting letters here",
        label="counting",
        unit="word",
    )


def count(words, bad=(), stop_at=None, wait=0.0):
    for word in words:
        time.sleep(wait)
        if word == stop_at:
            raise KeyboardInterrupt
        reason = f"{word}: is no word"
        yield Result(UserError(reason) if word in bad else {"n": len(word)}, 1.5)


def load(bad=(), stop_at=None, wait=0.0):
    return functools.partial(count, bad=bad, stop_at=stop_at, wait=wait)


def run(
    folder,
    words=WORDS,
    share=ALL,
    engine=THIS_PROCESS,
    *,
    bad=(),
    stop_at=None,
    wait=0.0,
    retry=False,
    **changes,
):
    return row_job.run(
        place(folder, **changes),
        {word: word for word in words},
        functools.partial(load, bad, stop_at, wait),
        share,
        engine,
        made="these counts",
        retry=retry,
    )


def files(folder):
    """All that a finished job leaves, but who did it when."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and "lock" not in path.name and path.parent.name != FOLDER
    }
