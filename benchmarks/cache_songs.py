"""Compares cached features of real songs with plain calls of the encoder.

    python benchmarks/cache_songs.py --folder=SONGS

Encodes all songs in a folder into a new cache, and then each song once more: decoded as
a whole and cut into chunks by this script, which calls the encoder on one chunk at a
time, without batches, padding, masks or pooling, and averages frames with NumPy. Prints
the largest difference, the bytes per song in the cache and in its file, and the speed.
"""

import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

sys.path.insert(0, str(Path(__file__).parent.parent))

from configs.features import tiny
from musilingo_jax.audio import waveforms
from musilingo_jax.audio.cache import feature_cache
from musilingo_jax.corpora import corpus
from musilingo_jax.models.mert import Mert
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime.sharding import make_mesh


@jax.jit
def plainly(mert: Mert, waveform: np.ndarray) -> jax.Array:
    """All frames of one chunk."""
    lengths = np.array([waveform.shape[0]])
    return mert(waveform[None], lengths, reduce=lambda x, valid: x, remat=False)[0]


def alone(mert: Mert, path: Path, window: int, chunk: int, level: float) -> np.ndarray:
    """The pooled features of a song by the plain definition."""
    waveform = waveforms.load(path, sample_rate=mert.config.sample_rate)
    waveform -= waveform.mean(dtype=np.float64)
    waveform *= level / np.std(waveform, dtype=np.float64)
    hop = window * chunk * mert.config.samples_per_frame
    most = mert.config.samples_for_frames(window * chunk + 1) - 1
    vectors, start, end = [], 0, 0
    while end < len(waveform):
        end = start + most
        frames = np.asarray(plainly(mert, waveform[start:end]))
        pieces = np.split(frames, range(window, len(frames), window))
        vectors += [piece.mean(0) for piece in pieces]
        start += hop
    return np.stack(vectors)


def main(argv: list[str]) -> None:
    """Fills the cache and compares each song."""
    del argv
    config = tiny.get_config(flags.FLAGS.folder)
    place = tempfile.TemporaryDirectory()
    config.features.cache = place.name
    mesh = make_mesh(data=1, fsdp=1, tensor=1)
    records = corpus.load(config.corpus.path)
    started = time.perf_counter()
    found = feature_cache.prepare(config, records, mesh)
    took = time.perf_counter() - started
    mert = weights.load_encoder(config.model.encoder, dtype="float32", mesh=mesh)
    worst, scale, sound = 0.0, 0.0, 0
    sizes = config.features.window_frames, config.features.chunk_windows
    for record in records:
        expected, cached = (
            alone(mert, record.audio, *sizes, config.features.level),
            found.features(record.clip),
        )
        assert expected.shape == cached.shape, (expected.shape, cached.shape)
        worst = max(worst, float(np.abs(expected - cached).max()))
        scale = max(scale, float(np.abs(expected).max()))
        sound += record.audio.stat().st_size
    seconds = sum(found.seconds(record.clip) for record in records)
    stored = sum(path.stat().st_size for path in Path(found.folder).glob("0*"))
    print(
        f"{len(records)} songs, {seconds / 3600:.2f} h\n"
        f"largest difference {worst:.1e}, of values up to {scale:.2f}\n"
        f"{stored / len(records):,.0f} bytes a song, of files of "
        f"{sound / len(records):,.0f}: {100 * stored / sound:.2f} %\n"
        f"prepared in {took:.1f} s, {seconds / took:.0f}× real time, compiling included"
    )
    place.cleanup()


if __name__ == "__main__":
    flags.DEFINE_string("folder", None, "folder of songs", required=True)
    app.run(main)
