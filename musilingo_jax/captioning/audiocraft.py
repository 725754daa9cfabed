"""The files from which audiocraft trains MusicGen (`MusicDataset`).

    audiocraft/data.jsonl.gz        {"path": "…/a/b.ogg", "duration": 201.3, …}
    audiocraft/a/b.ogg              a link to the song
    audiocraft/a/b.json             {"title": "b", "bpm": 112.4, "description": "…", …}

It looks for the JSON beside the sound, under the same name; hence the links.
"""

import gzip
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath

from musilingo_jax.audio.formats.open_sound import open_sound
from musilingo_jax.captioning import fields
from musilingo_jax.captioning.captioned import (
    LeftOut,
    Song,
    as_json,
    parted,
    without_whole_file,
)
from musilingo_jax.runtime import paths, storage
from musilingo_jax.runtime.errors import UserError

FORMAT = "audiocraft"
MANIFEST = "data.jsonl.gz"


def write(songs: Sequence[Song], folder: epath.Path) -> tuple[str, list[LeftOut]]:
    """Writes the manifest, links and JSONs.

    Raises:
      UserError: a file cannot be written, or the folder can have no links.
    """
    if not paths.is_local(folder):
        raise UserError(
            f"{folder}: --format={FORMAT} needs links, which a bucket does not have; "
            "choose a folder of this machine with --out"
        )
    counts = Counter(song.mirrored for song in songs)

    def problem(song: Song) -> str | None:
        if song.mirrored is None:
            return "lies outside of the folder of the songs"
        if counts[song.mirrored] > 1:
            return f"would share {song.mirrored}.json with another song: rename one"
        return without_whole_file(song)

    kept, left_out = parted(songs, FORMAT, problem)
    lines = []
    with storage.writing(folder, again="run the same command again"):
        for song in kept:
            link = Path(folder) / song.audio
            rate = _rate(song)
            _link(link, song.absolute)
            storage.write_text(link.with_suffix(".json"), as_json(track(song, rate)))
            entry = {
                "path": os.path.abspath(link),
                "duration": song.row["seconds"],
                "sample_rate": rate,
                "amplitude": None,
                "weight": None,
                "info_path": None,
            }
            lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
        with storage.atomic(folder / MANIFEST) as partial:
            # Without the time, so that equal songs make equal bytes.
            partial.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
    return f"{folder / MANIFEST}: {len(kept):,} tracks", left_out


def track(song: Song, rate: int) -> dict[str, Any]:
    """What audiocraft reads of a track; all of its fields are there.

    Args:
      song: the song.
      rate: samples per second of its file.
    """
    return {
        "title": song.path.stem,
        "artist": "",
        "key": song.value(fields.KEY),
        "bpm": song.value(fields.BPM),
        "genre": song.value(fields.GENRE),
        "moods": song.value(fields.MOOD),
        "keywords": song.value(fields.TAGS),
        "description": song.caption,
        "name": song.path.stem,
        "instrument": ", ".join(song.value(fields.INSTRUMENTS)),
        "duration": song.row["seconds"],
        "sample_rate": rate,
        "file_extension": song.path.suffix.removeprefix("."),
    }


def _rate(song: Song) -> int:
    sound = open_sound(song.path, npy_rate=None, skip=0)
    sound.blocks.close()
    return int(sound.rate)


def _link(link: Path, song: str) -> None:
    """Makes a link to a song, in place of an older one.

    Raises:
      UserError: there is something else.
      OSError: it cannot be made.
    """
    if link.is_symlink():
        if os.readlink(link) == song:
            return
        link.unlink()
    elif link.exists():
        raise UserError(f"{link}: is no link that was made here; move it away")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(song)
