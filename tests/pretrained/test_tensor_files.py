"""Which files of a folder hold its weights, and what is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_tensors import ARRAYS, write
from safetensors.numpy import save_file

from musilingo_jax.pretrained.lazy_tensors import under
from musilingo_jax.pretrained.tensor_files import (
    INDEX,
    WEIGHTS,
    open_tensors,
    report_unread,
)
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
    refused(good, f"names files that do not exist: {gone.name}; get")
    gone.write_bytes(kept[:-1])
    refused(good, f"{gone.name}: broken or cut off")
    gone.write_bytes(kept)
    del where["b"]  # What a file holds besides is found as well.
    index.write_text(json.dumps({"weight_map": where | {"x": where["a"]}}))
    save_file({"x": arrays["a"]}, tmp_path / where["a"])
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


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter.pth", "adapter.pt"])
def test_files_of_pytorch_are_read_where_there_are_no_others(tmp_path, name):
    torch.save({"x": torch.ones(2)}, tmp_path / name)
    assert set(open_tensors(tmp_path)) == {"x"}
    write(tmp_path, ARRAYS)
    assert set(open_tensors(tmp_path)) == set(ARRAYS)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_two_formats_of_one_model(tmp_path, dtype):
    content = {"a": torch.randn(5, 3), "b": torch.randn(4), "c": torch.tensor(2.0)}
    write(tmp_path, {name: tensor.numpy() for name, tensor in content.items()})
    rounded = {name: t.to(getattr(torch, dtype)) for name, t in content.items()}
    torch.save(rounded, tmp_path / "pytorch_model.bin")
    assert set(open_tensors(tmp_path)) == set(content)
    for name in content:
        other = {n: t + 0.25 * (n == name) for n, t in rounded.items()}
        torch.save(other, tmp_path / "pytorch_model.bin")
        with pytest.raises(
            UserError, match=rf"different models \({name} is not the sa"
        ):
            open_tensors(tmp_path)
    torch.save(content | {"a": torch.ones(5, 2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"model.safetensors and pytorch_model.bin hold"
    ):
        open_tensors(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04")  # Of no use to anyone.
    assert set(open_tensors(tmp_path)) == set(content)


def test_files_that_are_not_read_are_named_once(tmp_path, capsys):
    write(tmp_path, ARRAYS)
    for name in ("optimizer.bin", "training_args.bin", "x.gguf", "lora.safetensors"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "model\x1b.pt").write_bytes(b"")
    for _ in range(2):
        report_unread(tmp_path)
    assert capsys.readouterr().err == (
        f"{tmp_path}: not read, only model.safetensors is: lora.safetensors, "
        "model\\x1b.pt, x.gguf\n"
    )
    write(tmp_path / "shards", ARRAYS, shard_bytes=50)
    report_unread(tmp_path / "shards")
    assert not capsys.readouterr().err


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", INDEX])
def test_a_named_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=r"cannot be read \(is not a regular file\)"):
        open_tensors(tmp_path)
