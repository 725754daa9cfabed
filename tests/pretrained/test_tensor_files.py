"""Which files of a folder hold its weights, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.small_tensors import ARRAYS, write

from musilingo_jax.pretrained import pytorch_files
from musilingo_jax.pretrained.lazy_tensors import under
from musilingo_jax.pretrained.tensor_files import INDEX, WEIGHTS, open_tensors
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json


def test_names_under_a_prefix():
    one, two, three = map(np.float32, range(3))
    tensors = {"model.a": one, "model.b.c": two, "head": three}
    assert under(tensors, "model.") == {"a": one, "b.c": two}
    assert under(tensors, "") == tensors


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
        refused(json.dumps({"weight_map": where | {"a": long}}), "not exist: a{77}…;")
    refused(json.dumps({"weight_map": where | {"a": ""}}), "outside its folder")
    refused("{}", "has no weight_map")
    refused('{"weight_map":', "index.json: is not JSON")
    refused("[]", "must contain a JSON object")
    gone = tmp_path / where["b"]
    kept = gone.read_bytes()
    gone.unlink()
    refused(good, f"names files that do not exist: {gone.name}; download")
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
    with pytest.raises(UserError, match="not a model folder, because it has neither"):
        open_tensors(tmp_path)
    (tmp_path / WEIGHTS).mkdir()
    with pytest.raises(UserError, match="not a model folder, because it has neither"):
        open_tensors(tmp_path)
    (tmp_path / WEIGHTS).rmdir()
    (tmp_path / "training_args.bin").write_bytes(b"")
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="has other.safetensors, but .* be called mo"):
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


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "pytorch_model.bin.index.json", "adapter.pth", "adapter.pt"],
)
def test_files_of_pytorch_are_left_to_those_who_know_them(tmp_path, monkeypatch, name):
    one = np.float32(1)
    monkeypatch.setattr(
        pytorch_files, "open_tensors", lambda folder: {str(folder): one}
    )
    (tmp_path / name).write_bytes(b"")
    assert open_tensors(tmp_path) == {str(tmp_path): one}
    write(tmp_path, ARRAYS)
    assert set(open_tensors(tmp_path)) == set(ARRAYS)
