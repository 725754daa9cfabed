"""PyTorch's files: the same numbers, read lazily; and no file's program is ever run."""

import argparse
import json
import os
import pickle
import sys

import ml_dtypes
import numpy as np
import pytest
import torch

from musilingo_jax.pretrained import pytorch_files, safetensors_file, tensor_files
from musilingo_jax.runtime.errors import UserError


class Malicious:
    """A pickle of it writes a file when it is read as pickles usually are."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def content():
    generator = torch.Generator().manual_seed(0)
    return {
        "float": torch.randn(6, 4, generator=generator),
        "half": torch.randn(3, generator=generator).half(),
        "brain": torch.randn(2, 5, generator=generator).bfloat16(),
        "turned": torch.randn(2, 3, generator=generator).T,
        "whole": torch.arange(7),
        "point": torch.tensor(1.5),
    }


def save(content, path, **options):
    path.parent.mkdir(exist_ok=True)
    torch.save(content, path, **options)
    return path


def assert_same(found, content):
    assert set(found) == set(content)
    for name, tensor in content.items():
        lazy, array = found[name], found[name][...]
        assert lazy.shape == array.shape == tuple(tensor.shape)
        assert array.dtype == safetensors_file.TYPES[lazy.dtype]
        assert lazy.nbytes == array.nbytes
        assert array.flags.owndata or array.base.flags.owndata
        np.testing.assert_array_equal(array.astype(np.float64), tensor.double().numpy())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("limit", [0, pytorch_files._MAPPED_BYTES])
def test_tensors_are_what_was_saved(content, tmp_path, monkeypatch, zipped, limit):
    monkeypatch.setattr(
        pytorch_files, "_MAPPED_BYTES", limit
    )  # 0: mapped for each anew.
    save(
        content,
        tmp_path / "pytorch_model.bin",
        _use_new_zipfile_serialization=zipped,
    )
    found = tensor_files.open_tensors(tmp_path)
    assert_same(found, content)
    assert found["brain"].dtype == "BF16"
    assert found["brain"][0, 1:3].dtype == ml_dtypes.bfloat16
    part = found["float"][2:4, 1]
    np.testing.assert_array_equal(part, content["float"][2:4, 1])
    part[:] = 0  # It is the reader's own: neither file nor tensor changes.
    assert_same(tensor_files.open_tensors(tmp_path), content)


def test_a_map_is_closed_when_enough_was_read(content, tmp_path, monkeypatch):
    path = save(content, tmp_path / "model.bin")
    mapped = pytorch_files.open_tensors(path)["float"]
    monkeypatch.setattr(pytorch_files, "_MAPPED_BYTES", mapped.nbytes)
    counts = []
    for _ in range(3):
        with open("/proc/self/maps") as maps:
            counts.append(sum(str(path) in line for line in maps))
        mapped[...]
    assert counts == [1, 1, 0]


def test_a_trainers_checkpoint_is_its_model(content, tmp_path):
    state = {"model": content, "optimizer": {"state": {}}, "epoch": 3, "scaler": None}
    state["config"] = {"run": {"lr": 1e-4, "path": "x"}}
    path = save(state, tmp_path / "checkpoint_3.pth")
    assert_same(pytorch_files.open_tensors(path), content)
    assert_same(pytorch_files.open_tensors(tmp_path), content)
    save(content, tmp_path / "other.pt")
    with pytest.raises(
        UserError, match=r"may be the weights: checkpoint_3.pth, other.pt"
    ):
        pytorch_files.open_tensors(tmp_path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda content: {"state_dict": content, "epoch": 3},
        lambda content: {"model": {"state_dict": content}},
        lambda content: {f"module.{name}": t for name, t in content.items()},
        lambda content: {
            "state_dict": {f"module.{name}": t for name, t in content.items()}
        },
    ],
)
def test_other_trainers_wrap_it_otherwise(content, tmp_path, wrap):
    save(wrap(content), tmp_path / "checkpoint.pt")
    assert_same(tensor_files.open_tensors(tmp_path), content)


def test_a_name_that_begins_so_is_only_a_name(content, tmp_path):
    content["module.weight"] = torch.ones(2)
    path = save(content, tmp_path / "checkpoint.pth")
    assert_same(pytorch_files.open_tensors(path), content)


def test_shards(content, tmp_path):
    index = tmp_path / "pytorch_model.bin.index.json"
    halves = {"1.bin": list(content)[:3], "2.bin": list(content)[3:]}
    for file, names in halves.items():
        save({name: content[name] for name in names}, tmp_path / file)
    where = {name: file for file, names in halves.items() for name in names}
    index.write_text(json.dumps({"weight_map": where}))
    assert_same(tensor_files.open_tensors(tmp_path), content)
    index.write_text(json.dumps({"weight_map": where | {"half": "2.bin"}}))
    with pytest.raises(UserError, match="not in their files: half in 2.bin"):
        pytorch_files.open_tensors(tmp_path)
    index.write_text(json.dumps({"weight_map": where | {"x": "../1.bin"}}))
    with pytest.raises(UserError, match="names files outside its folder: ../1.bin"):
        pytorch_files.open_tensors(tmp_path)
    index.write_text(json.dumps({"weight_map": where}))
    (tmp_path / "2.bin").unlink()
    with pytest.raises(UserError, match="names files that do not exist: 2.bin"):
        pytorch_files.open_tensors(tmp_path)
    index.write_text("{}")
    with pytest.raises(UserError, match="has no weight_map"):
        pytorch_files.open_tensors(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_not_run(content, tmp_path, zipped):
    proof = tmp_path / "was-run"
    path = save(
        {"model": content, "config": Malicious(proof)},
        tmp_path / "checkpoint.pth",
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(UserError, match=r"of type posix.system, .* nothing was run"):
        pytorch_files.open_tensors(path)
    plain = tmp_path / "plain.bin"
    plain.write_bytes(pickle.dumps(Malicious(proof), protocol=2))
    with pytest.raises(UserError, match="posix.system"):
        pytorch_files.open_tensors(plain)
    assert not proof.exists()
    pickle.loads(plain.read_bytes())  # The test's own danger is real.
    assert proof.exists()


def test_objects_beside_the_tensors_are_refused(content, tmp_path):
    state = {"model": content, "config": argparse.Namespace(lr=1)}
    path = save(state, tmp_path / "checkpoint.pth")
    with pytest.raises(
        UserError, match="of type argparse.Namespace, and making it would"
    ):
        pytorch_files.open_tensors(path)


def test_damaged_files(content, tmp_path):
    whole = save(content, tmp_path / "whole.bin").read_bytes()
    old = save(content, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    old = old.read_bytes()
    damaged = {
        "empty": b"",
        "page": b"<html>Not found</html>",
        "half": whole[: len(whole) // 2],
        "most": whole[:-30],
        "old": old[: len(old) // 2],
        "older": old[:-5],
        "program": whole.replace(b"data.pkl", b"data.pk1"),
    }
    for name, bytes_ in damaged.items():
        path = tmp_path / f"{name}.bin"
        path.write_bytes(bytes_)
        with pytest.raises(
            UserError, match=f"{name}.bin: is not a file of PyTorch, or"
        ):
            pytorch_files.open_tensors(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_other_refusals(content, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="has no weights of PyTorch"):
        pytorch_files.open_tensors(tmp_path)
    for number, nothing in enumerate([{"epoch": 3}, [1, 2], {"model": {}}, {}]):
        path = save(nothing, tmp_path / f"nothing{number}.bin")
        with pytest.raises(UserError, match="has no tensors"):
            pytorch_files.open_tensors(path)
    sparse = save({"x": torch.eye(3).to_sparse()}, tmp_path / "sparse.bin")
    with pytest.raises(
        UserError, match="x is a torch.sparse_coo tensor of type float32, which"
    ):
        pytorch_files.open_tensors(sparse)
    empty = save({"x": torch.empty(3, device="meta")}, tmp_path / "empty.bin")
    with pytest.raises(UserError, match="empty.bin: x has a shape but no values"):
        pytorch_files.open_tensors(empty)
    compiled = tmp_path / "compiled.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(compiled)
    with pytest.raises(UserError, match="is a TorchScript program"):
        pytorch_files.open_tensors(compiled)
    path = save(content, tmp_path / "good.bin")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"pip install 'musilingo-jax\[convert\]'"):
        pytorch_files.open_tensors(path)
