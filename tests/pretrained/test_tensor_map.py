"""Modules ↔ tensors: nothing is lost, nothing is read in vain, misfits are named."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from helpers.stored_weights import assert_equal, rewrite
from helpers.watched_tensors import watch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from musilingo_jax.models.layers import Linear, Norm, parameter
from musilingo_jax.models.names import Derived
from musilingo_jax.pretrained import (
    block_copy,
    module_writer,
    safetensors_writer,
    tensor_files,
    tensor_map,
)
from musilingo_jax.runtime import sharding
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium


class Layer(nnx.Module):
    def __init__(self, *, rngs):
        self.up = Linear(4, 8, axes=("embed", "mlp"), bias=True, rngs=rngs)
        self.norm = Norm(4, bias=False, eps=1e-5)


class Toy(nnx.Module):
    """A bit of everything: stacked, convolutional, copied and derived parameters."""

    def __init__(self, *, rngs):
        keys = jax.random.split(rngs.params(), 3)
        self.layers = jax.vmap(lambda key: Layer(rngs=nnx.Rngs(key)))(keys)
        self.table = parameter(
            jax.random.normal(rngs.params(), (6, 4)), ("vocab", None)
        )
        shape = (5, 2, 4)
        self.kernel = parameter(jax.random.normal(rngs.params(), shape), (None,) * 3)
        self.summed = parameter(jnp.arange(8.0), ("embed",))
        self.gain = parameter(jnp.float32(0.5), ())


NAMES = {
    "layers.up.kernel": "layer.{}.up.weight",
    "layers.up.bias": "layer.{}.up.bias",
    "layers.norm.scale": "layer.{}.norm.weight",
    "table": "table.weight",
    "kernel": "conv.weight",
    "summed": Derived(
        spellings=(("new.a", "new.b"), ("old_a", "old_b")),
        read=lambda a, b: a + b,
        write=lambda x: (x / 4, x * 3 / 4),
    ),
    "gain": "gain",
}


@pytest.fixture
def toy():
    return Toy(rngs=nnx.Rngs(0))


@pytest.fixture
def folder(toy, tmp_path):
    save(toy, tmp_path / "toy")
    return tmp_path / "toy"


def abstract_toy():
    return jax.eval_shape(lambda: Toy(rngs=nnx.Rngs(0)))


def save(toy, folder, *, dtype="float32", shard_bytes=10**9):
    module_writer.save(
        toy,
        NAMES,
        folder,
        dtype=dtype,
        config={"said": 1},
        metadata={},
        shard_bytes=shard_bytes,
    )


def load_from(opened, *, dtype="float32", mesh=None, ignored=()):
    return tensor_map.load(
        abstract_toy(), NAMES, ignored, opened, source="toy", dtype=dtype, mesh=mesh
    )


def load(folder, **options):
    return load_from(tensor_files.open_tensors(folder), **options)


@pytest.mark.parametrize("shard_bytes", [10**9, 100])
def test_what_is_saved_is_loaded(toy, tmp_path, shard_bytes):
    save(toy, tmp_path, shard_bytes=shard_bytes)
    assert_equal(load(tmp_path), toy)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "said": 1,
        "dtype": "float32",
    }


def test_kernels_are_stored_with_reversed_axes_and_layers_apart(toy, folder):
    stored = load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(
        stored["layer.1.up.weight"], toy.layers.up.kernel[1].T
    )
    np.testing.assert_array_equal(stored["conv.weight"], toy.kernel[...].T)
    np.testing.assert_array_equal(stored["table.weight"], toy.table[...])


def test_the_layout_says_what_will_be_written(toy):
    said = module_writer.layout(abstract_toy(), NAMES, dtype="bfloat16")
    written = list(module_writer.written(toy, NAMES, dtype="bfloat16"))
    assert list(said.items()) == [
        (name, (array.shape, array.dtype)) for name, array in written
    ]
    assert all(array.flags.c_contiguous for _, array in written)


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
@pytest.mark.parametrize("sizes", [None, (1, 2, 4)])
def test_any_stored_type_becomes_the_asked_one(toy, tmp_path, stored, wanted, sizes):
    save(toy, tmp_path, dtype=stored)
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        names = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
        assert file.get_slice("conv.weight").get_dtype() == names[stored]
    mesh = None if sizes is None else sharding.make_mesh(*sizes)
    loaded = load(tmp_path, dtype=wanted, mesh=mesh)
    for ours, original in (
        (loaded.kernel, toy.kernel),
        (loaded.layers.up.kernel, toy.layers.up.kernel),
        (loaded.table, toy.table),
    ):
        assert ours.dtype == wanted
        expected = original[...].astype(stored).astype(wanted)
        np.testing.assert_array_equal(np.asarray(ours[...]), np.asarray(expected))


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 8, 1), (1, 2, 4)])
def test_loading_onto_eight_devices_equals_loading_onto_one(folder, sizes):
    mesh = sharding.make_mesh(*sizes)
    spread = load(folder, mesh=mesh)
    assert_equal(spread, load(folder))
    wanted = jax.tree.leaves(sharding.shardings(spread, mesh))
    for leaf, place in zip(jax.tree.leaves(spread), wanted, strict=True):
        assert leaf.sharding == place


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 4, 2)])
def test_a_spread_module_is_saved_as_if_it_were_not(folder, tmp_path, sizes):
    save(load(folder, mesh=sharding.make_mesh(*sizes)), tmp_path / "again")
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 4, 2)])
def test_every_number_is_read_once_for_all_devices(folder, sizes):
    opened, asked = watch(folder)
    load_from(opened, mesh=sharding.make_mesh(*sizes))
    assert {name: sum(sizes) for name, sizes in asked.items()} == {
        name: tensor.nbytes for name, tensor in opened.items()
    }


def test_large_tensors_are_read_in_blocks(tmp_path):
    """Some thousand rows of a matrix are never in memory twice."""
    large = np.arange(3000 * 700, dtype=np.float32).reshape(3000, 700)
    save_file({"large": large}, tmp_path / "model.safetensors")
    opened, asked = watch(tmp_path)
    into = np.empty((700, 3000), ml_dtypes.bfloat16)
    with ThreadPoolExecutor(2) as pool:
        box = ((0, 3000), (0, 700))
        for future in block_copy.read(
            opened["large"], {box: into}, pool, transposed=True
        ):
            future.result()
    np.testing.assert_array_equal(into, large.T.astype(ml_dtypes.bfloat16))
    assert max(asked["large"]) < large.nbytes / 8


@pytest.mark.parametrize("transposed", [False, True])
def test_parts_that_do_not_fill_a_box_are_read_alone(tmp_path, transposed):
    matrix = np.arange(40 * 30, dtype=np.float32).reshape(40, 30)
    save_file({"matrix": matrix}, tmp_path / "model.safetensors")
    opened, asked = watch(tmp_path)
    boxes = [((0, 10), (0, 5)), ((30, 40), (20, 30))]
    parts = {
        box: np.zeros(
            [b - a for a, b in (box[::-1] if transposed else box)], np.float32
        )
        for box in boxes
    }
    with ThreadPoolExecutor(2) as pool:
        for future in block_copy.read(
            opened["matrix"], parts, pool, transposed=transposed
        ):
            future.result()
    for ((a, b), (c, d)), part in parts.items():
        part = part.T if transposed else part
        np.testing.assert_array_equal(part, matrix[a:b, c:d])
    assert Counter(asked["matrix"]) == Counter([10 * 5 * 4, 10 * 10 * 4])


@pytest.mark.parametrize("shape", [(1, 1), (300, 700), (256, 512), (257, 3), (4, 5, 6)])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_transposing_by_tiles_is_transposing(shape, dtype):
    rows = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    into = np.zeros(shape[::-1], dtype)
    block_copy.transpose(into, rows)
    np.testing.assert_array_equal(into, rows.T)


def test_arrays_on_the_processor_are_not_copied_again():
    part = block_copy.empty((3, 5), np.dtype("float32"))
    part[...] = 1
    array = jax.device_put(part)
    assert array.unsafe_buffer_pointer() == part.ctypes.data
    # Nor are they written to, even when a program may reuse their memory.
    jax.jit(lambda x: x + 1, donate_argnums=0)(array).block_until_ready()
    assert (part == 1).all()


def test_another_spelling_of_derived_parameters_is_found(toy, folder):
    def respell(stored):
        stored["old_a"], stored["old_b"] = stored.pop("new.a"), stored.pop("new.b")

    rewrite(folder, respell)
    assert_equal(load(folder), toy)
    rewrite(folder, lambda stored: stored.pop("old_b"))
    with pytest.raises(UserError, match=r"missing: old_b$"):
        load(folder)


def test_all_wrong_tensors_are_named_at_once_and_nothing_is_read(folder):
    def spoil(stored):
        for layer in range(3):
            del stored[f"layer.{layer}.norm.weight"]
        stored["conv.weight"] = np.zeros((4, 2, 6), np.float32)
        stored["table.weight"] = np.zeros((6, 4), np.int8)
        stored["new.a"] = np.zeros(9, np.float32)
        stored["stranger"] = stored["layer.1.unknown.weight"] = np.zeros(2)
        stored["rotary.inv_freq"] = np.zeros(2)

    rewrite(folder, spoil)
    opened, asked = watch(folder)
    ignored = [r"rotary\..*"]
    with pytest.raises(UserError) as caught:
        load_from(opened, ignored=ignored)
    message = str(caught.value)
    assert message.startswith("toy: the tensors do not fit its config.json")
    assert "missing: layer.{0,1,2}.norm.weight;" in message
    assert "unused: layer.1.unknown.weight, stranger;" in message
    assert "conv.weight [4, 2, 6] instead of [4, 2, 5]" in message
    assert "new.a [9] instead of [8]" in message
    assert "table.weight I8 instead of floating-point numbers" in message
    assert "inv_freq" not in message
    assert "\n" not in message
    with pytest.raises(UserError) as checked:
        tensor_map.check(abstract_toy(), NAMES, ignored, opened, source="toy")
    assert str(checked.value) == message
    assert not any(asked.values())


def test_what_can_be_loaded_is_not_refused_by_the_check(folder):
    opened, asked = watch(folder)
    tensor_map.check(abstract_toy(), NAMES, (), opened, source="toy")
    assert not any(asked.values())


def test_a_file_that_shrinks_while_it_is_loaded_is_refused(folder):
    opened = tensor_files.open_tensors(folder)
    os.truncate(folder / "model.safetensors", 700)
    with pytest.raises(UserError, match="cut off while it was read"):
        load_from(opened)


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_an_unknown_number_type_is_refused(folder, dtype):
    with pytest.raises(UserError, match=f"'{dtype}': is not supported; use float32"):
        load(folder, dtype=dtype)


def test_numbers_that_do_not_fit_are_not_saved(toy, tmp_path):
    large = jax.tree.map(lambda leaf: leaf + 1e5, toy)
    with pytest.raises(UserError, match="too large for float16"):
        save(large, tmp_path / "large", dtype="float16")
    assert not (tmp_path / "large").exists()
    infinite = jax.tree.map(lambda leaf: leaf.at[...].set(jnp.inf), toy)
    with pytest.raises(UserError, match="gain contains NaN or .* is not saved"):
        save(infinite, tmp_path / "infinite", dtype="float16")
    assert not (tmp_path / "infinite").exists()


def test_an_interrupted_save_leaves_the_old_files(toy, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write = safetensors_writer.SafetensorsWriter.write

    def interrupted(self, name, array):
        if name == "table.weight":
            raise KeyboardInterrupt
        write(self, name, array)

    monkeypatch.setattr(safetensors_writer.SafetensorsWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(jax.tree.map(lambda leaf: leaf + 1, toy), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_only_the_first_process_writes(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    save(toy, tmp_path / "toy")
    assert not (tmp_path / "toy").exists()


def one_of_two(rank, port, folder):
    """What each of two processes does; each has four devices of eight."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4)
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
    opened, asked = watch(folder)
    toy = load_from(opened, mesh=sharding.make_mesh(1, 2, 4))
    save(toy, folder.parent / f"saved-by-{rank}")
    read = {name: sum(sizes) for name, sizes in asked.items()}
    (folder.parent / f"{rank}.json").write_text(json.dumps(read))


def test_each_of_two_processes_reads_its_part_and_one_writes(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), str(here.parents[1])])
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import pathlib, test_tensor_map; "
                f"test_tensor_map.one_of_two({rank}, {port}, "
                f"pathlib.Path({str(folder)!r}))",
            ],
            env=os.environ | {"PYTHONPATH": paths},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    saved = folder.parent / "saved-by-0"
    for path in folder.iterdir():
        assert (saved / path.name).read_bytes() == path.read_bytes()
    assert not (folder.parent / "saved-by-1").exists()
    sizes = {
        name: tensor.nbytes
        for name, tensor in tensor_files.open_tensors(folder).items()
    }
    for rank in range(2):
        read = json.loads((folder.parent / f"{rank}.json").read_text())
        # Half of the axis `embed` is here: a kernel's columns, and all of the rest.
        for name, size in read.items():
            expected = sizes[name] / 2 if name.endswith("up.weight") else sizes[name]
            assert size == expected, name
