"""Rows of captioned songs, made up, and silent files for them."""

import numpy as np
import soundfile

from musilingo_jax.captioning import fields
from musilingo_jax.captioning.captioned import Song

VALUES = {
    "caption": "A calm | piece.",
    "genre": "jazz",
    "instruments": ["piano", "flute"],
    "mood": ["calm"],
    "vocals": "instrumental",
    "bpm": 112.4,
    "key": "A minor",
    "timesignature": "3/4",
    "tags": [],
}


def row(audio, *, outcome="kept", faults=(), **changes):
    """A row; `changes` are values, or what it says beside the fields."""
    about = {k: v for k, v in changes.items() if k not in VALUES}
    values = {**VALUES, **{k: v for k, v in changes.items() if k in VALUES}}
    made = {
        name: fields.field(value, "model", "tiny", "1")
        for name, value in values.items()
    }
    faults = [
        {"reason": r, "sentence": "S.", "stated": "x", "known": "y"} for r in faults
    ]
    made["caption"]["check"] = {
        "outcome": outcome,
        "tries": 1,
        "own": "A calm | piece.",
        "faults": faults,
    }
    return {"id": f"{audio}:1", "audio": audio, "seconds": 2.5, **about, **made}


def song(folder, audio, **changes):
    """A song whose file is there."""
    path = folder / audio
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(20_000), 8000)
    return Song(row(audio, **changes), path, None)
