"""song.txt, the caption, and song.json, the row, for each song.

    songs/a/b.ogg    →    songs/a/b.txt    songs/a/b.json            beside the songs
                          OUT/sidecars/a/b.txt …                     or in a folder

A file that we did not make, or that was changed since, is never replaced. That a file
is ours is told by the JSON: it is sealed (`jobs/seal.py`), and knows the caption.
"""

import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from etils import epath

from musilingo_jax.captioning.captioned import LeftOut, Song, as_json
from musilingo_jax.jobs import seal
from musilingo_jax.runtime import storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json

FORMAT = "sidecar"
FOLDER = "sidecars"
MADE_BY = "musilingo caption"


def write(
    songs: Sequence[Song], folder: epath.Path | None
) -> tuple[str, list[LeftOut]]:
    """Writes the sidecars.

    Args:
      songs: all; of one without a caption only the JSON is written.
      folder: of the job; None to write beside the songs.

    Raises:
      UserError: a file cannot be written.
    """
    stems = [_stem(song, folder) for song in songs]
    counts = Counter(filter(None, stems))
    left_out: list[LeftOut] = []
    written = 0
    for song, stem in zip(songs, stems, strict=True):
        if stem is None:
            reason: str | None = "lies outside of the folder of the songs"
        elif counts[stem] > 1:
            reason = f"would share {stem}.txt with another song: rename one"
        else:
            with storage.writing(stem, again="run the same command again"):
                reason = _write(song, stem)
        if reason is None:
            written += 1
        else:
            left_out.append(LeftOut(FORMAT, song.audio, reason))
    where = "the songs" if folder is None else f"{folder / FOLDER}"
    beside = "beside" if folder is None else "in"
    return f"sidecars of {written:,} songs {beside} {where}", left_out


def _stem(song: Song, folder: epath.Path | None) -> str | None:
    """The path of a song's sidecars without their suffixes."""
    mirrored = song.mirrored
    if folder is not None:
        return None if mirrored is None else str(folder / FOLDER / mirrored)
    part = "" if mirrored is None or not song.is_part else mirrored.rpartition("@")[2]
    return str(song.path.with_suffix("")) + f"@{part}" * bool(part)


def _write(song: Song, stem: str) -> str | None:
    """Writes the files of a song, or says why not."""
    text_path, json_path = epath.Path(f"{stem}.txt"), epath.Path(f"{stem}.json")
    before = _ours(json_path)
    if json_path.exists() and before is None:
        return f"has another {json_path.name} already, which was not made here"
    text = None if song.caption is None else song.caption + "\n"
    if text_path.exists():
        caption = before["caption"]["value"] if before else None
        known = {text, None if caption is None else caption + "\n"} - {None}
        if _text(text_path) not in known:
            return f"has another {text_path.name} already, which was not made here"
    # The text first: whoever was killed between the two finds its own text again.
    if text is None:
        text_path.unlink(missing_ok=True)
    else:
        storage.write_text(text_path, text)
    content = seal.sealed({"made_by": MADE_BY, **song.row})
    storage.write_text(json_path, as_json(content))
    return None


def _ours(path: epath.Path) -> dict[str, Any] | None:
    """The content of a JSON that was made here and not changed since."""
    with contextlib.suppress(UserError, KeyError, TypeError):
        content = read_json(path)
        whole = content["made_by"] == MADE_BY and "digest" in content
        if whole and seal.is_intact(content) and "value" in content["caption"]:
            return content
    return None


def _text(path: epath.Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
