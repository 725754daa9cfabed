"""Shards of jobs that make a row of each item: JSON lines, whole or not there.

    00000007.jsonl
    {"shard": "00000007.jsonl", "identity": {…}, "items": ["a.ogg:…", "b.ogg:…"],
     "failed": {"b.ogg:…": "…: the file is empty"}, "absent": [], "rows": "9b1f…",
     "digest": "…"}
    {"id": "a.ogg:…", …}

The first line is sealed, and has a digest of all that follows. The rows are those of
`items` without those of `failed`, in the order of the plan; items that had left the
corpus when the shard was made are `absent`, and are planned anew when they are back.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from musilingo_jax.jobs import identity as identities
from musilingo_jax.jobs import seal, shard_plan
from musilingo_jax.jobs.identity import StoredIdentity, is_identity
from musilingo_jax.jobs.shard_plan import ShardPlans
from musilingo_jax.runtime import paths, storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import is_texts, parse_json
from musilingo_jax.runtime.printable import printable

_NAME = re.compile(r"\d{8}\.jsonl", re.ASCII)


class Head(NamedTuple):
    """The first line of a shard; attributes as in the picture above."""

    identity: StoredIdentity
    items: tuple[str, ...]
    failed: Mapping[str, str]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class RowState:
    """What the folder of a job holds.

    Attributes:
      plans: which shards there should be.
      heads: number of a finished shard → its first line.
      torn: what is wrong with the plans; None if nothing is. `plans` then is what the
        shards know of them.
    """

    plans: ShardPlans
    heads: Mapping[int, Head]
    torn: str | None

    @property
    def unfinished(self) -> list[int]:
        """The numbers of planned shards that are not finished."""
        return [n for n in range(len(self.plans.shards)) if n not in self.heads]

    @property
    def where(self) -> dict[str, int]:
        """Item → the shard that has it; of several, the last one."""
        return {
            item: number
            for number, items in enumerate(self.plans.shards)
            for item in items
            if number not in self.heads or item not in self.heads[number].absent
        }

    @property
    def failed(self) -> dict[str, str]:
        """Item → why it has no row."""
        return {
            item: self.heads[number].failed[item]
            for item, number in self.where.items()
            if number in self.heads and item in self.heads[number].failed
        }


def name_of(number: int) -> str:
    """The file name of a shard."""
    return f"{number:08}.jsonl"


def write(
    folder: epath.Path,
    number: int,
    identity: StoredIdentity,
    results: Iterable[tuple[str, Mapping[str, Any] | str]],
    absent: Sequence[str],
) -> None:
    """Writes a shard.

    Args:
      folder: of the job.
      number: of the shard.
      identity: what its rows depend on.
      results: each item with its row, or why it has none; in the order of the plan.
      absent: items that are planned for this shard, but not in the corpus any more.

    Raises:
      OSError: it cannot be written.
    """
    results = list(results)
    rows = "".join(
        json.dumps({"id": item, **result}, ensure_ascii=False) + "\n"
        for item, result in results
        if not isinstance(result, str)
    )
    head = {
        "shard": name_of(number),
        "identity": dict(identity),
        "items": [item for item, _ in results],
        "failed": {item: text for item, text in results if isinstance(text, str)},
        "absent": list(absent),
        "rows": _digest(rows),
    }
    text = json.dumps(seal.sealed(head)) + "\n" + rows
    storage.remove_partial_files(folder, f"{number:08}.")
    storage.write_text(folder / name_of(number), text)


def read(
    folder: epath.Path, identity: StoredIdentity | None, *, made: str, flag: str
) -> RowState:
    """The contents of a folder, which need not exist.

    Args:
      folder: of the job.
      identity: what its rows should depend on; None for anything.
      made: as in `identity.check_equal`.
      flag: as there.

    Raises:
      UserError: the folder has another identity, or cannot be read.
    """
    try:
        sizes = paths.file_sizes(folder)
        heads = {
            int(name[:8]): head
            for name in sizes
            if _NAME.fullmatch(name) and (head := _head(folder / name))
        }
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder}: cannot be read ({reason})") from error
    try:
        plans, torn = shard_plan.read(folder), None
        if heads and not plans.count:
            torn = f"{folder / shard_plan.FOLDER}: the plans are missing"
    except shard_plan.Torn as error:
        plans, torn = None, str(error)
    if plans is None or torn:
        plans = _plans_of(heads)
    if plans.identity and identity:
        identities.check_equal(folder, plans.identity, identity, made=made, flag=flag)
    finished = {
        number: heads[number]
        for number, items in enumerate(plans.shards)
        if number in heads and {*heads[number].items, *heads[number].absent} == {*items}
    }
    for head in finished.values():
        stored = plans.identity or {}
        identities.check_equal(folder, head.identity, stored, made=made, flag=flag)
    return RowState(plans, finished, torn)


def rows(folder: epath.Path, state: RowState) -> Iterator[dict[str, Any]]:
    """All rows of finished shards; of an item with several, the last one.

    Raises:
      UserError: a shard has changed since the state was read.
    """
    where = state.where
    for number in sorted(state.heads):
        path = folder / name_of(number)
        text = _text(path)
        if text is None or _parsed(path, text) is None:
            raise UserError(f"{path}: is damaged; delete it, and run this again")
        for line in text.split("\n")[1:-1]:
            row = parse_json(line, str(path))
            if where[row["id"]] == number:
                yield row


def _head(path: epath.Path) -> Head | None:
    """The first line of a shard; None if the file is damaged."""
    text = _text(path)
    return None if text is None else _parsed(path, text)


def _text(path: epath.Path) -> str | None:
    try:
        if not paths.is_local(path):
            return path.read_text(encoding="utf-8")
        with paths.open_regular_file(Path(path)) as file:
            return file.read().decode()
    except (OSError, UnicodeDecodeError):
        return None


def _parsed(path: epath.Path, text: str) -> Head | None:
    first, end, rest = text.partition("\n")
    try:
        head = parse_json(first, printable(str(path)))
    except UserError:
        return None
    whole = (
        bool(end)
        and isinstance(head, dict)
        and is_identity(head.get("identity"))
        and is_texts(head.get("items"))
        and is_texts(head.get("absent"))
        and isinstance(head.get("failed"), dict)
        and is_texts(list(head["failed"].values()))
        and head.get("rows") == _digest(rest)
        and "digest" in head
        and seal.is_intact(head)
    )
    if not whole:
        return None
    return Head(
        head["identity"], tuple(head["items"]), head["failed"], tuple(head["absent"])
    )


def _digest(rows: str) -> str:
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def _plans_of(heads: Mapping[int, Head]) -> ShardPlans:
    """One plan with the shards that there are; one that is missing has no items."""
    identity = next((head.identity for head in heads.values()), None)
    shards = [
        (*heads[number].items, *heads[number].absent) if number in heads else ()
        for number in range(max(heads, default=-1) + 1)
    ]
    return ShardPlans(identity, 0, tuple(shards))
