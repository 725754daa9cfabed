"""How a song becomes an answer, where a published score did it in another way.

    whole       a song is heard whole, or its middle, and has one answer
    mu_llama    every second minute is heard and answered by itself; the answers are
                joined by spaces:

        a song of 4:05      0–60   60–120   120–180   180–240   (5 s: dropped)
        answer               a                 c                 →  "a c"

So Liu et al. 2024 evaluated MU-LLaMA (and the LLaMA-Adapter beside it), from their
code: a rest of at most 10 s is dropped. Longer answers score higher in what their
tables report, so a published row can only be met in this way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from musilingo_jax.answering.answer_file import AskedQuestion
from musilingo_jax.corpora.clips import duration
from musilingo_jax.corpora.records import Record, stretch_id
from musilingo_jax.evaluation import controls
from musilingo_jax.runtime.errors import UserError

WHOLE, MU_LLAMA = "whole", "mu_llama"
PROTOCOLS = (WHOLE, MU_LLAMA)
_PIECE, _SHORTEST = 60.0, 10.0  # seconds

Pieces = Mapping[str, Sequence[Record]]
"""Clip → what is heard of it, one after the other."""


def pieces(records: Sequence[Record], protocol: str) -> Pieces:
    """What is heard of each clip.

    Args:
      records: of the test split.
      protocol: a name of `PROTOCOLS`.

    Raises:
      UserError: a file does not say how long it lasts, which a protocol needs.
    """
    once = {record.clip: record for record in records}
    if protocol == WHOLE:
        return {clip: [record] for clip, record in once.items()}
    return {clip: _every_second_minute(record) for clip, record in once.items()}


def joined(
    asks: Mapping[str, Sequence[AskedQuestion]],
    records: Sequence[Record],
    found: Pieces,
) -> dict[str, list[list[AskedQuestion]]]:
    """The questions whose answers are joined to one answer for each record.

    Silence, and nothing, are heard as often as pieces of the record's own clip are.

    Args:
      asks: system → what it asks for each record, about whole clips.
      records: what is evaluated.
      found: of `pieces`.
    """
    return {
        system: [
            _asked(ask, record, found)
            for ask, record in zip(each, records, strict=True)
        ]
        for system, each in asks.items()
    }


def _asked(ask: AskedQuestion, record: Record, found: Pieces) -> list[AskedQuestion]:
    if controls.is_clip(ask.heard):
        return [AskedQuestion(ask.record, piece.clip) for piece in found[ask.heard]]
    return [ask] * len(found[record.clip])


def note(found: Pieces, protocol: str) -> list[str]:
    """What a reader of the scores should know of a protocol; empty of the usual one."""
    if protocol == WHOLE:
        return []
    several = [each for each in found.values() if len(each) > 1]
    heard = sum(len(each) for each in found.values())
    return [
        "the protocol is that of MU-LLaMA's published scores: of each song every "
        "second minute is heard and answered by itself, and the answers are joined. "
        f"{len(found)} clips are heard in {heard} pieces, {len(several)} of them in "
        "more than one; the other minutes, and rests of up to 10 s, are not heard."
    ]


def _every_second_minute(record: Record) -> list[Record]:
    """The pieces of a clip; the clip itself if it is no longer than a piece.

    Raises:
      UserError: the file does not say how long it lasts.
    """
    try:
        seconds = duration(record.audio, record.rate)
    except OSError:
        return [record]  # It is reported with all songs that cannot be read.
    end = record.end if seconds is None else min(record.end or seconds, seconds)
    if end is None:
        raise UserError(
            f"{record.audio}: does not say how long it lasts, so it cannot be cut into "
            f"minutes (--protocol={MU_LLAMA}): write it as WAV or FLAC"
        )
    start = record.start or 0.0
    length = end - start
    if length <= _PIECE + _SHORTEST:
        last = start + min(length, _PIECE)
        return [record if last == end else _stretch(record, start, last)]
    found = []
    for minute in range(0, int(length // _PIECE) + 1, 2):
        first = start + minute * _PIECE
        last = min(first + _PIECE, end)
        if last - first > _SHORTEST:
            found.append(_stretch(record, first, last))
    return found


def _stretch(record: Record, start: float, end: float) -> Record:
    clip = stretch_id(record.clip, start, end)
    return replace(record, clip=clip, start=start, end=end)
