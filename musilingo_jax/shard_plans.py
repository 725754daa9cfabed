"""Which clips share a shard: settled before anything is encoded.

Processes that work on one cache need not speak to each other, because each works out
the same plan from the order of the corpus and the plans that there are; what is
finished does not matter for it. The first to write it down has settled it:

    plans/000.json    {"identity": {…}, "shards": [["a.ogg:…", "b.ogg:…"], ["c.ogg:…"]]}
    plans/001.json    clips that were wanted later, and those that are tried again

Shards are numbered through all plans. Task 1 of 4 makes the shards 1, 5, 9, …
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from etils import epath

from musilingo_jax import folders
from musilingo_jax.errors import UserError

FOLDER = "plans"

Identity = dict[str, str | int]


@dataclass(frozen=True)
class Plans:
    """All plans of a cache.

    Attributes:
      identity: what its features depend on; None before the first plan.
      count: how many plans there are.
      shards: the clips of each shard.
    """

    identity: Identity | None
    count: int
    shards: tuple[tuple[str, ...], ...]


def read(folder: epath.Path) -> Plans:
    """The plans of the cache in `folder`; none is fine.

    Raises:
      UserError: one of them cannot be read.
    """
    identity, shards = None, []
    names = sorted(
        (name for name in folders.sizes(folder / FOLDER) if name.endswith(".json")),
        key=lambda name: (len(name), name),
    )
    for name in names:
        path = folder / FOLDER / name
        try:
            plan = json.loads(path.read_text())
            identity = plan["identity"]
            shards += [tuple(clips) for clips in plan["shards"]]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}); delete {folder} and make it again"
            ) from error
    return Plans(identity, len(names), tuple(shards))


def add(
    folder: epath.Path,
    identity: Identity,
    plans: Plans,
    clips: Sequence[str],
    *,
    shard_clips: int,
) -> None:
    """Writes the plan that follows `plans`, unless another process was quicker.

    Raises:
      OSError: it cannot be written.
    """
    shards = [clips[i : i + shard_clips] for i in range(0, len(clips), shard_clips)]
    text = json.dumps({"identity": identity, "shards": shards}) + "\n"
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    folders.create(folder / FOLDER / f"{plans.count:03}.json", text)
