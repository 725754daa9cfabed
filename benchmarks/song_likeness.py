"""How often the nearest clip of a cache has the same values, by ways to compare.

    python -m musilingo_jax.cache --config=configs/features/tiny.py
    python benchmarks/song_likeness.py --cache=runs/features/tiny

Prints for each way the share of clips whose nearest other clip has the same style,
tempo, … as a songs file says, and in the first line that of any other clip.
"""

import sys
from pathlib import Path

import numpy as np
from absl import app, flags

sys.path.insert(0, str(Path(__file__).parent.parent))

from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.instruction import sources
from musilingo_jax.searching.likeness import Likeness, pool, whitener

CACHE = flags.DEFINE_string("cache", "runs/features/tiny", "a feature cache")
SONGS = flags.DEFINE_string("songs", "musilingo-tiny-corpus", "values of its clips")


def cosines(vectors: np.ndarray) -> np.ndarray:
    """The cosine of each two vectors."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def main(argv: list[str]) -> None:
    """Prints the table."""
    del argv
    cache = FeatureCache.open(CACHE.value, None)
    known = {s.clip: s.facts for s in sources.read(SONGS.value, None).subjects}
    clips = [clip for clip in cache.ids if clip in known]
    features = [np.asarray(cache.features(clip), np.float64) for clip in clips]
    pooled = np.stack([pool(each) for each in features])
    centred = pooled - pooled.mean(axis=0)
    ways = {
        "cosine": cosines(pooled),
        "centred": cosines(centred),
        "whitened by clips": cosines(centred @ whitener(centred)),
        "whitened within": cosines(Likeness.of(features).unit),
    }
    names = list(known[clips[0]])
    same = np.array(
        [[[known[a][n] == known[b][n] for n in names] for b in clips] for a in clips]
    )
    others = ~np.eye(len(clips), dtype=bool)
    shares = {"any other clip": same[others].mean(axis=0)}
    for way, scores in ways.items():
        nearest = np.where(others, scores, -np.inf).argmax(axis=1)
        shares[way] = same[np.arange(len(clips)), nearest].mean(axis=0)
    print(f"{len(clips)} clips".ljust(20), *(name.rjust(6) for name in names), "  mean")
    for way, share in shares.items():
        cells = (f"{value:6.3f}" for value in (*share, share.mean()))
        print(way.ljust(20), *cells)


if __name__ == "__main__":
    app.run(main)
