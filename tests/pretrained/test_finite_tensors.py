"""No NaN and no infinity enters by any door, and the tensor that holds it is named."""

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from helpers.model_folders import TINY, write
from safetensors.numpy import load_file, save_file

from musilingo_jax.convert import __main__ as convert
from musilingo_jax.convert import musilingo_releases
from musilingo_jax.pretrained import finite_tensors, model_folder, weights
from musilingo_jax.runtime.errors import UserError

TYPES = (
    np.float64,
    np.float32,
    np.float16,
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
)

# A parameter that is transposed, one that is copied, and one that is computed.
PLACES = [
    ("adapter", "llama_proj.weight"),
    ("adapter", "llama_proj.bias"),
    ("language_model", "model.layers.1.mlp.down_proj.weight"),
    ("language_model", "model.norm.weight"),
    ("language_model", "model.embed_tokens.weight"),
    ("encoder", "encoder.layers.0.attention.q_proj.weight"),
    ("encoder", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
]


def load(folder, kind, *, dtype="float32", quantization=""):
    if kind == "adapter":
        return weights.load_adapter(folder, mesh=None)
    if kind == "encoder":
        return weights.load_encoder(folder, dtype=dtype, mesh=None)
    return weights.load_language_model(
        folder, dtype=dtype, quantization=quantization, mesh=None
    )


def damaged(tmp_path, kind, name, value):
    """A copy of the embedded model with one other number in one tensor."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder.resolve(TINY), folder)
    path = folder / kind / "model.safetensors"
    tensors = load_file(path)
    tensors[name] = tensors[name].astype(np.float32)
    tensors[name].reshape(-1)[-1] = value
    save_file(tensors, path)
    return folder


@pytest.mark.parametrize("dtype", TYPES)
def test_every_bit_pattern_is_judged_as_numpy_judges_it(dtype):
    bits = np.arange(2 ** min(16, 8 * np.dtype(dtype).itemsize), dtype=np.uint64)
    bits <<= max(0, 8 * np.dtype(dtype).itemsize - 16)  # Sign, exponent, and the rest.
    numbers = bits.astype(f"u{np.dtype(dtype).itemsize}").view(dtype)
    with np.errstate(invalid="ignore"):  # Of signalling NaNs.
        expected = np.isfinite(numbers.astype(np.float64))
    found = [finite_tensors.is_finite(np.atleast_1d(number)) for number in numbers]
    np.testing.assert_array_equal(found, expected)
    assert 1 < expected.sum() < len(expected)
    assert finite_tensors.is_finite(numbers[expected])
    assert not finite_tensors.is_finite(numbers)
    assert finite_tensors.is_finite(numbers[:0])


def test_whole_numbers_are_finite():
    assert finite_tensors.is_finite(np.full(3, -1, np.int32))
    assert finite_tensors.is_finite(np.ones(3, bool))


@pytest.mark.parametrize(("kind", "name"), PLACES)
@pytest.mark.parametrize(
    ("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")]
)
def test_it_is_not_loaded(tmp_path, kind, name, value, word):
    folder = damaged(tmp_path, kind, name, value)
    with pytest.raises(UserError) as refused:
        load(folder, kind)
    assert str(refused.value).startswith(f"{folder / kind}: {name} contains {word}, so")
    if kind == "language_model":
        with pytest.raises(UserError, match=f"contains {word}"):
            load(folder, kind, quantization="int8")


@pytest.mark.parametrize(
    "command",
    [
        musilingo_releases.split,
        musilingo_releases.export_adapter,
        lambda source: musilingo_releases.adapter(source, window_frames=None),
        lambda source: musilingo_releases.export(source, source, source),
        lambda source: convert.safetensors(str(Path(source) / "adapter")),
    ],
)
def test_it_is_not_converted(tmp_path, command):
    folder = damaged(tmp_path, "adapter", "llama_proj.bias", np.nan)
    with pytest.raises(UserError, match=r"adapter: llama_proj\.bias contains NaN"):
        write(command(str(folder)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_number_that_the_type_in_memory_does_not_hold_is_refused(tmp_path):
    name = "model.layers.1.mlp.down_proj.weight"
    folder = damaged(tmp_path, "language_model", name, 7e4)
    with pytest.raises(UserError, match=f"{name} has numbers .* for float16: use bflo"):
        load(folder, "language_model", dtype="float16")
    load(folder, "language_model", dtype="bfloat16")
    load(folder, "language_model", dtype="float16", quantization="int8")
