"""Exports a cache for other tools, as one Parquet or NumPy file."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from etils import epath
from jaxtyping import Float

from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.runtime import cli, storage
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.printable import printable

_AT_ONCE = 64  # Clips in memory.


def export(cache: FeatureCache, path: Path) -> None:
    r"""Writes all clips of a cache, in its order.

    A `.parquet` file has a row per clip, with the columns `clip` (its id), `path`,
    `seconds` and `embedding`, a list of vectors. An `.npz` file has the arrays

        clip, path, seconds    [clips]
        start                  [clips + 1]
        embedding              [vectors, width]; clip i has the rows start[i] to
                               start[i + 1]

    Bytes of a file's name that are not UTF-8 are written as `\udcff`.

    Args:
      cache: with features of any reduction.
      path: the file; its folder is made if it does not exist.

    Raises:
      UsageError: the name ends in neither `.parquet` nor `.npz`.
      UserError: the cache is empty, or the file cannot be written.
    """
    writers = {".parquet": _write_parquet, ".npz": _write_npz}
    if path.suffix not in writers:
        raise UsageError(f"--out={path}: must end in .parquet or .npz")
    if not cache.ids:
        raise UserError(f"{cache.folder}: holds no clips that could be exported")
    with storage.writing(path, again="run the same command again"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with storage.atomic(epath.Path(path)) as partial:
            writers[path.suffix](cache, partial)
    print(f"{len(cache.ids)} clips in {path}, {path.stat().st_size:,} bytes")


def _parts(
    cache: FeatureCache,
) -> Iterator[tuple[list[str], list[Float[np.ndarray, "vectors width"]]]]:
    """A few clips at a time, with their features."""
    clips = list(cache.ids)
    with cli.progress(total=len(clips), unit="clip", label="exporting") as bar:
        for start in range(0, len(clips), _AT_ONCE):
            some = clips[start : start + _AT_ONCE]
            yield some, list(map(cache.features, some))
            bar.update(len(some))


def _write_parquet(cache: FeatureCache, path: Path) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            "Parquet files need pyarrow (`pip install pyarrow`); or choose .npz"
        ) from error
    width = cache.features(next(iter(cache.ids))).shape[1]
    vector = pa.list_(pa.float32(), width)
    schema = pa.schema(
        {
            "clip": pa.string(),
            "path": pa.string(),
            "seconds": pa.float64(),
            "embedding": pa.list_(vector),
        }
    )
    with parquet.ParquetWriter(path, schema) as writer:
        for clips, features in _parts(cache):
            ends = np.cumsum([0, *map(len, features)]).astype(np.int32)
            flat = pa.array(np.concatenate(features).ravel())
            vectors = pa.FixedSizeListArray.from_arrays(flat, type=vector)
            columns = [
                pa.array(list(map(printable, clips))),
                pa.array([printable(str(cache.path(clip))) for clip in clips]),
                pa.array([cache.seconds(clip) for clip in clips]),
                pa.ListArray.from_arrays(ends, vectors),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _write_npz(cache: FeatureCache, path: Path) -> None:
    """As `np.savez`, but with a few embeddings in memory at a time."""
    clips = list(cache.ids)
    counts = [cache.windows(clip) for clip in clips]
    small = {
        "clip": np.array(list(map(printable, clips))),
        "path": np.array([printable(str(cache.path(clip))) for clip in clips]),
        "seconds": np.array([cache.seconds(clip) for clip in clips]),
        "start": np.cumsum([0, *counts]),
    }
    width = cache.features(clips[0]).shape[1]
    header = {"descr": "<f4", "fortran_order": False, "shape": (sum(counts), width)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as file:
        for name, values in small.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, values)
        with file.open("embedding.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array_header_2_0(entry, header)
            for _, features in _parts(cache):
                entry.write(np.concatenate(features).tobytes())
