"""Folders of models: ours and transformers' read each other's; bad ones are refused."""

import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from musilingo_jax import sharding, tensors, weights
from musilingo_jax.errors import UserError
from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.layers import Linear, Norm, parameter
from musilingo_jax.models.names import Derived


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
}


@pytest.fixture
def toy():
    return Toy(rngs=nnx.Rngs(0))


@pytest.fixture
def folder(toy, tmp_path):
    save(toy, tmp_path / "toy")
    return tmp_path / "toy"


def save(toy, folder, dtype="float32"):
    weights.save(toy, NAMES, folder, dtype=dtype, config={}, metadata={})


def load(folder, *, dtype="float32", mesh=None, ignored=()):
    abstract = jax.eval_shape(lambda: Toy(rngs=nnx.Rngs(0)))
    return weights.load(abstract, NAMES, ignored, folder, dtype=dtype, mesh=mesh)


def rewrite(folder, change):
    """Changes the dict of tensors in place and stores it again."""
    stored = load_file(folder / "model.safetensors")
    change(stored)
    save_file(stored, folder / "model.safetensors")


def assert_equal(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_what_is_saved_is_loaded(toy, folder):
    assert_equal(load(folder), toy)


def test_kernels_are_stored_with_reversed_axes_and_layers_apart(toy, folder):
    stored = load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(
        stored["layer.1.up.weight"], toy.layers.up.kernel[1].T
    )
    np.testing.assert_array_equal(stored["conv.weight"], toy.kernel[...].T)
    np.testing.assert_array_equal(stored["table.weight"], toy.table[...])


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_any_stored_type_becomes_the_asked_one(toy, tmp_path, stored, wanted):
    save(toy, tmp_path, dtype=stored)
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        names = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
        assert file.get_slice("conv.weight").get_dtype() == names[stored]
    loaded = load(tmp_path, dtype=wanted)
    kernel = toy.kernel[...].astype(stored).astype(wanted)
    assert loaded.kernel.dtype == wanted
    np.testing.assert_array_equal(loaded.kernel[...], kernel)


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 8, 1), (1, 2, 4)])
def test_loading_onto_eight_devices_equals_loading_onto_one(folder, sizes):
    mesh = sharding.make_mesh(*sizes)
    spread = load(folder, mesh=mesh)
    assert_equal(spread, load(folder))
    wanted = jax.tree.leaves(sharding.shardings(spread, mesh))
    for leaf, place in zip(jax.tree.leaves(spread), wanted, strict=True):
        assert leaf.sharding == place


def test_only_the_slices_of_this_device_are_read(folder, monkeypatch):
    """With one fsdp part of two asked for, half of each kernel's rows is read."""
    asked = []

    class Watched:
        def __init__(self, inner):
            self.inner = inner
            self.get_shape, self.get_dtype = inner.get_shape, inner.get_dtype

        def __getitem__(self, index):
            part = self.inner[index]
            asked.append(part.shape)
            return part

    opened = tensors.open_tensors(folder)
    watched = {name: Watched(inner) for name, inner in opened.items()}
    monkeypatch.setattr(tensors, "open_tensors", lambda folder: watched)
    load(folder, mesh=sharding.make_mesh(2, 2, 2))
    # Three layers, two by two parts; copies on the data axis are not read again.
    assert asked.count((4, 2)) == 3 * 2 * 2
    assert (8, 4) not in asked


def test_several_files_with_an_index(toy, folder):
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {name: f"{i % 2}.safetensors" for i, name in enumerate(stored)}
    for file in set(where.values()):
        part = {name: stored[name] for name in stored if where[name] == file}
        save_file(part, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    assert_equal(load(folder), toy)
    gone = sorted(where.values())[0]
    (folder / gone).unlink()
    with pytest.raises(UserError, match=f"names files that are not there: {gone}"):
        load(folder)
    index.write_text("{}")
    with pytest.raises(UserError, match="has no weight_map"):
        load(folder)
    index.write_text('{"weight_map":')
    with pytest.raises(UserError, match="index.json: is not JSON"):
        load(folder)
    index.write_text("[]")
    with pytest.raises(UserError, match="must hold a JSON object"):
        load(folder)


def test_another_spelling_of_derived_parameters_is_found(toy, folder):
    def respell(stored):
        stored["old_a"], stored["old_b"] = stored.pop("new.a"), stored.pop("new.b")

    rewrite(folder, respell)
    assert_equal(load(folder), toy)
    rewrite(folder, lambda stored: stored.pop("old_b"))
    with pytest.raises(UserError, match=r"missing: old_b$"):
        load(folder)


def test_all_wrong_tensors_are_named_at_once(folder):
    def spoil(stored):
        for layer in range(3):
            del stored[f"layer.{layer}.norm.weight"]
        stored["conv.weight"] = np.zeros((4, 2, 6), np.float32)
        stored["table.weight"] = np.zeros((6, 4), np.int8)
        stored["new.a"] = np.zeros(9, np.float32)
        stored["stranger"] = stored["layer.1.unknown.weight"] = np.zeros(2)
        stored["rotary.inv_freq"] = np.zeros(2)

    rewrite(folder, spoil)
    with pytest.raises(UserError) as caught:
        load(folder, ignored=[r"rotary\..*"])
    message = str(caught.value)
    assert "missing: layer.{0,1,2}.norm.weight;" in message
    assert "unused: layer.1.unknown.weight, stranger;" in message
    assert "conv.weight [4, 2, 6] instead of [4, 2, 5]" in message
    assert "new.a [9] instead of [8]" in message
    assert "table.weight I8 instead of floating-point numbers" in message
    assert "inv_freq" not in message
    assert "\n" not in message


@pytest.mark.parametrize("keep", [0, 6, 100, -1])
def test_a_file_that_is_cut_off_is_refused(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model\.safetensors: broken or cut off"):
        load(folder)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a model folder, for it has neither"):
        load(tmp_path)


def test_an_unknown_number_type_is_refused(folder):
    with pytest.raises(UserError, match="'bf16': no such type; use float32"):
        load(folder, dtype="bf16")


def test_numbers_that_do_not_fit_are_not_saved(toy, tmp_path):
    large = jax.tree.map(lambda leaf: leaf + 1e5, toy)
    with pytest.raises(UserError, match="too large for float16"):
        save(large, tmp_path / "large", dtype="float16")
    assert not (tmp_path / "large").exists()


def test_an_interrupted_save_leaves_the_old_files(toy, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def interrupted(stored, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tensors, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(jax.tree.map(lambda leaf: leaf + 1, toy), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_only_the_first_process_writes(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    save(toy, tmp_path / "toy")
    assert not (tmp_path / "toy").exists()


def test_digest_is_that_of_the_contents_only(folder, tmp_path):
    before = weights.digest(folder)
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    for path in copy.iterdir():
        os.utime(path, (1, 1))
    (copy / "README.md").write_text("beside the point")
    assert weights.digest(copy) == before
    rewrite(copy, lambda stored: stored["conv.weight"].__imul__(2))
    assert weights.digest(copy) != before
    (folder / "tokenizer.json").write_text("{}")
    told = weights.digest(folder)
    assert told != before
    (folder / "config.json").write_text("{}")
    assert weights.digest(folder) != told


def test_embedded_models_are_found_by_name(tmp_path, monkeypatch):
    embedded = tmp_path / "package" / "assets" / "musilingo-tiny" / "encoder"
    embedded.mkdir(parents=True)
    (embedded / "model.safetensors").touch()
    monkeypatch.setattr(weights.resources, "files", lambda _: tmp_path / "package")
    assert weights.resolve("musilingo-tiny/encoder") == embedded
    assert weights.resolve(embedded) == embedded
    with pytest.raises(
        UserError, match=r"nothing: .*embedded one \(musilingo-tiny/enc"
    ):
        weights.resolve("nothing")


def tiny_llama(**changes):
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    config = transformers.LlamaConfig(**(sizes | heads | changes))
    return transformers.LlamaForCausalLM(config).eval()


def tiny_hubert(**changes):
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "conv_dim": (8, 8),
        "conv_kernel": (10, 4),
        "conv_stride": (5, 4),
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
    }
    return transformers.HubertModel(transformers.HubertConfig(**(sizes | changes)))


def assert_same_state(ours, theirs):
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def from_pretrained(kind, folder):
    model, report = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


@pytest.mark.parametrize("tied", [False, True])
def test_llama_goes_to_transformers_and_back(tmp_path, tied):
    theirs = tiny_llama(tie_word_embeddings=tied)
    theirs.save_pretrained(tmp_path / "theirs")
    llama = weights.load_language_model(tmp_path / "theirs", dtype="float32", mesh=None)
    weights.save_language_model(llama, tmp_path / "ours", dtype="float32")
    again = from_pretrained(transformers.LlamaForCausalLM, tmp_path / "ours")
    assert_same_state(again, theirs)
    assert again.config.rope_parameters == theirs.config.rope_parameters
    tokens = torch.arange(12).reshape(2, 6)
    torch.testing.assert_close(again(tokens).logits, theirs(tokens).logits)
    mesh = sharding.make_mesh(2, 2, 2)
    spread = weights.load_language_model(tmp_path / "ours", dtype="float32", mesh=mesh)
    assert_equal(spread, llama)


def test_models_stored_in_half_precision_are_read_by_transformers(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "theirs")
    llama = weights.load_language_model(tmp_path / "theirs", dtype="float32", mesh=None)
    weights.save_language_model(llama, tmp_path / "ours", dtype="float16")
    again = from_pretrained(transformers.LlamaForCausalLM, tmp_path / "ours")
    assert again.dtype == torch.float16
    assert_same_state(again, tiny_llama().half())


def test_a_tied_head_that_is_stored_all_the_same_is_no_mistake(tmp_path):
    tiny_llama(tie_word_embeddings=True).save_pretrained(tmp_path)
    table = "model.embed_tokens.weight"
    rewrite(tmp_path, lambda s: s.__setitem__("lm_head.weight", s[table]))
    llama = weights.load_language_model(tmp_path, dtype="float32", mesh=None)
    assert llama.head is None


@pytest.mark.parametrize("pre_norm", [False, True])
def test_mert_goes_to_transformers_and_back(tmp_path, pre_norm):
    norm = "layer" if pre_norm else "group"
    theirs = tiny_hubert(do_stable_layer_norm=pre_norm, feat_extract_norm=norm).eval()
    positional = theirs.encoder.pos_conv_embed.conv
    with torch.no_grad():
        positional.parametrizations.weight.original0.mul_(torch.rand(8) + 0.5)
    theirs.save_pretrained(tmp_path / "theirs")
    mert = weights.load_encoder(tmp_path / "theirs", dtype="float32", mesh=None)
    weights.save_encoder(mert, tmp_path / "ours", dtype="float32")
    again = from_pretrained(transformers.HubertModel, tmp_path / "ours")
    torch.testing.assert_close(
        again.encoder.pos_conv_embed.conv.weight, positional.weight
    )
    ours = again.state_dict()
    for name, tensor in theirs.state_dict().items():
        if name != "masked_spec_embed" and "parametrizations" not in name:
            assert torch.equal(ours.pop(name), tensor), name
    assert all("parametrizations" in name for name in ours)
    waveform = torch.randn(2, 400)
    torch.testing.assert_close(
        again(waveform).last_hidden_state, theirs(waveform).last_hidden_state
    )
    mesh = sharding.make_mesh(2, 2, 2)
    spread = weights.load_encoder(tmp_path / "ours", dtype="float32", mesh=mesh)
    reread = weights.load_encoder(tmp_path / "ours", dtype="float32", mesh=None)
    assert_equal(spread, reread)


def test_the_preprocessor_says_what_the_config_does_not(tmp_path):
    tiny_hubert().save_pretrained(tmp_path)
    said = {"do_normalize": True, "sampling_rate": 24000, "padding_side": "right"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    mert = weights.load_encoder(tmp_path, dtype="float32", mesh=None)
    assert mert.config.do_normalize
    assert mert.config.sample_rate == 24000


def test_adapter_is_saved_and_loaded(tmp_path):
    adapter = Adapter(6, 4, rngs=nnx.Rngs(0))
    weights.save_adapter(adapter, tmp_path, dtype="float32", window_frames=108)
    for mesh in (None, sharding.make_mesh(2, 2, 2)):
        assert_equal(weights.load_adapter(tmp_path, mesh=mesh), adapter)
    assert set(load_file(tmp_path / "model.safetensors")) == {
        "llama_proj.weight",
        "llama_proj.bias",
    }
    config = weights.read_config(tmp_path)
    assert config["window_frames"] == 108
    del config["encoder_width"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="needs encoder_width"):
        weights.load_adapter(tmp_path, mesh=None)


@pytest.mark.parametrize(
    "loader",
    [
        lambda folder: weights.load_encoder(folder, dtype="float32", mesh=None),
        lambda folder: weights.load_language_model(folder, dtype="float32", mesh=None),
        lambda folder: weights.load_adapter(folder, mesh=None),
    ],
)
def test_folders_that_hold_no_model_are_refused(tmp_path, loader):
    with pytest.raises(UserError, match="there is no such folder"):
        loader(tmp_path / "nothing")
    with pytest.raises(
        UserError, match=r"not a model folder, for it has no config\.json"
    ):
        loader(tmp_path)


def write_tokenizer(folder: Path) -> transformers.PreTrainedTokenizerFast:
    """A byte-level tokenizer of a language model with 50 embeddings or more."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=40, special_tokens=["<s>", "</s>"])
    tokenizer.train_from_iterator(["a slow sad song", "a fast happy tune"], trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(folder)
    return fast


def test_tokenizer_is_read_as_it_was_written(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    written = write_tokenizer(tmp_path)
    read = weights.load_tokenizer(tmp_path)
    text = "a sad tune"
    assert read(text)["input_ids"] == written(text)["input_ids"]
    assert read.decode(read(text)["input_ids"]) == text
    assert read.bos_token_id == 0


def test_tokenizers_that_do_not_fit_are_refused(tmp_path):
    tiny_llama(vocab_size=20).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no tokenizer; copy the tokenizer.json"):
        weights.load_tokenizer(tmp_path)
    tokens = len(write_tokenizer(tmp_path))
    with pytest.raises(UserError, match=f"{tokens} tokens but .* embeds only 20"):
        weights.load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="its tokenizer cannot be read"):
        weights.load_tokenizer(tmp_path)
