"""What a program does with the rows of a job, when all of its shards are finished."""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from musilingo_jax.jobs import row_shards
from musilingo_jax.jobs.row_shards import RowState
from musilingo_jax.jobs.share import Share
from musilingo_jax.runtime import storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note, printable


def in_order(
    folder: epath.Path, state: RowState, ids: Collection[str]
) -> list[dict[str, Any]]:
    """The rows of some items, in their order; how many others there are is told.

    Raises:
      UserError: as in `row_shards.rows`.
    """
    rows = {row["id"]: row for row in row_shards.rows(folder, state)}
    ordered = [rows[id] for id in ids if id in rows]
    if others := len(rows) - len(ordered):
        print_note(f"{others} rows of what is not asked for stay in the shards")
    return ordered


def write(path: Path | epath.Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows into one file of JSON lines.

    Raises:
      UserError: it cannot be written.
    """
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with storage.writing(path, again="run the same command again"):
        storage.write_text(path, text)


def tell_unfinished(state: RowState, share: Share, *, later: str) -> None:
    """Says that a task is done, and what the others have left to do.

    Args:
      state: of the folder.
      share: of this task.
      later: what is done in the end, such as "annotations.jsonl is written".
    """
    print(
        f"task {share.task} of {share.tasks} is done; {len(state.heads)} of "
        f"{len(state.plans.shards)} shards are finished: {later} when the other tasks "
        "are done too"
    )


def tell_failed(
    failed: Mapping[str, str], count: int, *, problem: str, allowed: bool
) -> None:
    """Lists the items without a row.

    Args:
      failed: item → why.
      count: how many items were asked for.
      problem: what is the matter with them, such as "cannot be annotated".
      allowed: whether there may be some.

    Raises:
      UserError: there are some, and that is not allowed.
    """
    if not failed:
        return
    reasons = printable("".join(f"\n  {reason}" for reason in failed.values()))
    text = f"{len(failed)} of {count} {problem}"
    if allowed:
        print(f"{text}:{reasons}")
        return
    raise UserError(
        f"{text}; all others are done. Put right what is wrong and run this again with "
        f"--retry, or give --allow-missing:{reasons}"
    )
