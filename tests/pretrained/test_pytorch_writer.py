"""What is written without PyTorch is what PyTorch reads."""

import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch
from helpers.small_tensors import ARRAYS, layout

from musilingo_jax.pretrained import pytorch_files, pytorch_writer

CONTENT = ARRAYS | {
    "näme": np.arange(300, dtype=np.float32).reshape(3, 100),
    "truth": np.array([True, False]),
    "turned": np.arange(6, dtype=np.int32).reshape(2, 3).T,
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "checkpoint.pth"
    pytorch_writer.write(path, "model", layout(CONTENT), CONTENT.items())
    return path


@pytest.mark.parametrize(
    "options",
    [{}, {"weights_only": True}, {"weights_only": False}, {"mmap": True}],
)
def test_pytorch_reads_it(path, options):
    found = torch.load(path, map_location="cpu", **options)
    assert set(found) == {"model"}
    assert list(found["model"]) == list(CONTENT)
    for name, array in CONTENT.items():
        tensor = found["model"][name]
        assert tuple(tensor.shape) == array.shape and tensor.is_contiguous()
        kind = str(tensor.dtype).removeprefix("torch.")
        assert kind == array.dtype.name
        expected = array.astype(np.float64)
        np.testing.assert_array_equal(tensor.double().numpy(), expected)


def test_so_do_we(path):
    found = pytorch_files.open_tensors(path)
    assert set(found) == set(CONTENT)
    for name, array in CONTENT.items():
        np.testing.assert_array_equal(found[name][...], array)


def test_values_begin_where_pytorch_maps_them(path):
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            start = content.index(entry.filename.encode(), entry.header_offset)
            extra = int.from_bytes(content[start - 2 : start], "little")
            assert (start + len(entry.filename) + extra) % 64 == 0


def test_what_pytorch_has_no_storage_for(tmp_path):
    array = np.zeros(2, ml_dtypes.float8_e5m2)
    with pytest.raises(ValueError, match="PyTorch has no storage of float8_e5m2"):
        pytorch_writer.write(tmp_path / "x", "model", layout({"a": array}), [])
    one = np.zeros(2, np.float32)
    for wrong in ([], [("b", one)], [("a", one[:1])], [("a", one), ("b", one)]):
        with pytest.raises(ValueError, match="is next"):
            pytorch_writer.write(tmp_path / "x", "model", layout({"a": one}), wrong)
