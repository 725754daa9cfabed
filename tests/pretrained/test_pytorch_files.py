"""PyTorch's files: the same numbers, read lazily; and no file's program is ever run."""

import argparse
import fractions
import json
import os
import pickle
import sys
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch

from musilingo_jax.pretrained import (
    pytorch_files,
    pytorch_functions,
    pytorch_tensors,
    pytorch_zip,
    safetensors_file,
    tensor_files,
)
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
        expected = tensor.detach().double().numpy()
        np.testing.assert_array_equal(array.astype(np.float64), expected)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_what_was_saved(content, tmp_path, zipped):
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
    state = {"model": content, "config": fractions.Fraction(1, 2)}
    path = save(state, tmp_path / "checkpoint.pth")
    with pytest.raises(
        UserError, match="of type fractions.Fraction, and making it would"
    ):
        pytorch_files.open_tensors(path)


def test_flags_beside_the_tensors_are_left_aside(content, tmp_path):
    """They are what a trainer was started with, and no code is run for them."""
    state = {"model": content, "args": argparse.Namespace(lr=1)}
    path = save(state, tmp_path / "checkpoint.pth")
    assert pytorch_files.open_tensors(path).keys() == content.keys()


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


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::UserWarning")
def test_other_refusals(content, tmp_path):
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
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    path = save({"x": nested}, tmp_path / "nested.bin")
    with pytest.raises(UserError, match="x is a nested tensor, which cannot be read"):
        pytorch_files.open_tensors(path)
    path = save({"x": torch.ones(2, dtype=torch.complex64)}, tmp_path / "complex.bin")
    with pytest.raises(UserError, match="tensor of type complex64, which cannot"):
        pytorch_files.open_tensors(path)
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8)
    path = save({"x": quantised}, tmp_path / "quantised.bin")
    with pytest.raises(UserError, match="x is a quantised tensor, which cannot"):
        pytorch_files.open_tensors(path)
    path = save({"x": torch._neg_view(torch.ones(2))}, tmp_path / "negated.bin")
    with pytest.raises(UserError, match="x is a negated or conjugated view"):
        pytorch_files.open_tensors(path)


def test_pytorch_is_needed_for_its_oldest_files_only(content, tmp_path, monkeypatch):
    new = save(content, tmp_path / "new.bin")
    old = save(content, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert_same(pytorch_files.open_tensors(new), content)
    with pytest.raises(UserError, match=r"pip install 'musilingo-jax\[convert\]'"):
        pytorch_files.open_tensors(old)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_whatever_pytorch_saves_is_read_as_pytorch_reads_it(tmp_path, protocol):
    base = torch.arange(24.0).reshape(4, 6)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    content = {
        "views of one storage": base[1:3],
        "columns": base[:, 2:4],
        "every other": base[::2, ::3],
        "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 5),
        "permuted": torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1),
        "nothing": torch.zeros(3, 0),
        "flags": torch.tensor([True, False]),
        "small": torch.tensor([1.5, -2.0]).to(torch.float8_e5m2),
        "unsigned": torch.tensor([1, 2, 65535], dtype=torch.uint16),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        **module.state_dict(),
    }
    others = {"set": {1, 2}, "bytes": b"x", "complex": 1j, "size": torch.Size([2])}
    others |= {"device": torch.device("cpu"), "type": torch.float32, "pair": (1, "x")}
    path = save(
        {"model": content, "optimizer": others, "scaler": {}, "epoch": 1},
        tmp_path / "checkpoint.pth",
        pickle_protocol=protocol,
    )
    assert_same(pytorch_files.open_tensors(path), content)
    assert set(torch.load(path, weights_only=False)["model"]) == set(content)


def test_a_changed_value_is_found_by_its_checksum(tmp_path):
    content = {"a": torch.ones(1000), "b": torch.zeros(2_000_000)}
    path = save(content, tmp_path / "model.bin")
    ones = content["a"].numpy().tobytes()
    changed = path.read_bytes().replace(ones, ones[:-4] + b"\0\0\0\0")
    path.write_bytes(changed)
    found = pytorch_files.open_tensors(path)
    assert not found["b"][...].any()
    for index in (slice(0, 2), ...):
        with pytest.raises(UserError, match=r"data/0 in this zip do not match their c"):
            found["a"][index]


def test_a_checksum_is_computed_once(tmp_path, monkeypatch):
    path = save({"a": torch.ones(3_000_000)}, tmp_path / "model.bin")
    read, sizes = pytorch_tensors.zlib.crc32, []

    def counted(block, *so_far):
        sizes.append(len(block))
        return read(block, *so_far)

    monkeypatch.setattr(pytorch_tensors.zlib, "crc32", counted)
    tensor = pytorch_files.open_tensors(path)["a"]
    small = sum(sizes)
    for _ in range(3):
        tensor[:5]
    assert sum(sizes) - small == 12_000_000
    assert max(sizes) <= 2**22


def test_a_program_that_is_compressed_or_huge_is_not_unpacked(tmp_path, monkeypatch):
    """Gigabytes of zeros would be some megabytes of a zip."""
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**8))
    tracemalloc.start()
    with pytest.raises(UserError, match="data.pkl is compressed or encrypted"):
        pytorch_files.open_tensors(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size < 10**6 and peak < 10**6
    monkeypatch.setattr(pytorch_zip, "_LARGEST_PROGRAM", 1000)
    save({str(number): number for number in range(200)}, path)
    with pytest.raises(UserError, match=r"data.pkl has [\d,]+ bytes"):
        pytorch_files.open_tensors(path)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((4,), (1,), 1),
        ((2, 3), (3, 1), 0),
        ((2,), (4,), 0),
        ((10**30,), (1,), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 1),
        ((1,), (1,), -4),
        ((True,), (1,), 0),
        ((2.0,), (1,), 0),
        ((2,), (1, 1), 0),
    ],
)
def test_a_tensor_stays_within_its_storage(tmp_path, shape, strides, offset):
    file = safetensors_file.LocalFile(save({}, tmp_path / "any.bin"))
    four = pytorch_tensors.Storage(file, "data/0", "float32", 0, 16, None)
    with pytest.raises(ValueError):
        pytorch_functions.FUNCTIONS["torch._utils._rebuild_tensor"](
            four, offset, shape, strides
        )
