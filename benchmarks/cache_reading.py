"""The rate at which one host reads cached features in shuffled order.

    python benchmarks/cache_reading.py --folder=DIR

Writes 20 shards of 1,024 clips with the features of ten seconds each, 3 × 1024 numbers
as from a 330M encoder (250 MB), and reads all of them in shuffled order, in three ways
in turn: clip by clip; in batches of 32 through a Grain data set with a prefetching
thread, as in training; and on two threads. Prints the medians of five rounds, after a
first one that reads the files into memory. On a busy machine, the rate per second of
processor time tells what an idle core would reach. Removes what it wrote.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grain
import numpy as np
from absl import app, flags
from etils import epath

from musilingo_jax.audio.cache import cache_state
from musilingo_jax.audio.cache.identity import FORMAT, Identity
from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.audio.cache.shards import CachedClip, ShardWriter
from musilingo_jax.jobs import shard_plan

SHARDS, CLIPS, SHAPE = 20, 1024, (3, 1024)
BATCH = 32
ROUNDS = 5


def make(folder: epath.Path) -> FeatureCache:
    """A cache of noise."""
    generator = np.random.default_rng(0)
    names = [[f"{n}/{clip}" for clip in range(CLIPS)] for n in range(SHARDS)]
    identity = Identity("noise", 24_000, 325, 3, "pooled", "float32", FORMAT, 0.0)
    plans = shard_plan.read(folder)
    ids = [clip for shard in names for clip in shard]
    shard_plan.add(folder, identity.stored(), plans, ids, shard_items=CLIPS)
    for number, clips in enumerate(names):
        with ShardWriter(folder, number, identity) as writer:
            for clip in clips:
                features = generator.standard_normal(SHAPE, np.float32)
                writer.add(
                    CachedClip(clip, features, 10.0, clip, silent=False, notices=[])
                )
            writer.finish()
    cache_state.write_index(folder, cache_state.read(folder, identity))
    return FeatureCache.open(folder, identity)


def one_by_one(cache: FeatureCache, batches: list[list[str]]) -> Iterator[np.ndarray]:
    """Reads clip by clip."""
    for clips in batches:
        yield from map(cache.features, clips)


def through_grain(
    cache: FeatureCache, batches: list[list[str]]
) -> Iterator[np.ndarray]:
    """Reads batches as elements of a Grain data set that prefetches."""
    data = grain.MapDataset.range(len(batches))
    data = data.map(lambda i: list(map(cache.features, batches[i])))
    for some in data.to_iter_dataset(grain.ReadOptions(1, prefetch_buffer_size=2)):
        yield from some


def on_threads(cache: FeatureCache, batches: list[list[str]]) -> Iterator[np.ndarray]:
    """Reads batches on two threads."""
    with ThreadPoolExecutor(2) as pool:
        for some in pool.map(lambda clips: list(map(cache.features, clips)), batches):
            yield from some


def rate(
    way: Callable, cache: FeatureCache, order: np.random.Generator
) -> tuple[float, float]:
    """Examples per second, and per second of processor time."""
    ids = order.permutation(list(cache.ids)).tolist()
    batches = [ids[i : i + BATCH] for i in range(0, len(ids), BATCH)]
    started, worked = time.perf_counter(), time.process_time()
    count = sum(1 for _ in way(cache, batches))
    assert count == SHARDS * CLIPS
    seconds, work = time.perf_counter() - started, time.process_time() - worked
    return count / seconds, count / work


def main(argv: list[str]) -> None:
    """Measures the three ways in turn."""
    del argv
    folder = epath.Path(flags.FLAGS.folder) / "cache_reading"
    order = np.random.default_rng(1)
    ways = (one_by_one, through_grain, on_threads)
    try:
        cache = make(folder)
        rates = {way: [] for way in ways}
        for _ in range(1 + ROUNDS):
            for way in ways:
                rates[way].append(rate(way, cache, order))
    finally:
        shutil.rmtree(Path(folder), ignore_errors=True)
    for way, found in rates.items():
        seconds, work = np.median(found[1:], axis=0)
        print(
            f"{way.__name__:14} {seconds:9,.0f} examples/s, {work:9,.0f} per second of "
            "processor time"
        )


if __name__ == "__main__":
    flags.DEFINE_string("folder", "/tmp", "folder for 250 MB of temporary files")
    app.run(main)
