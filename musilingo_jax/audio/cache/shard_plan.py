"""Which clips share a shard: decided before anything is encoded.

Processes that fill one cache need not communicate. Each derives the same plan from the
order of the corpus and the plans that exist; what is finished does not matter. The
first one to write a plan decides:

    plans/000.json    {"identity": {…}, "shards": [["a.ogg:…", "b.ogg:…"], ["c.ogg:…"]],
                       "digest": "…"}
    plans/001.json    clips that were added later, and clips that are tried again

Shards are numbered through all plans. Task 1 of 4 makes the shards 1, 5, 9, …
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from etils import epath

from musilingo_jax.audio.cache import seal
from musilingo_jax.audio.cache.identity import Identity, StoredIdentity, is_identity
from musilingo_jax.runtime import paths, storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import is_texts, read_json

FOLDER = "plans"

_NAME = re.compile(r"\d{3,}\.json")


class Torn(Exception):
    """A plan is missing or unreadable; the notes of shards may know what it held."""


@dataclass(frozen=True)
class ShardPlans:
    """All plans of a cache.

    Attributes:
      identity: what its features depend on; None before the first plan.
      count: how many plans there are.
      shards: the ids of the clips of each shard.
    """

    identity: StoredIdentity | None
    count: int
    shards: tuple[tuple[str, ...], ...]


def read(folder: epath.Path) -> ShardPlans:
    """The plans of the cache in `folder`, which may be without any.

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
    identity: Identity,
    plans: ShardPlans,
    clips: Sequence[str],
    *,
    shard_clips: int,
) -> None:
    """Writes the plan that follows `plans`, unless another process was faster.

    Raises:
      OSError: it cannot be written.
    """
    shards = [clips[i : i + shard_clips] for i in range(0, len(clips), shard_clips)]
    text = _text(identity.stored(), shards)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    storage.create_text(folder / FOLDER / _name(plans.count), text)


def replace(folder: epath.Path, plans: ShardPlans) -> None:
    """Replaces all plans of the cache by a single one with the same shards.

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
