"""What is written is read, by others too, and replaces old files as a whole."""

import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.small_tensors import ARRAYS, assert_same, layout, write
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from musilingo_jax.pretrained import safetensors_writer
from musilingo_jax.pretrained.safetensors_writer import SafetensorsWriter, write_config
from musilingo_jax.pretrained.tensor_files import CONFIG, INDEX, WEIGHTS, open_tensors
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json


def names(folder):
    return {path.name for path in folder.iterdir()}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("shard_bytes", [10**9, 100, 1])
def test_what_is_written_is_read(tmp_path, shard_bytes):
    write(tmp_path / "made" / "here", ARRAYS, shard_bytes=shard_bytes)
    assert_same(open_tensors(tmp_path / "made" / "here"), ARRAYS)


def test_others_read_what_we_write(tmp_path):
    write(tmp_path, ARRAYS, metadata={"step": "7"})
    with safe_open(tmp_path / WEIGHTS, "numpy") as file:
        metadata = file.metadata()
        assert set(json.loads(metadata.pop("crc32"))) == set(ARRAYS)
        assert metadata == {"format": "pt", "step": "7"}
    for name, array in load_file(tmp_path / WEIGHTS).items():
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name])
    # torch looks at the file in place, where numbers must lie at their own width.
    for name, tensor in safetensors.torch.load_file(tmp_path / WEIGHTS).items():
        array = ARRAYS[name].astype(np.float64)
        np.testing.assert_array_equal(tensor.to(torch.float64).numpy(), array)
    size = int.from_bytes((tmp_path / WEIGHTS).read_bytes()[:8], "little")
    assert size % 8 == 0


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


def test_the_layout_must_be_kept(tmp_path):
    kinds = {"a": ((2,), np.dtype("float32")), "b": ((2,), np.dtype("float32"))}
    a = np.zeros(2, np.float32)

    def writer():
        return SafetensorsWriter(tmp_path / "x", kinds, shard_bytes=10, metadata={})

    with (
        pytest.raises(ValueError, match="b was written, but a is next"),
        writer() as files,
    ):
        files.write("b", a)
    with (
        pytest.raises(ValueError, match="a was written, but None is next"),
        writer() as files,
    ):
        for name in "aba":
            files.write(name, a)
    with pytest.raises(ValueError, match="not written: b"), writer() as files:
        files.write("a", a)
    other = r"a is float32\[3\], not float32\[2\]"
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
    with pytest.raises(UserError, match=r"no space left \(No space left on device\)"):
        write(tmp_path / "out", ARRAYS)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"file.*: cannot be written \("):
            write(folder, ARRAYS)
    assert (tmp_path / "file").read_text() == ""


def test_a_config_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    write_config(tmp_path, {"a": 1})
    with pytest.raises(UserError, match="cannot be written"):
        write_config(tmp_path / CONFIG / "below a file", {"a": 2})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left"):
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
        before = steps[: steps.index(("name", name))]
        synced = [synced for what, synced in before if what == "sync"]
        assert any(re.fullmatch(rf"{name}\..*partial", partial) for partial in synced)
    shards = [step for step in steps if "-of-" in step[1]]
    assert [what for what, _ in shards] == sorted((what for what, _ in shards))[::-1]
    assert steps[-1] == ("sync", tmp_path.name)


@pytest.mark.parametrize("shard_bytes", [100, 10**9])
def test_a_flipped_bit_of_a_value_is_found(tmp_path, shard_bytes):
    write(tmp_path, ARRAYS, shard_bytes=shard_bytes)
    assert_same(open_tensors(tmp_path), ARRAYS)
    for path in tmp_path.glob("*.safetensors"):
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        for place in range(start, len(content)):
            changed = bytearray(content)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            with pytest.raises(UserError, match=r"broken .*\w does not match its"):
                open_tensors(tmp_path)
        path.write_bytes(content)


def test_large_files_have_no_checksums(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors_writer, "CHECKED_BYTES", 280)
    write(tmp_path, ARRAYS)
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        assert "crc32" not in file.metadata()
