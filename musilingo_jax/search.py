r"""Finds clips of a feature cache: those like a song, or those that words describe.

    python -m musilingo_jax.search --cache=runs/tiny/cache --song=song.ogg
    python -m musilingo_jax.search "calm piano" --cache=runs/tiny/cache \
        --texts=songs.jsonl

By song: how alike the features are, from −1 to 1. The song is one of the cache, or an
`.npy` that `musilingo embed` wrote with the same encoder. By words: how well captions,
values and tags fit them (BM25), which a songs file says of the clips, or captions, or
what `musilingo annotate` wrote. Every clip is compared; nothing is approximated.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.instruction import sources
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.command_line import CommandParser, nonempty, positive
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.printable import one_line, print_note
from musilingo_jax.searching import bm25, cached

# Letters of a text that are shown.
_SHOWN = 60


def parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(prog="python -m musilingo_jax.search", description=__doc__)
    add = parser.add_argument
    add("words", nargs="?", type=nonempty, help="what is looked for")
    add("--cache", type=nonempty, required=True, help="the folder of a feature cache")
    add("--song", metavar="FILE", type=nonempty, help="what the clips shall be like")
    add("--texts", metavar="FILE", type=nonempty, help="what is known of the clips")
    add("--audio", metavar="FOLDER", type=nonempty, help="the sound of --texts")
    add("--top", metavar="N", type=positive, default=10, help="shown (default: 10)")
    add("--json", action="store_true", help="print a JSON object for each clip")
    return parser


def main(given: argparse.Namespace) -> None:
    """Prints the clips that are found, the best first.

    Raises:
      UsageError: there is nothing to look for, or two things.
      UserError: the cache, the song or the texts cannot be used.
    """
    if (given.words is None) == (given.song is None):
        raise UsageError('give either words, such as "calm piano", or --song=FILE')
    if given.words is not None and given.texts is None:
        raise UsageError(
            "words are looked for in texts: name the file that says something of the "
            "clips, as in --texts=songs.jsonl"
        )
    if given.audio is not None and given.texts is None:
        raise UsageError("--audio is for --texts")
    cache = FeatureCache.open(given.cache, None)
    clips = list(cache.ids)
    said: dict[str, str] = {}
    if given.texts is not None:
        said = _texts(cache, given)
    if given.song is not None:
        vector = cached.vector_of(cache, Path(given.song))
        scores = cached.likeness_of(cache).to(vector)
    else:
        clips = [clip for clip in clips if clip in said]
        scores = bm25.scores([said[clip] for clip in clips], str(given.words))
        if not scores.any():
            raise UserError(
                f"{given.texts}: none of its texts about {len(clips)} clips has any of "
                f"the words {given.words!r}"
            )
    order = np.argsort(-scores, kind="stable")
    if given.song is None:
        order = order[: np.count_nonzero(scores)]
    for place in order[: given.top]:
        clip, score = clips[place], float(scores[place])
        text = said.get(clip, "")
        if given.json:
            row = {"clip": clip, "path": cache.path(clip), "score": round(score, 6)}
            row |= {"text": text} if given.texts is not None else {}
            print(json.dumps(row, ensure_ascii=False))
            continue
        shown = one_line(text)
        shown = shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"
        print(f"{score:7.3f}  {one_line(cache.path(clip))}  {shown}".rstrip())


def _texts(cache: FeatureCache, given: argparse.Namespace) -> dict[str, str]:
    """What is said of the clips of the cache.

    Raises:
      UserError: nothing is.
    """
    found = cached.texts(cache, sources.read(given.texts, given.audio).subjects)
    without = len(cache.ids) - len(found.of)
    if not found.of:
        raise UserError(
            f"{given.texts}: says nothing of any of the {len(cache.ids)} clips of "
            f"{given.cache}; sound that it does not name itself is given by --audio"
        )
    if without or found.others:
        print_note(
            f"note: {without:,} of {len(cache.ids):,} clips have no text, and "
            f"{found.others:,} texts are of clips that are not in the cache"
        )
    return found.of


if __name__ == "__main__":
    cli.run(main, parser())
