"""A LLaMA in Meta's own files is the same model as in the transformers library's."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.meta_folders import (
    LLAMA_1,
    LLAMA_3,
    hub_model,
    meta_tensors,
    write_meta,
)
from helpers.model_folders import save_tokenizer
from helpers.quick_jit import quick_jit

from musilingo_jax.convert import __main__ as convert
from musilingo_jax.convert import inspection
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.pretrained import meta_layout, sources, weights, write_folders
from musilingo_jax.pretrained.tensor_files import report_unread
from musilingo_jax.runtime.errors import UserError

TOKENS = np.random.default_rng(0).integers(0, 50, (2, 9))
# As far apart as the slowest angles need to show.
TIMES = 50 * np.arange(9)

# Params, number of files, the axis along which they divide the embedding.
FOLDERS = [
    (LLAMA_1, 1, 1),
    (LLAMA_1, 2, 1),
    (LLAMA_3, 1, 0),
    (LLAMA_3, 2, 0),
]


@quick_jit
def our_logits(llama, tokens):
    ones = jnp.ones(tokens.shape, jnp.int32)
    where = {"positions": jnp.broadcast_to(TIMES, tokens.shape), "segments": ones}
    hidden = llama(llama.embed(tokens), remat="everything", **where)
    return llama.logits(hidden)


def load(folder):
    return weights.load_language_model(
        folder, dtype="float32", quantization="", mesh=None
    )


def meta_logits(tensors, params):
    """Meta's arithmetic, with neighbours as the parts of a complex number."""

    def norm(x, name):
        mean = x.pow(2).mean(-1, keepdim=True)
        return x * torch.rsqrt(mean + params["norm_eps"]) * tensors[f"{name}.weight"]

    def heads(x, name):
        return (x @ tensors[f"{name}.weight"].T).unflatten(-1, (-1, head_dim))

    def turned(x):
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * angles[:, None]).flatten(-2)

    head_dim = params["dim"] // params["n_heads"]
    exponents = torch.arange(0, head_dim, 2) / head_dim
    frequencies = params.get("rope_theta", 10_000.0) ** -exponents
    times = torch.tensor(TIMES, dtype=torch.float32)
    angles = torch.polar(
        torch.ones(len(times), len(frequencies)), torch.outer(times, frequencies)
    )
    future = torch.full((len(times), len(times)), -torch.inf).triu(1)
    x = tensors["tok_embeddings.weight"][torch.tensor(TOKENS)]
    for layer in range(params["n_layers"]):
        at = f"layers.{layer}"
        read = norm(x, f"{at}.attention_norm")
        query, key = (turned(heads(read, f"{at}.attention.w{n}")) for n in "qk")
        value = heads(read, f"{at}.attention.wv")
        share = query.shape[-2] // key.shape[-2]
        key, value = (t.repeat_interleave(share, dim=-2) for t in (key, value))
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / head_dim**0.5
        mixed = torch.einsum("bhqk,bkhd->bqhd", (scores + future).softmax(-1), value)
        x = x + mixed.flatten(-2) @ tensors[f"{at}.attention.wo.weight"].T
        read = norm(x, f"{at}.ffn_norm")
        gate, down, up = (
            tensors[f"{at}.feed_forward.w{n}.weight"].T for n in (1, 2, 3)
        )
        x = x + (torch.nn.functional.silu(read @ gate) * (read @ up)) @ down
    return norm(x, "norm") @ tensors["output.weight"].T


@pytest.mark.parametrize(("params", "shards", "axis"), FOLDERS)
def test_the_logits_are_those_of_the_other_library(tmp_path, params, shards, axis):
    model = hub_model(params)
    tensors = meta_tensors(model)
    folder = write_meta(
        tmp_path / "7B", tensors, params, shards=shards, embedding_axis=axis
    )
    ours = np.asarray(our_logits(load(folder), jnp.asarray(TOKENS)))
    with torch.no_grad():
        positions = torch.tensor(TIMES).expand(TOKENS.shape)
        theirs = model(torch.tensor(TOKENS), position_ids=positions).logits.numpy()
    scale = np.abs(theirs).max()
    assert scale > 1
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * scale)


def test_the_logits_are_those_of_complex_rotations(tmp_path):
    params = LLAMA_3 | {"use_scaled_rope": False}
    tensors = meta_tensors(hub_model(params))
    folder = write_meta(tmp_path / "7B", tensors, params)
    ours = np.asarray(our_logits(load(folder), jnp.asarray(TOKENS)))
    theirs = meta_logits(tensors, params).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize(("params", "shards", "axis"), FOLDERS)
def test_any_part_of_a_tensor_is_read_alone(tmp_path, params, shards, axis):
    model = hub_model(params).bfloat16()
    folder = write_meta(
        tmp_path, meta_tensors(model), params, shards=shards, embedding_axis=axis
    )
    found = meta_layout.open_tensors(folder)
    state = model.state_dict()
    assert found.keys() == state.keys()
    for name, tensor in found.items():
        expected = state[name].float().numpy()
        assert (tensor.shape, tensor.dtype) == (expected.shape, "BF16")
        assert tensor.nbytes == 2 * expected.size
        indices = [..., (), 0, slice(3, 7), slice(5, 5), slice(None, None, 2), -1]
        if expected.ndim == 2:
            indices += [(slice(1, 6), slice(2, 9)), (..., 3), (2, slice(1, 4))]
        for index in indices:
            part = tensor[index].astype(np.float32)
            np.testing.assert_array_equal(part, expected[index])


def test_a_slice_reads_only_the_heads_it_needs(tmp_path, monkeypatch):
    """Of 64 rows, in heads of 4: at most the two that hold rows 6 to 9."""
    params = LLAMA_1 | {"n_heads": 4}
    folder = write_meta(tmp_path, meta_tensors(hub_model(params)), params, shards=2)
    found = meta_layout.open_tensors(folder)
    asked = []
    stored = type(meta_layout._shards(folder)[0]["norm.weight"])
    read = stored.__getitem__
    monkeypatch.setattr(
        stored, "__getitem__", lambda s, i: asked.append(p := read(s, i)) or p
    )
    assert found["model.layers.0.self_attn.q_proj.weight"][6:9].shape == (3, 16)
    assert sum(part.shape[0] for part in asked) == 8
    asked.clear()
    assert found["model.layers.0.mlp.down_proj.weight"][2:3].shape == (1, 48)
    assert [part.shape for part in asked] == [(1, 24), (1, 24)]


def test_it_is_inspected_and_converted(tmp_path, capsys):
    """The tokenizer may be beside the folder, as Meta hands it out."""
    model = hub_model(LLAMA_1)
    folder = write_meta(tmp_path / "LLaMA/7B", meta_tensors(model), LLAMA_1, shards=2)
    save_tokenizer(folder.parent, 20)
    part = sources.find(folder, "language_model")
    assert part.tokenizer == folder.parent
    (report,) = inspection.inspect(str(folder))
    assert report.loads, report.reason
    assert report.family == "LLaMA-1-like, rope base 10,000"
    assert report.parameters == sum(p.numel() for p in model.parameters())
    out = tmp_path / "converted"
    write_folders.write(out, convert.safetensors(str(folder)), shard_bytes=10**9)
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert weights.digest(out, "language_model") == weights.digest(
        folder, "language_model"
    )
    assert type(model).from_pretrained(out).config.intermediate_size == 48


def test_a_tied_head_is_one_that_is_not_there(tmp_path):
    tensors = meta_tensors(hub_model(LLAMA_3))
    del tensors["output.weight"]
    config = meta_layout.read_config(write_meta(tmp_path, tensors, LLAMA_3))
    assert config["tie_word_embeddings"]
    assert "lm_head.weight" not in meta_layout.open_tensors(tmp_path)


# What the releases' own params.json and config.json say.
RELEASES = [
    ({"dim": 4096, "multiple_of": 256, "n_layers": 32, "n_heads": 32}, 11008, None),
    ({"dim": 5120, "multiple_of": 256, "n_layers": 40, "n_heads": 40}, 13824, None),
    (
        {"dim": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3, "n_layers": 80}
        | {"n_heads": 64, "n_kv_heads": 8},
        28672,
        None,
    ),
    (
        {"dim": 4096, "multiple_of": 1024, "ffn_dim_multiplier": 1.3, "n_layers": 32}
        | {"n_heads": 32, "n_kv_heads": 8, "use_scaled_rope": True},
        14336,
        8.0,
    ),
    (
        {"dim": 2048, "multiple_of": 256, "ffn_dim_multiplier": 1.5, "n_layers": 16}
        | {"n_heads": 32, "n_kv_heads": 8, "use_scaled_rope": True},
        8192,
        32.0,
    ),
]


@pytest.mark.parametrize(("params", "mlp_width", "factor"), RELEASES)
def test_sizes_of_the_releases(tmp_path, params, mlp_width, factor):
    params = params | {"norm_eps": 1e-5, "vocab_size": 32000}
    folder = write_meta(tmp_path, {}, params)
    config = LlamaConfig.from_dict(meta_layout.read_config(folder))
    assert config.mlp_width == mlp_width
    assert getattr(config.rope_scaling, "factor", None) == factor


def refused(folder):
    with pytest.raises(UserError) as error:
        sources.find(folder, "language_model").tensors()
    told = str(error.value)
    assert told.startswith(f"{folder}") and "\n" not in told
    return told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dim": None}, "params.json: dim is missing: it must be a positive whole"),
        ({"dim": -4}, "params.json: dim is -4"),
        ({"dim": 18}, "dim 18 is not a multiple of n_heads 4"),
        ({"dim": "16"}, "dim is '16'"),
        ({"n_layers": True}, "n_layers is True"),
        ({"n_layers": 5000}, "read as a config.json: num_hidden_layers is 5000"),
        ({"n_kv_heads": 3}, "num_attention_heads is 4: it must be a multiple of num_k"),
        ({"norm_eps": 0}, "norm_eps is 0: it must be a positive number"),
        ({"multiple_of": 10**9}, "multiple_of is 1000000000"),
        ({"ffn_dim_multiplier": 1e9}, "give a width of the mlp that is not from 1 to"),
        ({"ffn_dim_multiplier": 1e308}, "give a width of the mlp that is not from 1"),
        ({"ffn_dim_multiplier": 1e-9}, "give a width of the mlp that is not from 1"),
        ({"ffn_dim_multiplier": float("inf")}, "ffn_dim_multiplier is inf"),
        ({"multiple_of": 64}, "[48, 16] for [64, 16]"),
        ({"n_layers": 1}, "unused: layers.1."),
        ({"n_layers": 3}, "missing: layers.2."),
        ({"vocab_size": 51}, "tok_embeddings.weight [50, 16] for [51, 16]"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"use_scaled_rope": 1}, "use_scaled_rope is 1: must be true or false"),
        ({"use_scaled_rope": True}, "does not say by how much, and no release with"),
        ({"vision_chunk_size": 560}, "unknown attribute 'vision_chunk_size' (560)"),
        ({"moe": {"num_experts": 8}}, "unknown attribute 'moe'"),
    ],
)
def test_params_that_are_wrong(tmp_path, changes, told):
    tensors = meta_tensors(hub_model(LLAMA_1))
    folder = write_meta(tmp_path / "7B", tensors, LLAMA_1 | changes)
    assert told in refused(folder)


def test_files_that_are_missing_or_do_not_fit(tmp_path):
    tensors = meta_tensors(hub_model(LLAMA_1))
    folder = write_meta(tmp_path / "7B", tensors, LLAMA_1, shards=2)
    second = folder / "consolidated.01.pth"
    content = second.read_bytes()
    second.unlink()
    assert "tensors of consolidated.00.pth do not fit params.json" in refused(folder)
    second.with_name("consolidated.02.pth").write_bytes(content)
    assert "whose numbers leave gaps" in refused(folder)
    second.with_name("consolidated.02.pth").rename(second)
    half = {name: t.half() for name, t in torch.load(second).items()}
    torch.save(half, second)
    assert "[50, 8] F32 and [50, 8] F16 for [50, 16]" in refused(folder)
    second.write_bytes(content[:100])
    assert "consolidated.01.pth: is not a file of PyTorch" in refused(folder)
    second.unlink()
    write_meta(folder, tensors, LLAMA_1 | {"vocab_size": 50}, shards=4)
    (folder / "consolidated.03.pth").unlink()
    told = refused(folder)
    assert "consolidated.00.pth … consolidated.02.pth do not fit params.json" in told
    (folder / "params.json").write_text("[]")
    assert "params.json: must contain a JSON object" in refused(folder)
    (folder / "params.json").unlink()
    assert "all files that follow it must be in one folder" in refused(folder)


def test_other_weights_beside_them_are_named(tmp_path, capsys):
    tensors = meta_tensors(hub_model(LLAMA_1))
    folder = write_meta(tmp_path / "7B", tensors, LLAMA_1, shards=2)
    report_unread(folder)
    assert capsys.readouterr().err == ""
    (folder / "other.gguf").touch()
    report_unread.cache_clear()
    report_unread(folder)
    told = f"{folder}: not read, only consolidated.00.pth … is: other.gguf"
    assert told in capsys.readouterr().err


def test_a_vocabulary_that_cannot_be_known(tmp_path):
    """Half of the rows, or the whole of them twice? Only `vocab_size` says it."""
    tensors = meta_tensors(hub_model(LLAMA_1))
    folder = write_meta(tmp_path / "7B", tensors, LLAMA_1, shards=2, embedding_axis=0)
    assert "gives no vocab_size, and tok_embeddings.weight" in refused(folder)
    (folder / "params.json").write_text(json.dumps(LLAMA_1 | {"vocab_size": 50}))
    assert sources.find(folder, "language_model").config["vocab_size"] == 50


def test_a_norm_is_the_same_in_all_files(tmp_path):
    tensors = meta_tensors(hub_model(LLAMA_1))
    folder = write_meta(tmp_path / "7B", tensors, LLAMA_1, shards=2)
    other = torch.load(folder / "consolidated.01.pth")
    other["layers.1.ffn_norm.weight"][3] += 1
    torch.save(other, folder / "consolidated.01.pth")
    with pytest.raises(UserError, match=r"layers\.1\.ffn_norm\.weight is not the same"):
        load(folder)
    other["layers.1.ffn_norm.weight"] = other["layers.1.ffn_norm.weight"].half()
    torch.save(other, folder / "consolidated.01.pth")
    assert "shapes: layers.1.ffn_norm.weight" in refused(folder)


def test_not_a_number_is_found_while_it_is_read(tmp_path):
    tensors = meta_tensors(hub_model(LLAMA_1))
    tensors["layers.0.attention.wk.weight"][5, 3] = torch.nan
    folder = write_meta(tmp_path / "7B", tensors, LLAMA_1, shards=2)
    with pytest.raises(UserError, match=r"layers\.0\.self_attn\.k_proj.*contains NaN"):
        load(folder)


def test_two_configurations_contradict_each_other(tmp_path):
    tensors = meta_tensors(hub_model(LLAMA_1))
    folder = write_meta(tmp_path / "7B", tensors, LLAMA_1)
    config = meta_layout.read_config(folder)
    (folder / "config.json").write_text(json.dumps(config))
    assert "but also a config.json; move away" in refused(folder)
