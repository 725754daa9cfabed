"""Models in GGUF become folders that compute the same, or are refused."""

import json
import shutil
import zipfile

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from helpers import gguf_files, programs
from helpers.gguf_files import (
    Q,
    config_of,
    converted,
    folder_of,
    json_of,
    tensors_of,
    write,
)
from safetensors.torch import load_file

from musilingo_jax.pretrained import gguf_folder, gguf_tensors, weights
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("original") / "folder", config_of())


def logits(folder):
    llama = weights.load_language_model(
        folder, dtype=np.float32, quantization="", mesh=None
    )
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 300, (2, 30)))

    @jax.jit
    def compute(llama):
        hidden = llama(
            llama.embed(tokens),
            positions=jnp.broadcast_to(jnp.arange(30), (2, 30)),
            segments=jnp.ones((2, 30), jnp.int32),
            remat="nothing",
        )
        return llama.logits(hidden)

    return np.asarray(compute(llama))


def test_a_float_file_computes_what_its_folder_does(original, tmp_path):
    out = converted(write(tmp_path / "x.gguf", original), tmp_path / "out")
    expected = load_file(original / "model.safetensors")
    found = load_file(out / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert np.array_equal(logits(out), logits(original))
    said = json_of(out / "config.json")
    assert config_of().items() <= said.items()
    assert said["architectures"] == ["LlamaForCausalLM"]
    assert (said["dtype"], said["rope_scaling"]) == ("float32", None)
    assert (out / "chat_template.jinja").read_text() == "{{ messages }}"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    with torch.no_grad():
        tokens = torch.tensor(np.random.default_rng(0).integers(0, 300, (2, 30)))
        assert np.allclose(theirs(tokens).logits.numpy(), logits(out), atol=1e-5)


@pytest.mark.quick("Q4_0", "Q8_0")
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "BF16"])
def test_rounded_weights_are_those_that_the_library_reads(original, tmp_path, kind):
    out = converted(write(tmp_path / "x.gguf", original, kind=Q[kind]), tmp_path / "o")
    shutil.copytree(original, tmp_path / "rounded")
    content = load_file(original / "model.safetensors")
    counts = {"q_proj": 4, "k_proj": 2}
    for name, tensor in content.items():
        if tensor.ndim > 1:
            heads = counts.get(name.split(".")[-2], 0)
            values = tensor.numpy()
            values = gguf_files.in_pairs(values, heads) if heads else values
            values = gguf.dequantize(gguf.quantize(values, Q[kind]), Q[kind])
            values = gguf_tensors.halves(values, heads) if heads else values
            content[name] = torch.tensor(values)
    gguf_files.save_file(content, tmp_path / "rounded" / "model.safetensors")
    found = load_file(out / "model.safetensors")
    for name, tensor in content.items():
        assert torch.equal(found[name].float(), tensor), name
    stored = {tensor.dtype for tensor in found.values() if tensor.ndim > 1}
    assert stored == {torch.bfloat16 if kind == "BF16" else torch.float32}
    assert np.array_equal(logits(out), logits(tmp_path / "rounded"))
    assert not np.array_equal(logits(out), logits(original))


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "IQ4_XS", "Q2_K"])
def test_types_that_the_library_only_reads(tmp_path, kind):
    """Random blocks, whose scales are made small: the library cannot write them."""
    changes = {"hidden_size": 256, "intermediate_size": 256}
    folder = folder_of(tmp_path / "folder", config_of(**changes))
    tensors, name = tensors_of(folder), "blk.1.ffn_down.weight"
    block, size = gguf.GGML_QUANT_SIZES[Q[kind]]
    data = np.random.default_rng(0).integers(0, 2, (256, 256 // block * size))
    data = data.astype(np.uint8)
    path = tmp_path / "x.gguf"
    adding = gguf.GGUFWriter.add_tensor

    def add_tensor(writer, own, values, raw_dtype=None):
        if own == name:
            values, raw_dtype = data, Q[kind]
        adding(writer, own, values, raw_dtype=raw_dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "add_tensor", add_tensor)
        write(path, folder, tensors=tensors)
    out = converted(path, tmp_path / "out")
    found = load_file(out / "model.safetensors")
    expected = gguf.dequantize(data, Q[kind])
    assert expected.any()
    assert np.array_equal(found["model.layers.1.mlp.down_proj.weight"], expected)


def test_rows_are_put_in_the_order_of_transformers(original, tmp_path):
    """Without it, the logits are others: the file has them in pairs."""
    path = write(tmp_path / "x.gguf", original)
    right = logits(converted(path, tmp_path / "right"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_tensors, "PERMUTED", ())
        wrong = logits(converted(path, tmp_path / "wrong"))
    assert np.abs(right - wrong).max() > 0.1
    rows = np.array([0, 4, 1, 5, 2, 6, 3, 7])
    assert gguf_tensors.halves(rows, 1).tolist() == list(range(8))
    assert gguf_tensors.halves(rows, 2).tolist() == [0, 1, 4, 5, 2, 3, 6, 7]


@pytest.mark.parametrize(
    "family, biased, said",
    [
        ("llama", "qkvo", {"attention_bias": True, "mlp_bias": False}),
        ("qwen2", "qkv", {}),
        ("qwen3", "", {"attention_bias": False}),
        ("smollm3", "", {"attention_bias": False, "no_rope_layer_interval": 4}),
    ],
)
def test_other_families(tmp_path, family, biased, said):
    config = config_of(family, tie_word_embeddings=False)
    names = [f"self_attn.{letter}_proj" for letter in biased]
    folder = folder_of(tmp_path / "folder", config, names)
    out = converted(write(tmp_path / "x.gguf", folder), tmp_path / "out")
    expected = load_file(folder / "model.safetensors")
    found = load_file(out / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    written = json_of(out / "config.json")
    assert (config | said).items() <= written.items()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert theirs.config.model_type == family
    state = theirs.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_type_that_is_asked_for(original, tmp_path, dtype):
    path = write(tmp_path / "x.gguf", original, kind=Q.Q8_0)
    out = converted(path, tmp_path / "out", dtype)
    stored = load_file(out / "model.safetensors").values()
    assert {tensor.dtype for tensor in stored} == {getattr(torch, dtype)}
    assert json_of(out / "config.json")["dtype"] == dtype


def test_half_precision_stays_as_it_is(original, tmp_path):
    out = converted(write(tmp_path / "x.gguf", original, kind=Q.F16), tmp_path / "out")
    for name, tensor in load_file(out / "model.safetensors").items():
        assert tensor.dtype == (torch.float16 if tensor.ndim > 1 else torch.float32)
        assert torch.equal(
            tensor, load_file(original / "model.safetensors")[name].to(tensor.dtype)
        )


def test_another_alignment(original, tmp_path):
    path = write(tmp_path / "x.gguf", original, alignment=128)
    out = converted(path, tmp_path / "out")
    found = load_file(out / "model.safetensors")
    for name, tensor in load_file(original / "model.safetensors").items():
        assert torch.equal(found[name], tensor), name


def test_parts_of_a_model(original, tmp_path):
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts" / "x.gguf", original, split_max_tensors=8)
    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert names == [f"x-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    out = converted(tmp_path / "parts", tmp_path / "out")
    assert np.array_equal(logits(out), logits(original))
    converted(tmp_path / "parts" / names[2], tmp_path / "again")
    (tmp_path / "parts" / names[1]).rename(tmp_path / "away")
    with pytest.raises(UserError, match=f"other parts are missing: {names[1]};"):
        gguf_folder.convert(str(tmp_path / "parts"), dtype=None)
    shutil.copy(tmp_path / "parts" / names[2], tmp_path / "parts" / names[1])
    with pytest.raises(UserError, match="says that it is part 2 of 3, not 1 of 3"):
        gguf_folder.convert(str(tmp_path / "parts"), dtype=None)


def test_a_folder_of_several_models_and_a_wheel(original, tmp_path):
    write(tmp_path / "x.gguf", original)
    with zipfile.ZipFile(tmp_path / "m.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.write(tmp_path / "x.gguf", "m/x.gguf")
    out = converted(tmp_path / "m.whl", tmp_path / "out")
    assert np.array_equal(logits(out), logits(original))
    shutil.copy(tmp_path / "x.gguf", tmp_path / "y.gguf")
    with pytest.raises(UserError, match="has several models: x.gguf, y.gguf; name"):
        gguf_folder.convert(str(tmp_path), dtype=None)
    with zipfile.ZipFile(tmp_path / "m.whl", "a") as wheel:
        wheel.write(tmp_path / "x.gguf", "m/y.gguf")
    with pytest.raises(UserError, match=r"m.whl: has 2 .gguf files in it, not one"):
        gguf_folder.convert(str(tmp_path / "m.whl"), dtype=None)
    content = (tmp_path / "m.whl").read_bytes()
    (tmp_path / "m.whl").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="m.whl: cannot be unpacked .*not a zip file"):
        gguf_folder.convert(str(tmp_path / "m.whl"), dtype=None)


def llama_3_divisors(factor):
    """As llama.cpp's converter computes them, for the heads of `config_of`."""
    divisors = []
    for frequency in 1 / 500_000.0 ** (np.arange(0, 16, 2) / 16):
        length = 2 * np.pi / frequency
        if length < 8192 / 4.0:
            divisors.append(1)
        elif length > 8192 / 1.0:
            divisors.append(factor)
        else:
            smooth = (8192 / length - 1.0) / (4.0 - 1.0)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


def test_the_scaling_of_llama_3(original, tmp_path):
    divisors = llama_3_divisors(32.0)
    assert len(set(divisors.tolist())) > 2
    tensors = tensors_of(original) | {"rope_freqs.weight": divisors}
    base = {"rope.freq_base": 500_000.0}
    path = write(tmp_path / "x.gguf", original, tensors=tensors, fields=base)
    scaling = json_of(converted(path, tmp_path / "out") / "config.json")["rope_scaling"]
    assert scaling == {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    weights.load_language_model(
        tmp_path / "out", dtype=np.float32, quantization="", mesh=None
    )
    divisors[-2] *= 1.1
    write(path, original, tensors=tensors, fields=base)
    with pytest.raises(UserError, match="does not divide the rotary frequencies as"):
        gguf_folder.convert(str(path), dtype=None)


@pytest.mark.parametrize("kind", [{"rope.scaling.type": "linear"}, {}])
def test_linear_scaling(original, tmp_path, kind):
    """A factor alone is a linear one, as in llama.cpp."""
    scaled = kind | {"rope.scaling.factor": 2.5}
    path = write(tmp_path / "x.gguf", original, fields=scaled)
    scaling = json_of(converted(path, tmp_path / "out") / "config.json")["rope_scaling"]
    assert scaling == {"rope_type": "linear", "factor": 2.5}


@pytest.mark.parametrize(
    "fields, pattern",
    [
        ({"rope.scaling.type": "yarn"}, "rotary angles are scaled by 'yarn', but only"),
        ({"attention.sliding_window": 64}, "sliding_window is 64, but only 0 is supp"),
        ({"attention.scale": 0.5}, "not known whether .*: llama.attention.scale; get"),
        ({"expert_count": 8}, "llama.expert_count is 8, but only 0 is supported"),
        ({"logit_scale": 2.0}, "not known whether these fields .*: llama.logit_scale;"),
        ({"rope.dimension_count": 8}, "dimension_count is 8, but only .* 16, is supp"),
        ({"block_count": None}, "block_count is None: it must be one positive whole"),
        ({"block_count": 10**6}, "too few for the 1,000,000 layers"),
        ({"block_count": 3}, "lacks the tensors blk.2.attn_k.weight, .*; get it again"),
        ({"block_count": 1}, "has no such tensors: blk.1.attn_k.weight, .* …; get"),
        (
            {"embedding_length": 32},
            r"norm.weight has the shape \[64\], not \[32\] as|sh",
        ),
        ({"attention.head_count": [4, 4]}, r"head_count is \[4, 4\]: it must be one"),
        ({"vocab_size": 305}, "vocab_size is 305, but token_embd.weight has 304 rows"),
        ({"attention.head_count_kv": 3}, "4 heads are not a multiple of its 3 key"),
        ({"attention.layer_norm_rms_epsilon": None}, "epsilon is None: it must be a"),
    ],
)
def test_fields_that_are_not_supported(original, tmp_path, fields, pattern):
    path = write(tmp_path / "x.gguf", original, fields=fields)
    with pytest.raises(UserError, match=f"x.gguf: .*{pattern}"):
        gguf_folder.convert(str(path), dtype=None)


def test_an_architecture_and_a_tensor_that_are_not_known(original, tmp_path):
    path = tmp_path / "x.gguf"
    tensors = tensors_of(original) | {"blk.0.ffn_gate_inp.weight": np.ones((2, 64))}
    tensors["blk.0.ffn_gate_inp.weight"].dtype = np.float64
    write(path, original, tensors={n: t.astype("f4") for n, t in tensors.items()})
    with pytest.raises(UserError, match="no such tensors: blk.0.ffn_gate_inp.weight;"):
        gguf_folder.convert(str(path), dtype=None)
    config = config_of("gemma3")
    (tmp_path / "other").mkdir()
    shutil.copytree(original, tmp_path / "other", dirs_exist_ok=True)
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    write(path, tmp_path / "other")
    with pytest.raises(UserError, match="its architecture is 'gemma3', but only llama"):
        gguf_folder.convert(str(path), dtype=None)


@pytest.mark.parametrize("shape", [(), (304,), (304, 8, 8)])
def test_an_embedding_that_is_no_matrix(original, tmp_path, shape):
    tensors = tensors_of(original) | {"token_embd.weight": np.ones(shape, np.float32)}
    path = write(tmp_path / "x.gguf", original, tensors=tensors)
    with pytest.raises(UserError, match="x.gguf: token_embd.weight has the shape .*is"):
        gguf_folder.convert(str(path), dtype=None)


def test_a_type_that_the_library_cannot_read(original, tmp_path):
    path = tmp_path / "x.gguf"
    tensors = tensors_of(original)
    whole = tensors["blk.0.ffn_up.weight"].astype(np.float64)
    write(path, original, tensors=tensors | {"blk.0.ffn_up.weight": whole}, kind=Q.F32)
    content = path.read_bytes()
    name = b"blk.0.ffn_up.weight"
    at = content.index(name) + len(name) + 4 + 16
    assert content[at] == Q.F32
    # As many bytes, of another type.
    path.write_bytes(content[:at] + bytes([Q.I32]) + content[at + 1 :])
    with pytest.raises(UserError, match="of type I32, which cannot be read; get .* Q4"):
        gguf_folder.convert(str(path), dtype=None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_numbers(original, tmp_path, value):
    tensors = tensors_of(original)
    tensors["blk.1.ffn_up.weight"][3, 5] = value
    path = write(tmp_path / "x.gguf", original, tensors=tensors)
    kind = "NaN" if np.isnan(value) else "infinity"
    with pytest.raises(UserError, match=f"blk.1.ffn_up.weight contains {kind}"):
        converted(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_damaged_files(original, tmp_path):
    """Cut, or with one bit of the header flipped: one sentence, or a model."""
    path = write(tmp_path / "x.gguf", original)
    content = path.read_bytes()
    values = len(content) - sum(t.nbytes for t in tensors_of(original).values())
    generator = np.random.default_rng(0)
    for size in (0, 3, 4, 20, 100, values // 2, values, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match="x.gguf: cannot be read as GGUF: .+; if"):
            gguf_folder.convert(str(path), dtype=None)
    refused = 0
    for place in [*range(32), *generator.integers(32, values, 60)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        try:
            gguf_folder.convert(str(path), dtype=None)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 900
            refused += 1
    assert refused > 24  # Most others change a letter of a token.


def with_count(content, at, count):
    return content[:at] + count.to_bytes(8, "little") + content[at + 8 :]


def test_absurd_counts(original, tmp_path):
    path = write(tmp_path / "x.gguf", original)
    content = path.read_bytes()
    inside = content.index(b"tokenizer.ggml.token_type") + len(
        "tokenizer.ggml.token_type"
    )
    for at in (8, 16, 24, inside + 8):
        for count in (2**24, 2**40, 2**63):
            path.write_bytes(with_count(content, at, count))
            with pytest.raises(UserError, match="x.gguf: cannot be read as GGUF: it "):
                gguf_folder.convert(str(path), dtype=None)


def test_a_tensor_that_is_there_twice_or_in_the_place_of_another(original, tmp_path):
    path = write(tmp_path / "x.gguf", original)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"blk.1.ffn_up.w", b"blk.0.ffn_up.w"))
    with pytest.raises(UserError, match="duplicated tensor with name blk.0.ffn_up.wei"):
        gguf_folder.convert(str(path), dtype=None)
    name = b"blk.1.ffn_up.weight"
    at = content.index(name) + len(name) + 4 + 16 + 4
    path.write_bytes(with_count(content, at, 64))
    with pytest.raises(UserError, match="blk.1.ffn_up.weight does not follow the tens"):
        gguf_folder.convert(str(path), dtype=None)


def test_the_command_line(original, tmp_path):
    path = write(tmp_path / "x.gguf", original, kind=Q.Q8_0)
    arguments = ("gguf", path, f"--out={tmp_path / 'out'}", "--dtype=bfloat16")
    done = programs.run("convert", *arguments)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out'}: complete\n")
    done = programs.run("convert", "gguf", tmp_path / "no.gguf", "--out=x")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'no.gguf'}: there is no .gguf f")
