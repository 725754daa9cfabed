"""Folders of models: ours and transformers' read each other's; bad ones are refused."""

import json

import pytest
import torch
import transformers
from flax import nnx
from helpers.stored_weights import assert_equal, rewrite
from helpers.transformers_models import tiny_llama
from safetensors.numpy import load_file

from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.parts import Parts
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime import sharding
from musilingo_jax.runtime.errors import UserError


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
    llama = weights.load_language_model(
        tmp_path / "theirs", dtype="float32", quantization="", mesh=None
    )
    weights.save_language_model(llama, tmp_path / "ours", dtype="float32")
    again = from_pretrained(transformers.LlamaForCausalLM, tmp_path / "ours")
    assert_same_state(again, theirs)
    assert again.config.rope_parameters == theirs.config.rope_parameters
    tokens = torch.arange(12).reshape(2, 6)
    torch.testing.assert_close(again(tokens).logits, theirs(tokens).logits)
    mesh = sharding.make_mesh(2, 2, 2)
    spread = weights.load_language_model(
        tmp_path / "ours", dtype="float32", quantization="", mesh=mesh
    )
    assert_equal(spread, llama)


def test_models_stored_in_half_precision_are_read_by_transformers(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "theirs")
    llama = weights.load_language_model(
        tmp_path / "theirs", dtype="float32", quantization="", mesh=None
    )
    weights.save_language_model(llama, tmp_path / "ours", dtype="float16")
    again = from_pretrained(transformers.LlamaForCausalLM, tmp_path / "ours")
    assert again.dtype == torch.float16
    assert_same_state(again, tiny_llama().half())


def test_a_tied_head_that_is_stored_all_the_same_is_no_mistake(tmp_path):
    tiny_llama(tie_word_embeddings=True).save_pretrained(tmp_path)
    table = "model.embed_tokens.weight"
    rewrite(tmp_path, lambda s: s.__setitem__("lm_head.weight", s[table]))
    llama = weights.load_language_model(
        tmp_path, dtype="float32", quantization="", mesh=None
    )
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
    adapter = Parts(bridge=LinearBridge(6, 4, rngs=nnx.Rngs(0)))
    weights.save_adapter(
        adapter, tmp_path, dtype="float32", window_frames=108, trained_with=None
    )
    for mesh in (None, sharding.make_mesh(2, 2, 2)):
        assert_equal(weights.load_adapter(tmp_path, mesh=mesh), adapter)
    assert set(load_file(tmp_path / "model.safetensors")) == {
        "llama_proj.weight",
        "llama_proj.bias",
    }
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["window_frames"] == 108
    del config["encoder_width"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="needs encoder_width"):
        weights.load_adapter(tmp_path, mesh=None)


@pytest.mark.parametrize(
    "loader",
    [
        lambda folder: weights.load_encoder(folder, dtype="float32", mesh=None),
        lambda folder: weights.load_language_model(
            folder, dtype="float32", quantization="", mesh=None
        ),
        lambda folder: weights.load_adapter(folder, mesh=None),
    ],
)
def test_folders_that_hold_no_model_are_refused(tmp_path, loader):
    with pytest.raises(UserError, match="there is no such folder"):
        loader(tmp_path / "nothing")
    with pytest.raises(
        UserError, match=r"not a model folder, because it has no config\.json"
    ):
        loader(tmp_path)
