"""Which sound files the questions of a benchmark are about."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from musilingo_jax.benchmarks.item import Item
from musilingo_jax.corpora.clips import AudioFolder, FoundClip, Lacking, Wanted
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import printable

_FIRST = 10  # Files that a message names; the report has all.


def find(
    items: Sequence[Item], folder: Path
) -> tuple[dict[str, FoundClip], dict[str, Lacking]]:
    """Finds the sound of each question.

    Args:
      items: the questions.
      folder: with sound files, at any depth and in any format.

    Returns:
      Id of a question → its sound; and id → why there is none.

    Raises:
      UserError: there is no such folder.
    """
    audio = AudioFolder(folder)
    known: dict[Wanted, FoundClip | Lacking] = {}
    found: dict[str, FoundClip] = {}
    lacking: dict[str, Lacking] = {}
    for item in items:
        if item.sound not in known:
            known[item.sound] = audio.find(item.sound)
        clip = known[item.sound]
        if isinstance(clip, Lacking):
            lacking[item.id] = clip
        else:
            found[item.id] = clip
    return found, lacking


def check(lacking: Mapping[str, Lacking], count: int, *, allowed: bool) -> str:
    """What to say about sounds that cannot be used; "" if all can.

    Args:
      lacking: id of a question → why.
      count: of all questions.
      allowed: whether some may be left out, if not all are.

    Raises:
      UserError: some cannot be used, and that is not allowed.
    """
    if not lacking:
        return ""
    reasons = Counter(each.reason for each in lacking.values())
    counts = ", ".join(f"{reason} {number:,}" for reason, number in reasons.items())
    details = list(dict.fromkeys(each.detail for each in lacking.values()))
    shown = "".join(f"\n  {printable(detail)}" for detail in details[:_FIRST])
    more = len(details) - _FIRST
    shown += f"\n  and {more:,} more" * (more > 0)
    text = f"{len(lacking):,} of {count:,} questions have no sound ({counts})"
    if len(lacking) == count:
        raise UserError(f"{text}: name the folder of its sound files in --audio{shown}")
    if not allowed:
        raise UserError(
            f"{text}: add the files, or give --allow-missing to leave these questions "
            f"out{shown}"
        )
    return f"{text}{shown}"
