"""What trained taggers say of a song: the fifty tags of each of musicnn's two models.

Their weights are in a package that is not part of this one (ISC licence, Jordi Pons).
It is named as a file, and none of its code is run.
"""

import hashlib
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from musilingo_jax.models.taggers import musicnn
from musilingo_jax.models.taggers.musicnn import RATE, TAGS, Musicnn
from musilingo_jax.pretrained import tensorflow_files
from musilingo_jax.runtime.errors import UserError

WHEEL = "musicnn.whl"
"""The name of the file below `build/teachers`."""
SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
"""Of `musicnn-0.1.0-py3-none-any.whl`."""
VERSION = "musicnn 0.1.0"
FIELD = "tags"

_FILES = (".index", ".data-00000-of-00001")
# Patches that are computed at once: half a minute.
_BATCH = 10
# Tags of a lower probability are left out of a row.
_LEAST = 0.1


def load(wheel: Path) -> dict[str, Musicnn]:
    """The two taggers in the package, by the names of their folders.

    Raises:
      UserError: the file cannot be read, or is not version 0.1.0 of the package.
    """
    advice = "get it with `make teachers`, or `pip download --no-deps musicnn==0.1.0`"
    try:
        with wheel.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{wheel}: cannot be read ({error.strerror}); {advice}") from (
            error
        )
    if found != SHA256:
        raise UserError(
            f"{wheel}: is not the wheel of musicnn 0.1.0 (its SHA-256 begins with "
            f"{found[:12]}); {advice}"
        )
    loaded = {}
    with zipfile.ZipFile(wheel) as package, tempfile.TemporaryDirectory() as folder:
        for name in TAGS:
            for file in _FILES:
                package.extract(f"musicnn/{name}/{file}", folder)
            place = Path(folder) / "musicnn" / name
            loaded[name] = Musicnn.of(tensorflow_files.read(place), name)
    return loaded


def probabilities(
    taggers: Mapping[str, Musicnn], waveform: Float[np.ndarray, " samples"]
) -> dict[str, Float[np.ndarray, " tags"]]:
    """The mean probability of each tag over all whole patches, by each tagger.

    Args:
      taggers: as `load` returns them.
      waveform: at `musicnn.RATE`.

    Raises:
      UserError: it is shorter than a patch.
    """
    patches = musicnn.patches_of(waveform)
    if not len(patches):
        seconds = len(waveform) / RATE
        raise UserError(
            f"lasts {seconds:.1f} s, and these taggers need three seconds; choose a "
            "longer one"
        )
    missing = -len(patches) % _BATCH
    padded = np.pad(patches, ((0, missing), (0, 0), (0, 0)))
    heard = {}
    for name, tagger in taggers.items():
        each = [
            np.asarray(_probabilities(tagger, padded[start : start + _BATCH]))
            for start in range(0, len(padded), _BATCH)
        ]
        heard[name] = np.concatenate(each)[: len(patches)].mean(axis=0)
    return heard


def annotate(
    taggers: Mapping[str, Musicnn], waveform: Float[np.ndarray, " samples"]
) -> dict[str, Any]:
    """The field `tags` of a song: those that are likely, the likeliest first.

    Args:
      taggers: as `load` returns them.
      waveform: at `musicnn.RATE`.

    Returns:
      {"value": [{"tag": "rock", "confidence": 0.71, "by": "MSD_musicnn"}, …], …}, where
      a confidence is the tagger's own probability.

    Raises:
      UserError: as in `probabilities`.
    """
    found = [
        {"tag": tag.lower(), "confidence": round(float(likely), 3), "by": name}
        for name, each in probabilities(taggers, waveform).items()
        for tag, likely in zip(TAGS[name], each, strict=True)
        if likely >= _LEAST
    ]
    found.sort(key=lambda one: -one["confidence"])
    return {"value": found, "source": __name__, "version": VERSION}


@jax.jit
def _probabilities(
    tagger: Musicnn, patches: Float[np.ndarray, "batch 187 96"]
) -> jax.Array:
    return jax.nn.sigmoid(tagger(patches))
