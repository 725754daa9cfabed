"""Which items share a shard: decided before any work.

Processes that share a job need not communicate. Each derives the same plan from the
order of the items and the plans that exist; what is finished does not matter. The first
one to write a plan decides:

    plans/000.json    {"identity": {…}, "shards": [["a.ogg:…", "b.ogg:…"], ["c.ogg:…"]],
                       "digest": "…"}
    plans/001.json    items that were added later, and items that are tried again

Shards are numbered through all plans. Task 1 of 4 makes the shards 1, 5, 9, …
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from etils import epath

from musilingo_jax.jobs import seal
from musilingo_jax.jobs.identity import StoredIdentity, is_identity
from musilingo_jax.runtime import paths, storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import is_texts, read_json

FOLDER = "plans"

_NAME = re.compile(r"\d{3,}\.json")


class Torn(Exception):
    """A plan is missing or unreadable; finished shards may know what it held."""


@dataclass(frozen=True)
class ShardPlans:
    """All plans of a job.

    Attributes:
      identity: what its files depend on; None before the first plan.
      count: how many plans there are.
      shards: the ids of the items of each shard.
    """

    identity: StoredIdentity | None
    count: int
    shards: tuple[tuple[str, ...], ...]


def read(folder: epath.Path) -> ShardPlans:
    """The plans of the job in `folder`, which may be without any.

    Raises:
      Torn: one of them cannot be read.
    """
    identity, shards = None, []
    names = _names(folder)
    for number in range(len(names)):
        path = folder / FOLDER / _name(number)
        try:
            plan = read_json(path)
        except UserError as error:
            raise Torn(str(error)) from error
        planned = plan.get("shards")
        if not is_identity(plan.get("identity")) or not (
            isinstance(planned, list) and all(map(is_texts, planned))
        ):
            raise Torn(f"{path}: cannot be read (it is not a plan)")
        if not seal.is_intact(plan):
            raise Torn(f"{path}: is damaged (it does not have its digest)")
        if identity not in (None, plan["identity"]):
            raise Torn(f"{path}: its identity is not that of the plans before it")
        identity = plan["identity"]
        shards += map(tuple, planned)
    return ShardPlans(identity, len(names), tuple(shards))


def add(
    folder: epath.Path,
    identity: StoredIdentity,
    plans: ShardPlans,
    items: Sequence[str],
    *,
    shard_items: int,
) -> None:
    """Writes the plan that follows `plans`, unless another process was faster.

    Raises:
      OSError: it cannot be written.
    """
    shards = [items[i : i + shard_items] for i in range(0, len(items), shard_items)]
    text = _text(identity, shards)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    storage.create_text(folder / FOLDER / _name(plans.count), text)


def replace(folder: epath.Path, plans: ShardPlans) -> None:
    """Replaces all plans of the job by a single one with the same shards.

    Raises:
      OSError: it cannot be written.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    # In this order, so that a process that is killed here leaves torn plans: the first
    # one is missing.
    for name in _names(folder):
        (folder / FOLDER / name).unlink()
    if plans.shards:
        text = _text(plans.identity, plans.shards)
        storage.write_text(folder / FOLDER / _name(0), text)


def _text(identity: StoredIdentity | None, shards: Sequence[Sequence[str]]) -> str:
    return json.dumps(seal.sealed({"identity": identity, "shards": shards})) + "\n"


def _name(number: int) -> str:
    return f"{number:03}.json"


def _names(folder: epath.Path) -> list[str]:
    """The names of the plans, in the order in which they were written."""
    names = filter(_NAME.fullmatch, paths.file_sizes(folder / FOLDER))
    return sorted(names, key=lambda name: (len(name), name))
