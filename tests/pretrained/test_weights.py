"""Folders of models: ours and transformers' read each other's; bad ones are refused."""

import dataclasses
import json
import types
from pathlib import Path

import pytest
import torch
import transformers
from flax import nnx
from helpers import released_configs
from helpers.stored_weights import assert_equal, rewrite
from safetensors.numpy import load_file

from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime import sharding
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import describe, setting

VERSION_0_1 = Path(__file__).parents[1] / "data" / "version_0_1"


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
    adapter = Adapter(6, 4, rngs=nnx.Rngs(0))
    weights.save_adapter(adapter, tmp_path, dtype="float32", window_frames=108)
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


def test_digest_is_that_of_what_is_computed(tmp_path):
    """Not of how, when and where it is stored; of bfloat16 as of other types."""
    theirs = tiny_llama()
    theirs.bfloat16().save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="2KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    digest = weights.digest(tmp_path / "whole", "language_model")
    assert weights.digest(tmp_path / "shards", "language_model") == digest
    (tmp_path / "whole" / "README.md").write_text("beside the point")
    assert weights.digest(tmp_path / "whole", "language_model") == digest
    rewrite(tmp_path / "whole", lambda s: s["model.norm.weight"].__imul__(2))
    assert weights.digest(tmp_path / "whole", "language_model") != digest
    config = json.loads((tmp_path / "shards" / "config.json").read_text())
    config["rms_norm_eps"] = 1e-5
    (tmp_path / "shards" / "config.json").write_text(json.dumps(config))
    assert weights.digest(tmp_path / "shards", "language_model") != digest


def test_digests_stay_what_they_were():
    """Caches and runs are recognised by them; these are of version 0.1."""
    expected = {
        ("musilingo-tiny", "encoder"): (
            "7de72342a2fc248aed4df8780cfba711a5f9816509396c27008f0879f6b39c61"
        ),
        ("musilingo-tiny", "language_model"): (
            "18747911ffd1882e539611a54fff0a0434254537a9220cb74ddb6c83136fb001"
        ),
        ("musilingo-tiny", "adapter"): (
            "53e6e75238f6cdd13dab50be6241f7bf9d0fca047d2bf17cdf5971015c5c92ac"
        ),
        (VERSION_0_1 / "encoder", "encoder"): (
            "c05d5722bc665921237d047138fb0e65a821bf5b4fe4ee962ce753d321e9830d"
        ),
        (VERSION_0_1 / "language_model", "language_model"): (
            "4dc13fdf18b6c52fa9010359d525ae90bda2466cc799dabfbe3410ef023d3d97"
        ),
    }
    found = {part: weights.digest(*part) for part in expected}
    assert found == expected


RELEASED = {
    name: config for name, config in vars(released_configs).items() if name.isupper()
}


def settings_of(config):
    kind = MertConfig if "conv_dim" in config else LlamaConfig
    return kind.from_dict(config)


@pytest.mark.parametrize("name", [n for n, c in RELEASED.items() if "model_type" in c])
def test_released_configs_are_described_as_ever(name):
    settings = settings_of(RELEASED[name])
    assert describe(settings, weights._CONFIG_NAMES) == repr(settings)


def test_a_digest_does_not_depend_on_names_and_later_fields(tmp_path, monkeypatch):
    """A class may be renamed, and get fields that old configs did without."""
    source = VERSION_0_1 / "language_model"
    before = weights.digest(source, "language_model")
    blueprint = weights.blueprint

    def renamed(part):
        found = blueprint(part)
        fields = dataclasses.fields(found.module.config)
        values = {f.name: getattr(found.module.config, f.name) for f in fields}
        decoder = dataclasses.make_dataclass(
            "DecoderConfig",
            [
                *((field.name, field.type) for field in fields),
                ("qk_norm", bool, setting(before=False)),
            ],
            frozen=True,
        )
        config = decoder(**values, qk_norm=qk_norm)
        monkeypatch.setitem(weights._CONFIG_NAMES, decoder, "LlamaConfig")
        return found._replace(module=types.SimpleNamespace(config=config))

    monkeypatch.setattr(weights, "blueprint", renamed)
    qk_norm = False
    assert weights.digest(source, "language_model") == before
    qk_norm = True
    assert weights.digest(source, "language_model") != before
