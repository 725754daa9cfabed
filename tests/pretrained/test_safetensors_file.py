"""What others write is read, part by part; broken files are refused."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers.small_tensors import ARRAYS, assert_same, layout, write
from safetensors.numpy import save_file

from musilingo_jax.pretrained import safetensors_file
from musilingo_jax.pretrained.lazy_tensors import shortened
from musilingo_jax.pretrained.safetensors_writer import SafetensorsWriter
from musilingo_jax.pretrained.tensor_files import WEIGHTS, open_tensors
from musilingo_jax.runtime.errors import UserError


def test_we_read_what_others_write(tmp_path):
    save_file(ARRAYS, tmp_path / WEIGHTS)
    assert_same(open_tensors(tmp_path), ARRAYS)
    spelled = {"odd": "F16", "matrix": "F32", "half": "BF16", "counts": "I64"}
    found = open_tensors(tmp_path)
    assert {name: found[name].dtype for name in spelled} == spelled


@pytest.mark.parametrize(
    "index",
    [
        ...,
        (),
        0,
        -1,
        slice(2, 5),
        slice(None, None, 2),
        slice(5, 5),
        (slice(1, 3), slice(2, 4)),
        (slice(None), 3),
        (2, slice(0, 4)),
        (2, 3),
        (..., slice(1, 2)),
        (slice(-3, None), ...),
    ],
    ids=str,
)
def test_parts_are_those_of_numpy_and_own_their_memory(tmp_path, index):
    write(tmp_path, ARRAYS)
    tensor = open_tensors(tmp_path)["matrix"]
    part = tensor[index]
    np.testing.assert_array_equal(part, ARRAYS["matrix"][index])
    assert part.shape == ARRAYS["matrix"][index].shape
    part[...] = 0  # It is nobody else's.
    np.testing.assert_array_equal(tensor[...], ARRAYS["matrix"])


@pytest.mark.parametrize("index", [7, (0, 6), (0, 0, 0)])
def test_parts_outside_are_errors(tmp_path, index):
    write(tmp_path, ARRAYS)
    with pytest.raises(IndexError):
        open_tensors(tmp_path)["matrix"][index]


def test_only_the_rows_that_are_asked_for_are_read(tmp_path, monkeypatch):
    write(tmp_path, ARRAYS)
    tensor, read = open_tensors(tmp_path)["matrix"], []
    preadv = os.preadv

    def watched(number, buffers, start):
        read.append(sum(map(len, buffers)))
        return preadv(number, buffers, start)

    monkeypatch.setattr(os, "preadv", watched)
    np.testing.assert_array_equal(tensor[2:4], ARRAYS["matrix"][2:4])
    assert sum(read) == 2 * 6 * 4


def test_reads_that_come_in_pieces_are_put_together(tmp_path, monkeypatch):
    write(tmp_path, ARRAYS)
    tensor, preadv = open_tensors(tmp_path)["matrix"], os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda number, into, start: preadv(number, [into[0][:9]], start)
    )
    np.testing.assert_array_equal(tensor[...], ARRAYS["matrix"])


def test_tensors_outlive_the_files_that_they_came_from(tmp_path):
    """So that a folder may be written anew from its own tensors."""
    write(tmp_path, ARRAYS)
    tensors = open_tensors(tmp_path)
    doubled = {name: array * 2 for name, array in ARRAYS.items()}
    with SafetensorsWriter(
        tmp_path, layout(doubled), shard_bytes=10**9, metadata={}
    ) as writer:
        for name in doubled:
            writer.write(name, np.asarray(tensors[name][...] * 2))
    assert_same(open_tensors(tmp_path), doubled)
    assert_same(tensors, ARRAYS)


def test_files_are_closed_when_no_tensor_is_left(tmp_path):
    write(tmp_path, ARRAYS)
    before = len(os.listdir("/proc/self/fd"))
    tensors = open_tensors(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del tensors
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path):
    write(tmp_path, ARRAYS)
    tensors = open_tensors(tmp_path)
    os.truncate(tmp_path / WEIGHTS, 300)
    with pytest.raises(UserError, match="was cut off while it was read"):
        for tensor in tensors.values():
            tensor[...]


@pytest.mark.parametrize("keep", [0, 6, 100, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path, keep):
    write(tmp_path, ARRAYS)
    path = tmp_path / WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model\.safetensors: broken or cut off \(it"):
        open_tensors(tmp_path)


def file_of(header, numbers=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def tensor(dtype="F32", shape=(2,), begin=0, end=8):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (file_of({"a": tensor()}, b"8 bytes and more"), "16 bytes of values instead"),
        (file_of({"a": tensor(end=4)}, bytes(4)), "the size of a is impossible"),
        (file_of({"a": tensor(shape=(-2,))}, bytes(8)), "the size of a is impossible"),
        (
            file_of({"a": tensor(), "b": tensor(begin=4, end=12)}, bytes(12)),
            "overlap or leave gaps",
        ),
        (
            file_of({"a": tensor(), "b": tensor(begin=12, end=20)}, bytes(20)),
            "overlap or leave gaps",
        ),
        (file_of({"a": {"dtype": "F32"}}), "does not describe a"),
        (file_of({"a": tensor(shape=("x",))}, bytes(8)), "does not describe a"),
        (
            file_of(b'{"a":{"dtype":"F32","shape":[1e400],"data_offsets":[0,8]}}'),
            "does not describe a",
        ),
        (file_of({"a": 3}), "does not describe a"),
        (file_of([1]), "not a JSON object"),
        (file_of(b"{"), "cut off"),
        (file_of(b"\xff\xfe"), "cut off"),
        (file_of(b"[" * 100_000), "cut off"),
        (struct.pack("<Q", 2**62) + bytes(100), "ends before its header does"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    ],
)
def test_headers_that_do_not_fit_are_refused(tmp_path, content, reason):
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        open_tensors(tmp_path)
    assert "\n" not in str(caught.value)


def test_numbers_of_unknown_types_can_be_listed_but_not_read(tmp_path):
    content = file_of({"a": tensor("F4", (16,), 0, 8), "b": tensor("F32", (), 8, 12)})
    (tmp_path / WEIGHTS).write_bytes(content + bytes(12))
    found = open_tensors(tmp_path)
    assert (found["a"].dtype, found["a"].shape, found["a"].nbytes) == ("F4", (16,), 8)
    assert found["b"][...] == 0
    with pytest.raises(UserError, match="values of type F4, which is not supported"):
        found["a"][...]


def test_memory_is_bounded_by_what_is_asked_for(tmp_path):
    """After reading 64 MB, one MB at a time, neither file nor copies are resident."""
    large = {"large": np.ones((64, 2**18), np.float32)}
    write(tmp_path, large)
    tensor = open_tensors(tmp_path)["large"]

    def resident():
        said = Path("/proc/self/smaps_rollup").read_text()
        return int(said.split("Rss:")[1].split()[0]) * 1024

    del large
    before = resident()
    assert all(tensor[i, 0] == 1 for i in range(64))
    assert resident() - before < 8e6


def test_names_of_types_and_tensors_are_one_line(tmp_path):
    odd = "line\nerror: line"
    (tmp_path / WEIGHTS).write_bytes(
        file_of({"a": tensor(odd, (16,), 0, 8)}) + bytes(8)
    )
    with pytest.raises(UserError, match=r"of type line\\nerror: line, which is not"):
        open_tensors(tmp_path)["a"][...]
    (tmp_path / WEIGHTS).write_bytes(file_of({odd: {}}))
    with pytest.raises(UserError, match=r"does not describe line\\nerror: line"):
        open_tensors(tmp_path)
    assert shortened([odd]) == r"line\nerror: line"


def test_every_type_has_one_spelling():
    assert len(set(safetensors_file.TYPES.values())) == len(safetensors_file.TYPES)
