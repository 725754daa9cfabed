"""Tensors of several types and shapes, written to a folder and compared."""

import ml_dtypes
import numpy as np

from musilingo_jax.pretrained.safetensors_writer import SafetensorsWriter

RANDOM = np.random.default_rng(0)


ARRAYS = {
    "odd": RANDOM.normal(size=5).astype(np.float16),
    "matrix": RANDOM.normal(size=(7, 6)).astype(np.float32),
    "half": RANDOM.normal(size=(3, 2, 4)).astype(ml_dtypes.bfloat16),
    "scalar": np.array(3.5, np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "counts": np.arange(6, dtype=np.int64),
    "flags": np.array([1, 0, 2], np.uint8),
}


def layout(arrays):
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def write(folder, arrays, *, shard_bytes=10**9, metadata=None):
    metadata = metadata or {}
    with SafetensorsWriter(
        folder, layout(arrays), shard_bytes=shard_bytes, metadata=metadata
    ) as writer:
        for name, array in arrays.items():
            writer.write(name, array)


def assert_same(found, arrays):
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert found[name].nbytes == array.nbytes
        read = found[name][...]
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)
