"""Which clips share a shard: settled before anything is encoded.

Processes that work on one cache need not speak to each other, because each works out
the same plan from the order of the corpus and the plans that there are; what is
finished does not matter for it. The first to write it down has settled it:

    plans/000.json    {"identity": {…}, "shards": [["a.ogg:…", "b.ogg:…"], ["c.ogg:…"]]}
    plans/001.json    clips that were wanted later, and those that are tried again

Shards are numbered through all plans. Task 1 of 4 makes the shards 1, 5, 9, …
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from etils import epath

from musilingo_jax.runtime import paths, storage

FOLDER = "plans"

Identity = dict[str, str | int]

_NAME = re.compile(r"\d{3,}\.json")


class Torn(Exception):
    """A plan is missing or cannot be read; what it said, the notes may know."""


@dataclass(frozen=True)
class ShardPlans:
    """All plans of a cache.

    Attributes:
      identity: what its features depend on; None before the first plan.
      count: how many plans there are.
      shards: the clips of each shard.
    """

    identity: Identity | None
    count: int
    shards: tuple[tuple[str, ...], ...]


def read(folder: epath.Path) -> ShardPlans:
    """The plans of the cache in `folder`; none is fine.

    Raises:
      Torn: one of them cannot be read.
    """
    identity, shards = None, []
    names = _names(folder)
    for number in range(len(names)):
        path = folder / FOLDER / _name(number)
        try:
            plan = json.loads(path.read_text())
            if identity not in (None, plan["identity"]):
                raise ValueError("its identity is not that of the plans before it")
            identity = plan["identity"]
            shards += [tuple(clips) for clips in plan["shards"]]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise Torn(f"{path}: cannot be read ({error})") from error
    return ShardPlans(identity, len(names), tuple(shards))


def add(
    folder: epath.Path,
    identity: Identity,
    plans: ShardPlans,
    clips: Sequence[str],
    *,
    shard_clips: int,
) -> None:
    """Writes the plan that follows `plans`, unless another process was quicker.

    Raises:
      OSError: it cannot be written.
    """
    shards = [clips[i : i + shard_clips] for i in range(0, len(clips), shard_clips)]
    text = _text(identity, shards)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    storage.create_text(folder / FOLDER / _name(plans.count), text)


def replace(folder: epath.Path, plans: ShardPlans) -> None:
    """Writes `plans` as the only plan, in place of whatever there is.

    Raises:
      OSError: it cannot be written.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    # The first one first: without it all are torn, should this be killed meanwhile.
    for name in _names(folder):
        (folder / FOLDER / name).unlink()
    if plans.shards:
        text = _text(plans.identity, plans.shards)
        storage.write_text(folder / FOLDER / _name(0), text)


def _text(identity: Identity | None, shards: Sequence[Sequence[str]]) -> str:
    return json.dumps({"identity": identity, "shards": shards}) + "\n"


def _name(number: int) -> str:
    return f"{number:03}.json"


def _names(folder: epath.Path) -> list[str]:
    """The plans' files, the first one first."""
    names = filter(_NAME.fullmatch, paths.file_sizes(folder / FOLDER))
    return sorted(names, key=lambda name: (len(name), name))
