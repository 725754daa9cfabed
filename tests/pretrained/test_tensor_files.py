"""Files of tensors: what is written is read, by others too; bad ones are refused."""

import errno
import json
import os
import struct
import sys
import types
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from musilingo_jax.pretrained import safetensors_file
from musilingo_jax.pretrained.lazy_tensors import under
from musilingo_jax.pretrained.safetensors_writer import SafetensorsWriter, write_config
from musilingo_jax.pretrained.tensor_files import CONFIG, INDEX, WEIGHTS, open_tensors
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import read_json

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


def names(folder):
    return {path.name for path in folder.iterdir()}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same(found, arrays):
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert found[name].nbytes == array.nbytes
        read = found[name][...]
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("shard_bytes", [10**9, 100, 1])
def test_what_is_written_is_read(tmp_path, shard_bytes):
    write(tmp_path / "made" / "here", ARRAYS, shard_bytes=shard_bytes)
    assert_same(open_tensors(tmp_path / "made" / "here"), ARRAYS)


def test_others_read_what_we_write(tmp_path):
    write(tmp_path, ARRAYS, metadata={"step": "7"})
    with safe_open(tmp_path / WEIGHTS, "numpy") as file:
        assert file.metadata() == {"format": "pt", "step": "7"}
    for name, array in load_file(tmp_path / WEIGHTS).items():
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name])
    # torch looks at the file in place, where numbers must lie at their own width.
    for name, tensor in safetensors.torch.load_file(tmp_path / WEIGHTS).items():
        array = ARRAYS[name].astype(np.float64)
        np.testing.assert_array_equal(tensor.to(torch.float64).numpy(), array)
    size = int.from_bytes((tmp_path / WEIGHTS).read_bytes()[:8], "little")
    assert size % 8 == 0


def test_we_read_what_others_write(tmp_path):
    save_file(ARRAYS, tmp_path / WEIGHTS)
    assert_same(open_tensors(tmp_path), ARRAYS)
    spelled = {"odd": "F16", "matrix": "F32", "half": "BF16", "counts": "I64"}
    found = open_tensors(tmp_path)
    assert {name: found[name].dtype for name in spelled} == spelled


def test_shards_are_as_large_as_allowed_and_indexed(tmp_path):
    arrays = {f"t{i}": np.full(10, i, np.float32) for i in range(5)}  # 40 bytes each
    arrays["large"] = np.zeros(30, np.float32)
    write(tmp_path, arrays, shard_bytes=80)
    shards = [f"model-{i:05}-of-00004.safetensors" for i in range(1, 5)]
    assert names(tmp_path) == {*shards, INDEX}
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"] == {"total_size": 320}
    where = [index["weight_map"][name] for name in arrays]
    assert where == [shards[i] for i in (0, 0, 1, 1, 2, 3)]
    for name, shard in index["weight_map"].items():
        np.testing.assert_array_equal(load_file(tmp_path / shard)[name], arrays[name])


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


def test_names_under_a_prefix():
    tensors = {"model.a": 1, "model.b.c": 2, "head": 3}
    assert under(tensors, "model.") == {"a": 1, "b.c": 2}
    assert under(tensors, "") == tensors


def test_the_layout_must_be_kept(tmp_path):
    kinds = {"a": ((2,), np.dtype("float32")), "b": ((2,), np.dtype("float32"))}
    a = np.zeros(2, np.float32)

    def writer():
        return SafetensorsWriter(tmp_path / "x", kinds, shard_bytes=10, metadata={})

    with pytest.raises(ValueError, match="b was .* the turn of a"), writer() as files:
        files.write("b", a)
    with pytest.raises(ValueError, match="the turn of None"), writer() as files:
        for name in "aba":
            files.write(name, a)
    with pytest.raises(ValueError, match="not written: b"), writer() as files:
        files.write("a", a)
    other = r"a is float32\[3\] and not float32\[2\]"
    with pytest.raises(ValueError, match=other), writer() as files:
        files.write("a", np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"a is float64\[2\]"), writer() as files:
        files.write("a", np.zeros(2))
    with pytest.raises(ValueError, match="cannot hold complex128"):
        SafetensorsWriter(
            tmp_path, {"a": ((2,), np.dtype("complex128"))}, shard_bytes=9, metadata={}
        )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("before", [10**9, 200])
@pytest.mark.parametrize("after", [10**9, 200, 90])
def test_new_files_replace_old_ones_of_any_kind(tmp_path, before, after):
    write(tmp_path, ARRAYS, shard_bytes=before)
    (tmp_path / "README.md").write_text("stays")
    doubled = {name: array.repeat(2) for name, array in ARRAYS.items()}
    write(tmp_path, doubled, shard_bytes=after)
    write(tmp_path / "fresh", doubled, shard_bytes=after)
    assert_same(open_tensors(tmp_path), doubled)
    assert names(tmp_path) - {"README.md", "fresh"} == names(tmp_path / "fresh")


def test_shards_of_other_names_go_with_their_index(tmp_path):
    save_file({"a": np.zeros(2)}, tmp_path / "part-a.safetensors")
    save_file({"b": np.zeros(2)}, tmp_path / "unrelated.safetensors")
    where = {"a": "part-a.safetensors", "b": "../elsewhere.safetensors", "c": 3}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": where}))
    save_file({"b": np.zeros(2)}, tmp_path.parent / "elsewhere.safetensors")
    write(tmp_path, ARRAYS)
    assert names(tmp_path) == {WEIGHTS, "unrelated.safetensors"}
    assert (tmp_path.parent / "elsewhere.safetensors").exists()


@pytest.mark.parametrize("before", [10**9, 200])
@pytest.mark.parametrize("after", [10**9, 200])
def test_an_interrupted_writer_leaves_the_old_files(tmp_path, before, after):
    write(tmp_path, ARRAYS, shard_bytes=before)
    old = contents(tmp_path)
    files = SafetensorsWriter(tmp_path, layout(ARRAYS), shard_bytes=after, metadata={})
    with pytest.raises(KeyboardInterrupt), files as writer:
        writer.write("odd", ARRAYS["odd"] + 1)
        writer.write("matrix", ARRAYS["matrix"] + 1)
        assert contents(tmp_path).items() > old.items()
        raise KeyboardInterrupt
    assert contents(tmp_path) == old


@pytest.mark.parametrize("before", [10**9, 200])
@pytest.mark.parametrize("after", [10**9, 200, 90])
def test_a_kill_at_any_moment_leaves_one_truth_or_none(
    tmp_path, monkeypatch, before, after
):
    """Stops at each step of the replacement in turn, without any cleaning up."""
    ones = {name: np.ones_like(array) for name, array in ARRAYS.items()}
    steps, stop = [], None
    untouched = {name: getattr(os, name) for name in ("replace", "unlink")}

    def counted(call):
        def step(*args, **options):
            steps.append(call.__name__)
            if stop is not None and len(steps) > stop:
                raise SystemExit  # Nothing after this has any effect either.
            return call(*args, **options)

        return step

    finished = False
    kept, stop = set(), 0
    while not finished:
        folder = tmp_path / str(stop)
        write(folder, ARRAYS, shard_bytes=before)
        steps.clear()
        with monkeypatch.context() as patch:
            for name, call in untouched.items():
                patch.setattr(os, name, counted(call))
            try:
                write(folder, ones, shard_bytes=after)
                finished = True
            except SystemExit:
                pass
        try:
            found = open_tensors(folder)
        except UserError:
            kept.add("none")
        else:
            new = found["odd"][...][0] == 1
            assert_same(found, ones if new else ARRAYS)
            kept.add("new" if new else "old")
        stop += 1
    assert {"old", "new"} <= kept
    assert ("none" in kept) == (before < 10**9 and after < 10**9)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match="the disk is full; make room"):
        write(tmp_path / "out", ARRAYS)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"file.*: cannot be written \("):
            write(folder, ARRAYS)
    assert (tmp_path / "file").read_text() == ""


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
        (file_of({"a": tensor()}, b"8 bytes and more"), "16 bytes of numbers instead"),
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
        (file_of([1]), "no JSON object"),
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
    with pytest.raises(UserError, match="numbers of the type F4"):
        found["a"][...]


def test_an_index_must_tell_the_truth(tmp_path):
    arrays = {name: np.arange(4, dtype=np.float32) for name in "abc"}
    write(tmp_path, arrays, shard_bytes=20)
    index = tmp_path / INDEX
    good = index.read_text()

    def refused(text, reason):
        index.write_text(text)
        with pytest.raises(UserError, match=reason):
            open_tensors(tmp_path)

    where = json.loads(good)["weight_map"]
    moved = where | {"a": where["b"], "d": where["b"]}
    told = f"not in their files: a in {where['b']}, d in {where['b']};"
    refused(json.dumps({"weight_map": moved}), told)
    outside = where | {"a": "../a.safetensors"}
    refused(json.dumps({"weight_map": outside}), r"outside its folder: \.\./a\.safe")
    refused(json.dumps({"weight_map": where | {"a": 3}}), "has no weight_map")
    for long in ("a" * 300, "a" * 5000):
        refused(json.dumps({"weight_map": where | {"a": long}}), "not there: a{77}…;")
    refused(json.dumps({"weight_map": where | {"a": ""}}), "outside its folder")
    refused("{}", "has no weight_map")
    refused('{"weight_map":', "index.json: is not JSON")
    refused("[]", "must hold a JSON object")
    gone = tmp_path / where["b"]
    kept = gone.read_bytes()
    gone.unlink()
    refused(good, f"names files that are not there: {gone.name}; download")
    gone.write_bytes(kept[:-1])
    refused(good, f"{gone.name}: broken or cut off")
    gone.write_bytes(kept)
    del where["b"]  # What a file holds besides is found as well.
    index.write_text(json.dumps({"weight_map": where | {"x": where["a"]}}))
    (tmp_path / where["a"]).write_bytes(
        (tmp_path / where["a"]).read_bytes().replace(b'"a"', b'"x"')
    )
    refused(index.read_text(), "not in their files: a in")
    del where["a"]
    index.write_text(
        json.dumps({"weight_map": where | {"x": "model-00001-of-00003.safetensors"}})
    )
    assert set(open_tensors(tmp_path)) == {"x", "c"}


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a model folder, for it has neither"):
        open_tensors(tmp_path)
    (tmp_path / WEIGHTS).mkdir()
    with pytest.raises(UserError, match="not a model folder, for it has neither"):
        open_tensors(tmp_path)
    (tmp_path / WEIGHTS).rmdir()
    (tmp_path / "training_args.bin").write_bytes(b"")
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="has other.safetensors, but .* are called mo"):
        open_tensors(tmp_path)
    write(tmp_path, ARRAYS, shard_bytes=100)
    (tmp_path / INDEX).unlink()
    with pytest.raises(
        UserError,
        match=r"has the files model-00001-of.* but not the model.safetensors.i",
    ):
        open_tensors(tmp_path)


def test_json_that_cannot_be_read_is_told(tmp_path):
    for path in (tmp_path, tmp_path / "nothing.json", Path("/proc/self/mem")):
        with pytest.raises(UserError, match=f"{path}: cannot be read"):
            read_json(path)


def test_a_config_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    write_config(tmp_path, {"a": 1})
    with pytest.raises(UserError, match="cannot be written"):
        write_config(tmp_path / CONFIG / "below a file", {"a": 2})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        write_config(tmp_path, {"a": 2})
    assert read_json(tmp_path / "config.json") == {"a": 1}
    assert names(tmp_path) == {"config.json"}


def test_numbers_are_on_the_disk_before_they_have_names(tmp_path, monkeypatch):
    steps = []
    real = {name: getattr(os, name) for name in ("fsync", "replace")}

    def fsync(number):
        steps.append(("sync", Path(os.readlink(f"/proc/self/fd/{number}")).name))
        real["fsync"](number)

    def replace(before, after):
        steps.append(("name", Path(after).name))
        real["replace"](before, after)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write(tmp_path, ARRAYS, shard_bytes=100)
    named = [name for what, name in steps if what == "name"]
    assert set(named) == names(tmp_path) and len(named) > 2
    for name in named:
        assert steps.index(("sync", f"{name}.partial")) < steps.index(("name", name))
    shards = [step for step in steps if "-of-" in step[1]]
    assert [what for what, _ in shards] == sorted((what for what, _ in shards))[::-1]
    assert steps[-1] == ("sync", tmp_path.name)


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "pytorch_model.bin.index.json", "adapter.pth", "adapter.pt"],
)
def test_files_of_pytorch_are_left_to_those_who_know_them(tmp_path, monkeypatch, name):
    asked = types.SimpleNamespace(open_tensors=lambda folder: {"from": folder})
    monkeypatch.setitem(sys.modules, "musilingo_jax.pretrained.pytorch_files", asked)
    monkeypatch.setattr("musilingo_jax.pretrained.pytorch_files", asked, raising=False)
    (tmp_path / name).write_bytes(b"")
    assert open_tensors(tmp_path) == {"from": tmp_path}
    write(tmp_path, ARRAYS)
    assert set(open_tensors(tmp_path)) == set(ARRAYS)


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


def test_every_type_has_one_spelling():
    assert len(set(safetensors_file.TYPES.values())) == len(safetensors_file.TYPES)
