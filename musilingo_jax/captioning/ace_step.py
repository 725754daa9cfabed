"""The dataset of ACE-Step 1.5, as its dataset builder saves and loads it.

    {"metadata": {"name": "…", "num_samples": 2, …},
     "samples": [{"id": "1f2e3d4c", "audio_path": "…", "caption": "…", "bpm": 112,
                  "keyscale": "A minor", "timesignature": "4", "is_instrumental": true,
                  "lyrics": "[Instrumental]", …}]}

Lyrics are never made up: those of a song with vocals are empty, and yours to fill in.
Whether a song without a known value of `vocals` is instrumental is left to its readers,
so it is said to be none.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from etils import epath

from musilingo_jax.captioning import fields
from musilingo_jax.captioning.captioned import (
    LeftOut,
    Song,
    as_json,
    parted,
    without_whole_file,
)
from musilingo_jax.captioning.contradictions import is_sung
from musilingo_jax.runtime import storage

FORMAT = "ace-step"


def write(songs: Sequence[Song], path: epath.Path) -> tuple[str, list[LeftOut]]:
    """Writes the dataset.

    Raises:
      UserError: the file cannot be written.
    """
    kept, left_out = parted(songs, FORMAT, without_whole_file)
    samples = [sample(song) for song in kept]
    content = {
        "metadata": {
            "name": path.parent.name or "captions",
            "custom_tag": "",
            "tag_position": "prepend",
            "created_at": "",
            "num_samples": len(samples),
            "all_instrumental": all(each["is_instrumental"] for each in samples),
            "genre_ratio": 0,
        },
        "samples": samples,
    }
    with storage.writing(path, again="run the same command again"):
        storage.write_text(path, as_json(content))
    return f"{path}: {len(samples):,} samples", left_out


def sample(song: Song) -> dict[str, Any]:
    """One song as the dataset holds it."""
    bpm, metre = song.value(fields.BPM), song.value(fields.METRE)
    instrumental = is_sung(song.value(fields.VOCALS)) is False
    return {
        "id": hashlib.sha256(song.row["id"].encode()).hexdigest()[:8],
        "audio_path": song.absolute,
        "filename": song.path.name,
        "caption": song.caption,
        "genre": ", ".join(fields.listed(song.value(fields.GENRE))),
        "lyrics": "[Instrumental]" if instrumental else "",
        "raw_lyrics": "",
        "formatted_lyrics": "",
        "bpm": None if bpm is None else round(bpm),
        "keyscale": song.value(fields.KEY) or "",
        "timesignature": metre.partition("/")[0] if metre else "",
        "duration": round(song.row["seconds"]),
        "language": "unknown",
        "is_instrumental": instrumental,
        "custom_tag": "",
        "labeled": True,
        "prompt_override": None,
    }
