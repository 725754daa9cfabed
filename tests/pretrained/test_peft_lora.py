"""A LoRA in PEFT's layout is added to its base; what cannot be added is refused."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
import torch
from helpers.lora_folders import DOWN, Q, factors, write_lora
from helpers.meta_folders import LLAMA_3, hub_model, meta_tensors, write_meta
from helpers.model_folders import (
    CONFIG,
    configure,
    language_model,
    read,
    save_tokenizer,
)
from safetensors.torch import save_file

from musilingo_jax.convert import inspection, language_models
from musilingo_jax.pretrained import sources, weights, write_folders
from musilingo_jax.pretrained.lora_sum import LoraSum
from musilingo_jax.runtime.errors import UserError


@pytest.fixture
def base(tmp_path):
    return language_model(tmp_path / "base", CONFIG, torch.float32)


@pytest.fixture
def lora(tmp_path, base):
    """Alone in a folder; it names its base."""
    return write_lora(tmp_path / "lora", factors(), base_model_name_or_path=str(base))


def summed(base, tensors, scale=5 / 3, scales=()):
    """What the merged model has, in float64."""
    expected = {name: tensor.double().numpy() for name, tensor in read(base).items()}
    for name, a in tensors.items():
        if ".lora_A" not in name:
            continue
        b = tensors[name.replace("lora_A", "lora_B")].double().numpy()
        inner = name.removeprefix("base_model.model.").replace(".lora_A", "")
        number = dict(scales).get(inner.removesuffix(".weight"), scale)
        expected[inner] = expected[inner] + number * (b @ a.double().numpy())
    return expected


def found(folder):
    return sources.find(folder, "language_model").tensors()


def assert_sums(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(tensors[name][...], values, rtol=1e-6, atol=1e-6)


def test_alone_it_is_its_base_with_the_sum(lora, base, capsys):
    part = sources.find(lora, "language_model")
    assert (part.folder, part.source) == (base, lora.as_posix()) and part.config
    tensors = part.tensors()
    assert_sums(tensors, summed(base, factors()))
    assert sum(isinstance(t, LoraSum) for t in tensors.values()) == 4
    part.tensors()
    told = capsys.readouterr().err
    assert told == (
        f"note: {base} is read with the LoRA in {lora} (rank 3, scale 1.66667) added "
        "to 4 matrices\n"
    )


def test_beside_a_model_it_is_added_to_that(lora, base, capsys):
    expected = summed(base, factors())
    for path in lora.iterdir():
        shutil.copy(path, base)
    assert_sums(found(base), expected)
    told = "4 matrices; if it had been merged into these weights before, which no file"
    assert told in capsys.readouterr().err
    assert sources.kinds(base) == ["language_model"]


def test_the_model_loads_inspects_and_has_a_digest(lora, base, tmp_path):
    save_tokenizer(base, 9)
    loaded = weights.load_language_model(
        lora, dtype="float32", quantization="", mesh=None
    )
    expected = summed(base, factors())["model.layers.1.mlp.down_proj.weight"]
    np.testing.assert_allclose(loaded.layers.down.kernel[1], expected.T, rtol=1e-5)
    (report,) = inspection.inspect(str(lora))
    assert report.loads, report.reason
    digest = weights.digest(lora, "language_model")
    assert digest == weights.digest(lora, "language_model")
    assert digest != weights.digest(base, "language_model")
    other = write_lora(
        tmp_path / "other", factors(), lora_alpha=6, base_model_name_or_path=str(base)
    )
    assert digest != weights.digest(other, "language_model")


def test_it_is_rounded_once_to_the_type_that_is_asked_for(tmp_path):
    """In bfloat16 files: neither the product nor the sum is rounded before."""
    base = language_model(tmp_path / "base", CONFIG, torch.bfloat16)
    tensors = {name: t.bfloat16() for name, t in factors().items()}
    lora = write_lora(tmp_path / "lora", tensors, base_model_name_or_path=str(base))
    expected = summed(base, tensors)
    assert_sums(found(lora), expected)
    name = "model.layers.0.mlp.down_proj.weight"
    rounded = expected[name].astype(np.float32).astype(ml_dtypes.bfloat16)
    loaded = weights.load_language_model(
        lora, dtype="bfloat16", quantization="", mesh=None
    )
    np.testing.assert_array_equal(np.asarray(loaded.layers.down.kernel[0]).T, rounded)
    out = tmp_path / "out"
    write_folders.write(
        out, language_models.merge_lora(None, str(lora)), shard_bytes=10**6
    )
    written = read(out)
    assert {tensor.dtype for tensor in written.values()} == {torch.bfloat16}
    np.testing.assert_array_equal(
        written[name].float().numpy(), rounded.astype(np.float32)
    )


def test_any_part_is_the_same_numbers(lora, base):
    whole = summed(base, factors())["model.layers.0.mlp.down_proj.weight"]
    tensor = found(lora)["model.layers.0.mlp.down_proj.weight"]
    assert (tensor.shape, tensor.dtype, tensor.nbytes) == ((8, 12), "F32", 384)
    for index in (..., 3, slice(2, 5), slice(4, 4), (slice(1, 7), slice(2, 9)), -1):
        np.testing.assert_allclose(tensor[index], whole[index], rtol=1e-5, atol=1e-6)


def test_a_sum_reads_only_the_rows_it_needs():
    """Of a matrix of 64 MB, a megabyte; and no second one of its size is made."""
    asked = []

    class Rows:
        shape, dtype, nbytes = (4096, 4096), "F32", 2**26

        def __getitem__(self, index):
            asked.append(index)
            return np.ones((4096, 4096), np.float32)[index]

    a = np.ones((8, 4096), np.float32)
    total = LoraSum(
        Rows(), a, np.ones((4096, 8), np.float32), 0.5, embeds=False, where="x"
    )
    np.testing.assert_array_equal(total[64:128], np.full((64, 4096), 5.0))
    assert asked == [slice(64, 128)]
    asked.clear()
    assert total[...].shape == (4096, 4096)
    assert max(rows.stop - rows.start for rows in asked) == 256


@pytest.mark.parametrize(
    ("changes", "ranks", "scale", "scales"),
    [
        ({"use_rslora": True}, {}, 5 / 3**0.5, {}),
        ({"lora_alpha": 0.5}, {}, 0.5 / 3, {}),
        (
            {"rank_pattern": {"layers.1.self_attn.q_proj": 2}},
            {f"1.{Q}": 2},
            5 / 3,
            {f"model.layers.1.{Q}": 5 / 2},
        ),
        (
            {"alpha_pattern": {"down_proj": 1, r"^model.layers.\d.*": 2}},
            {},
            2 / 3,
            {f"model.layers.{layer}.{DOWN}": 1 / 3 for layer in range(2)},
        ),
        ({"r": 9, "rank_pattern": {r"layers\.\d+\.\w+\.\w+": 3}}, {}, 5 / 3, {}),
    ],
)
def test_scales(tmp_path, base, changes, ranks, scale, scales):
    tensors = factors(ranks)
    folder = write_lora(
        tmp_path / "lora", tensors, base_model_name_or_path=str(base), **changes
    )
    assert_sums(found(folder), summed(base, tensors, scale, scales))


def test_a_base_that_the_user_names(tmp_path, base):
    """Also one in Meta's own layout."""
    lora = write_lora(tmp_path / "lora", factors(), base_model_name_or_path="a/b")
    (output,) = language_models.merge_lora(str(base), str(lora))
    expected = summed(base, factors())
    for name, piece in output.pieces.items():
        np.testing.assert_allclose(piece.read(), expected[name], rtol=1e-5, atol=1e-6)
    model = hub_model(LLAMA_3)
    meta = write_meta(tmp_path / "meta", meta_tensors(model), LLAMA_3, shards=2)
    shapes = {"A": (3, 16), "B": (16, 3)}
    tensors = {
        f"base_model.model.model.layers.{n}.{Q}.lora_{x}.weight": torch.randn(shape)
        for n in range(2)
        for x, shape in shapes.items()
    }
    write_lora(lora, tensors, target_modules=["q_proj"])
    (output,) = language_models.merge_lora(str(meta), str(lora))
    name = f"model.layers.1.{Q}"
    a, b = (tensors[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
    total = model.state_dict()[f"{name}.weight"] + 5 / 3 * (b @ a)
    read_back = output.pieces[f"{name}.weight"].read()
    np.testing.assert_allclose(read_back, total.numpy(), rtol=1e-5, atol=1e-5)


def test_embeddings_and_whole_modules(tmp_path, base):
    generator = torch.Generator().manual_seed(3)
    name = "base_model.model.model.embed_tokens"
    a, b, head, norm = (
        torch.randn(shape, generator=generator)
        for shape in ((3, 10), (8, 3), (10, 8), (8,))
    )
    tensors = {f"{name}.lora_embedding_A": a, f"{name}.lora_embedding_B": b}
    tensors |= {"base_model.model.lm_head.weight": head}
    tensors |= {"base_model.model.model.norm.weight": norm}
    folder = write_lora(
        tmp_path / "lora",
        tensors,
        target_modules=["embed_tokens"],
        modules_to_save=["lm_head", "norm"],
        base_model_name_or_path=str(base),
    )
    expected = {n: tensor.double().numpy() for n, tensor in read(base).items()}
    expected["model.embed_tokens.weight"] += 5 / 3 * (b @ a).double().numpy().T
    expected |= {"lm_head.weight": head.numpy(), "model.norm.weight": norm.numpy()}
    tensors = found(folder)
    assert_sums(tensors, expected)
    part = tensors["model.embed_tokens.weight"][2:5, 1:]
    np.testing.assert_allclose(
        part, expected["model.embed_tokens.weight"][2:5, 1:], rtol=1e-5, atol=1e-6
    )
    configure(base, tie_word_embeddings=True)
    assert "changes embed_tokens and lm_head, but" in refused(folder)


def test_older_spellings(tmp_path, base):
    """With the name of the adapter, and in a file of PyTorch."""
    tensors = {n.replace(".weight", ".default.weight"): t for n, t in factors().items()}
    folder = write_lora(tmp_path / "lora", tensors, base_model_name_or_path=str(base))
    assert_sums(found(folder), summed(base, factors()))
    (folder / "adapter_model.safetensors").unlink()
    torch.save(factors(), folder / "adapter_model.bin")
    assert_sums(found(folder), summed(base, factors()))


def refused(folder):
    with pytest.raises(UserError) as error:
        found(folder)
    told = str(error.value)
    assert told.startswith(f"{folder}") and "\n" not in told
    return told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', but only 'LORA'"),
        ({"peft_type": "ADALORA"}, "peft_type is 'ADALORA'"),
        ({"peft_type": "PROMPT_TUNING", "x": 1}, "unknown attribute 'x'"),
        ({"peft_type": None}, "peft_type is missing"),
        ({"use_dora": True}, "use_dora is True"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is [[0, 2]]"),
        ({"use_qalora": True}, "use_qalora is True"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is [1]"),
        ({"target_parameters": ["w"]}, "target_parameters is ['w']"),
        (
            {"init_lora_weights": "pissa"},
            "init_lora_weights is 'pissa', which",
        ),
        ({"new_formula": True}, "unknown attribute 'new_formula'"),
        ({"r": 4}, "its factors do not fit model.layers.0.mlp.down_proj.weight"),
        ({"r": 0}, "r is 0: it must be a positive whole number"),
        ({"r": None}, "r is None"),
        ({"lora_alpha": "5"}, "not '5' and False"),
        ({"lora_alpha": float("inf")}, "lora_alpha must be a finite number"),
        ({"lora_alpha": 10**400}, "lora_alpha must be a finite number"),
        (
            {"modules_to_save": ["norm"]},
            "its modules_to_save name model.norm, of which",
        ),
        ({"base_model_name_or_path": "x" * 9000}, "which cannot be used"),
        ({"use_rslora": "yes"}, "use_rslora true or false, not 5 and 'yes'"),
        ({"rank_pattern": [3]}, "rank_pattern is not an object"),
        ({"rank_pattern": {"(a+)+": 3}}, "'(a+)+', which is not supported (it is too"),
        ({"alpha_pattern": {"+": 3}}, "has the key '+', which is not supported"),
        ({"target_modules": ["q_proj", "v_proj"]}, "name model.layers.0.self_attn.v_p"),
        ({"base_model_name_or_path": ""}, "base_model_name_or_path of its adap"),
        ({"base_model_name_or_path": 3}, "and revision must be text"),
        (
            {"base_model_name_or_path": "no where"},
            "is a LoRA of no where, which",
        ),
    ],
)
def test_settings_that_are_refused(lora, changes, told):
    settings = json.loads((lora / "adapter_config.json").read_text())
    (lora / "adapter_config.json").write_text(json.dumps(settings | changes))
    assert told in refused(lora)


LAYER = "base_model.model.model.layers.0."
A, B = (f"{LAYER}{DOWN}.lora_{letter}.weight" for letter in "AB")


@pytest.mark.parametrize(
    ("name", "tensor", "told"),
    [
        ("x", torch.ones(2), "has tensors that nothing in"),
        ("base_model.model.model.x", torch.ones(2), "takes: base_model.model.model.x"),
        (f"{LAYER}{DOWN}.lora_B.bias", torch.ones(8), "down_proj.lora_B.bias; name"),
        (f"{LAYER}{DOWN}.lora_magnitude_vector", torch.ones(8), "magnitude_vector; "),
        (A.replace(".0.", ".7."), torch.ones(3, 12), "takes: base_model.model.model"),
        (A.replace("weight", "default.weight"), torch.ones(3, 12), "nothing in"),
        (A, torch.ones(3, 12, dtype=torch.int8), "down_proj.lora_A.weight (I8); merge"),
        (A, torch.ones(3, 11), "its factors do not fit model.layers.0.mlp.down_proj"),
        (B, torch.ones(8, 3, 1), "its factors do not fit model.layers.0.mlp.down_proj"),
        (B, None, "has not the two factors of model.layers.0.mlp.down_proj"),
        (f"{LAYER}input_layernorm.weight", torch.ones(9), "weight [9] for [8]"),
    ],
)
def test_tensors_that_are_refused(lora, name, tensor, told):
    tensors = factors() | {name: tensor}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, lora / "adapter_model.safetensors")
    assert told in refused(lora)


def test_files_that_are_refused(lora):
    (lora / "adapter_model.safetensors").write_bytes(b"cut off")
    assert "adapter_model.safetensors: broken or cut off" in refused(lora)
    (lora / "adapter_model.safetensors").unlink()
    assert "neither adapter_model.safetensors nor adapter_model.bin" in refused(lora)
    head = {"base_model.model.lm_head.weight": torch.ones(10, 8)}
    torch.save(head, lora / "adapter_model.bin")
    assert "has no factors lora_A and lora_B" in refused(lora)
    (lora / "adapter_config.json").write_text("[" * 10**5)
    assert "adapter_config.json: is JSON that is nested" in refused(lora)


@pytest.mark.parametrize("where", ["lora_A", "lora_B"])
def test_not_a_number_is_found_while_it_is_read(lora, where):
    tensors = factors()
    name = f"base_model.model.model.layers.1.{Q}.{where}.weight"
    tensors[name][1, 2] = torch.inf
    save_file(tensors, lora / "adapter_model.safetensors")
    with pytest.raises(UserError) as error:
        weights.load_language_model(lora, dtype="float32", quantization="", mesh=None)
    assert str(error.value).startswith(f"{lora}: {name} contains infinity")


def test_a_sum_that_is_too_large_is_the_fault_of_the_lora(lora, base):
    tensors = {name: 1e30 * tensor for name, tensor in factors().items()}
    save_file(tensors, lora / "adapter_model.safetensors")
    told = rf"{lora}: model\.layers\.0\.\w+\.\w+_proj: what is added is too large, ti"
    with pytest.raises(UserError, match=told):
        weights.load_language_model(lora, dtype="float32", quantization="", mesh=None)
    tensors = read(base)
    tensors[f"model.layers.0.{Q}.weight"][0, 0] = torch.inf
    save_file(tensors, base / "model.safetensors")
    save_file(factors(), lora / "adapter_model.safetensors")
    with pytest.raises(UserError) as error:
        weights.load_language_model(lora, dtype="float32", quantization="", mesh=None)
    assert str(error.value).startswith(f"{base}: model.layers.0.{Q}.weight contains")


@pytest.mark.parametrize(
    ("layers", "there", "told"),
    [
        (0, [0], None),
        ([1], [1], None),
        ([0, 1], [0, 1], None),
        ([], [0, 1], None),
        (
            [0, 1],
            [0],
            "target_modules name model.layers.1.mlp.down_proj, model.layers.",
        ),
        ([], [0], "its target_modules name model.layers.1.mlp.down_proj"),
        ("0", [0], "layers_to_transform is '0': it must be a whole number"),
    ],
)
def test_layers_that_were_to_be_trained(tmp_path, base, layers, there, told):
    tensors = {
        name: tensor
        for name, tensor in factors().items()
        if any(f".layers.{layer}." in name for layer in there)
    }
    lora = write_lora(
        tmp_path / "lora",
        tensors,
        base_model_name_or_path=str(base),
        layers_to_transform=layers,
    )
    if told:
        assert told in refused(lora)
    else:
        assert_sums(found(lora), summed(base, tensors))


def test_a_base_that_does_not_fit(lora, base):
    shutil.rmtree(base)
    narrow = CONFIG.to_dict() | {"hidden_size": 4, "head_dim": 2}
    language_model(base, type(CONFIG).from_dict(narrow), torch.float32)
    assert "do not fit model.layers.0.mlp.down_proj.weight" in refused(lora)


def test_loras_of_loras(lora, base, tmp_path):
    above = write_lora(tmp_path / "above", factors(), base_model_name_or_path=str(lora))
    assert f"its base {lora} is read with a LoRA itself" in refused(above)
    write_lora(lora, factors(), base_model_name_or_path=str(lora))
    assert "leads back to it" in refused(lora)


def test_it_is_no_encoder(lora):
    with pytest.raises(UserError, match="is a LoRA of a language model, not an encod"):
        sources.find(lora, "encoder")


def test_its_own_tokenizer_takes_precedence(lora, base):
    save_tokenizer(base, 9)
    assert sources.find(lora, "language_model").tokenizer == base
    save_tokenizer(lora, 5)
    assert sources.find(lora, "language_model").tokenizer == lora
