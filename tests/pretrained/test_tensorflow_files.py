"""Checkpoints of TensorFlow: read as written, and refused if damaged."""

import numpy as np
import pytest
from helpers import tensorflow_bundle

from musilingo_jax.pretrained import tensorflow_files
from musilingo_jax.runtime.errors import UserError

ARRAYS = {
    "conv2d/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "conv2d/bias": np.ones(4, np.float32),
    "conv2d_1/kernel": np.full((1, 300), 0.5, np.float64),
    "step": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "a" * 200: np.arange(3, dtype=np.int32),
}


def test_arrays_are_read_as_they_were_written(tmp_path):
    tensorflow_bundle.write(tmp_path, ARRAYS, "model")
    found = tensorflow_files.read(tmp_path, "model")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_a_missing_file_is_named(tmp_path):
    tensorflow_bundle.write(tmp_path, ARRAYS)
    (tmp_path / ".data-00000-of-00001").unlink()
    with pytest.raises(UserError, match="data-00000-of-00001: cannot be read"):
        tensorflow_files.read(tmp_path)


@pytest.mark.parametrize("name", [".index", ".data-00000-of-00001"])
def test_a_file_that_was_cut_is_refused(tmp_path, name):
    tensorflow_bundle.write(tmp_path, ARRAYS)
    content = (tmp_path / name).read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 1):
        (tmp_path / name).write_bytes(content[:size])
        with pytest.raises(UserError, match="get both files from their source again"):
            tensorflow_files.read(tmp_path)


def test_whatever_is_in_an_index_nothing_else_is_raised(tmp_path):
    tensorflow_bundle.write(tmp_path, ARRAYS)
    path = tmp_path / ".index"
    content, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(content)
        changed[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            tensorflow_files.read(tmp_path)
        except UserError:
            refused += 1
    assert refused > 50
