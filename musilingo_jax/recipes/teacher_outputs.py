"""What the taggers of `teachers.py` hear in excerpts, computed once and kept.

The taggers hear every excerpt at the level that it is stored at (`excerpts.LEVEL`), and
all copies of it that the student hears, louder, softer or through a codec, keep what
they said of it: the student learns to hear the music and not the recording.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import soxr
from jaxtyping import Float, Int

from musilingo_jax.annotation import tags
from musilingo_jax.models.taggers import musicnn
from musilingo_jax.models.taggers.musicnn import TAGS, Musicnn
from musilingo_jax.recipes.soundfont import SAMPLE_RATE
from musilingo_jax.runtime import cli, storage

# Excerpts in a file; an interrupted one is computed again.
BLOCK = 64
# Excerpts that the taggers hear at once.
_BATCH = 8
TAG_NAMES = tuple(f"{name}/{tag}" for name, tags in TAGS.items() for tag in tags)
"""The tags of each tagger in turn."""
FEATURES = 200
"""Width of the layer below the tags of each tagger."""


def heard_by_taggers(
    waveform: Int[np.ndarray, "excerpts samples"], wheel: Path, folder: Path
) -> Float[np.ndarray, "excerpts outputs"]:
    """Logits and features of each excerpt: the mean over its whole patches.

    Args:
      waveform: at 24 kHz, 16 bits.
      wheel: the package with the taggers, as in `annotation.tags.load`.
      folder: keeps what was computed, by the excerpts' own digest.

    Returns:
      The logits of `TAG_NAMES`, then the hidden layers below them, 200 a tagger.

    Raises:
      UserError: the wheel is not the package.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = range(0, len(waveform), BLOCK)
    paths = [_place(folder, waveform[begin : begin + BLOCK]) for begin in places]
    missing = [n for n, path in enumerate(paths) if not path.exists()]
    if missing:
        taggers = tags.load(wheel)
        with ThreadPoolExecutor(1) as ahead:
            # The spectrograms of the next block, while this one is tagged.
            blocks = [waveform[n * BLOCK : (n + 1) * BLOCK] for n in missing]
            spectrograms = ahead.map(_patches, blocks)
            todo = zip(missing, spectrograms, strict=True)
            for n, patches in cli.progress(
                todo, total=len(missing), unit="block", label="teachers"
            ):
                with storage.atomic(paths[n]) as partial, partial.open("wb") as file:
                    np.save(file, _tagged(taggers, patches))
    return np.concatenate([np.load(path) for path in paths])


def _place(folder: Path, block: Int[np.ndarray, "excerpts samples"]) -> Path:
    """The file of a block: named by what is heard and by who hears it."""
    heard = hashlib.sha256(tags.SHA256.encode() + np.ascontiguousarray(block).data)
    return folder / f"{heard.hexdigest()[:24]}.npy"


def _patches(
    block: Int[np.ndarray, "excerpts samples"],
) -> Float[np.ndarray, "excerpts patches 187 96"]:
    """The spectrograms of excerpts, at the taggers' own rate."""
    scaled = block.astype(np.float32) / 32768
    return np.stack(
        [
            musicnn.patches_of(soxr.resample(excerpt, SAMPLE_RATE, musicnn.RATE))
            for excerpt in scaled
        ]
    )


def _tagged(
    taggers: Mapping[str, Musicnn],
    patches: Float[np.ndarray, "excerpts patches 187 96"],
) -> Float[np.ndarray, "excerpts outputs"]:
    count, each = patches.shape[:2]
    flat = patches.reshape(count * each, *patches.shape[2:])
    size = _BATCH * each
    padded = np.pad(flat, ((0, -len(flat) % size), (0, 0), (0, 0)))
    logits, features = [], []
    for tagger in taggers.values():
        outputs = [
            _outputs(tagger, padded[start : start + size])
            for start in range(0, len(padded), size)
        ]
        for columns, place in ((logits, 0), (features, 1)):
            parts = [np.asarray(output[place]) for output in outputs]
            joined = np.concatenate(parts)[: len(flat)]
            columns.append(joined.reshape(count, each, -1).mean(axis=1))
    return np.concatenate([*logits, *features], axis=1)


@jax.jit
def _outputs(
    tagger: Musicnn, patches: Float[np.ndarray, "batch 187 96"]
) -> tuple[jax.Array, jax.Array]:
    features = tagger.features(patches)
    return tagger.logits(features), features
