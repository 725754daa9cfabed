"""A part is recognised by its digest: today's, that of old versions, and any later."""

import dataclasses
import hashlib
import json
import types
from pathlib import Path

import pytest
from helpers import released_configs
from helpers.stored_weights import rewrite
from helpers.transformers_models import tiny_llama

from musilingo_jax.pretrained import weights
from musilingo_jax.runtime.settings import describe, setting

VERSION_0_1 = Path(__file__).parents[1] / "data" / "version_0_1"
# As caches and runs have them, the first ones since version 0.1.
DIGESTS = {
    ("musilingo-tiny-1", "encoder"): (
        "7de72342a2fc248aed4df8780cfba711a5f9816509396c27008f0879f6b39c61"
    ),
    ("musilingo-tiny-1", "language_model"): (
        "18747911ffd1882e539611a54fff0a0434254537a9220cb74ddb6c83136fb001"
    ),
    ("musilingo-tiny-1", "adapter"): (
        "53e6e75238f6cdd13dab50be6241f7bf9d0fca047d2bf17cdf5971015c5c92ac"
    ),
    ("musilingo-tiny-2", "encoder"): (
        "2960fc7041b02d2ad38fa7528e3a0cbb881469120f1dc85b8592bef29dd4d31d"
    ),
    ("musilingo-tiny-2", "language_model"): (
        "c70c26aeea9875c32cc74b1007464fd6297da36ef89721718225a06b6cb472fd"
    ),
    ("musilingo-tiny-2", "adapter"): (
        "f0c55be6734fab9bf64fadfefdebadd7855c0b88fd908cf52802d671afaeb3b5"
    ),
    ("musilingo-tiny-3", "encoder"): (
        "37eddffaf801b6514f04df09092adb367541f6ada2c48116ed6e1e1dda8c08c3"
    ),
    ("musilingo-tiny-3", "language_model"): (
        "c70c26aeea9875c32cc74b1007464fd6297da36ef89721718225a06b6cb472fd"
    ),
    ("musilingo-tiny-3", "adapter"): (
        "58a8ef99c62bc522d70cc6b36afb531c0ce08effafa44e41ac97597469b4185c"
    ),
    ("musilingo-tiny-5", "encoder"): (
        "b0bbc335b5197fb49bd2373108d20b21d8bbdb89148dac9bc5621c76bf9f4aab"
    ),
    ("musilingo-tiny-5", "language_model"): (
        "c70c26aeea9875c32cc74b1007464fd6297da36ef89721718225a06b6cb472fd"
    ),
    ("musilingo-tiny-5", "adapter"): (
        "b4750895f7a0690e67ad15335d444d1580b275adb5a85bbf510a98f9384d09d2"
    ),
    (VERSION_0_1 / "encoder", "encoder"): (
        "c05d5722bc665921237d047138fb0e65a821bf5b4fe4ee962ce753d321e9830d"
    ),
    (VERSION_0_1 / "language_model", "language_model"): (
        "4dc13fdf18b6c52fa9010359d525ae90bda2466cc799dabfbe3410ef023d3d97"
    ),
}
# The beginning of the sha256 of what describes the config of a released model.
DESCRIBED = {
    "MERT_95M": "f301efb7146ddaee",
    "MERT_330M": "4944b23ea35a0269",
    "LLAMA_1_7B": "d2dc65781633d77a",
    "VICUNA_7B_V0": "d2e8d62e34b025b0",
    "VICUNA_13B_V0": "3ac13eaaad1541b5",
    "LLAMA_2_7B": "c68324ebd5244a30",
    "LLAMA_2_13B": "ba152a660b61842a",
    "LLAMA_2_70B": "ba96dc0f067822f3",
    "VICUNA_7B_V1_5": "c68324ebd5244a30",
    "VICUNA_7B_V1_5_16K": "14235493ec568359",
    "CODE_LLAMA_7B": "39cb3e87494e2939",
    "LLAMA_3_8B": "eb2d562161c0ae98",
    "LLAMA_3_70B": "e375f82f385061f9",
    "LLAMA_3_1_8B": "257f5a9182d2f9d4",
    "LLAMA_3_2_1B": "624f3a509e59acb1",
    "LLAMA_3_2_1B_COPY": "624f3a509e59acb1",
    "LLAMA_3_2_3B": "efdf4192454e705a",
}


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


@pytest.mark.parametrize(("source", "kind"), DIGESTS)
def test_digests_stay_what_they_were(source, kind):
    assert weights.digest(source, kind) == DIGESTS[source, kind]


def described(name):
    config = getattr(released_configs, name)
    blueprint = (
        weights.encoder_blueprint
        if "conv_dim" in config
        else weights.language_model_blueprint
    )
    return describe(blueprint(config).module.config, weights._CONFIG_NAMES)


def test_every_released_config_is_described():
    released = {name for name in vars(released_configs) if name.isupper()}
    assert released - {"WIDTHS_13B", "WIDTHS_70B"} == set(DESCRIBED)


@pytest.mark.parametrize("name", DESCRIBED)
def test_descriptions_stay_what_they_were(name):
    text = described(name).encode()
    assert hashlib.sha256(text).hexdigest()[:16] == DESCRIBED[name]


def test_a_description_names_classes_as_version_0_1_did():
    assert described("LLAMA_3_1_8B") == (
        "LlamaConfig(vocab=128256, width=4096, depth=32, heads=32, key_heads=8, "
        "head_dim=128, mlp_width=14336, norm_eps=1e-05, rope_theta=500000.0, "
        "rope_scaling=Llama3Scaling(factor=8.0, low_freq_factor=1.0, "
        "high_freq_factor=4.0, original_max_position_embeddings=8192), tied=False)"
    )
    assert "rope_scaling=LinearScaling(factor=4.0)" in described("VICUNA_7B_V1_5_16K")


@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_digest_does_not_depend_on_names_and_later_fields(monkeypatch, qk_norm):
    """A class may be renamed, and get a field that old configs did without."""
    blueprint = weights.blueprint

    def later(part):
        """As in a later version, whose models may norm queries and keys."""
        config = blueprint(part).module.config
        fields = dataclasses.fields(config)
        decoder = dataclasses.make_dataclass(
            "DecoderConfig",
            [
                *(
                    (one.name, one.type, dataclasses.field(metadata=one.metadata))
                    for one in fields
                ),
                ("qk_norm", bool, setting(before=False)),
            ],
        )
        monkeypatch.setitem(weights._CONFIG_NAMES, decoder, "LlamaConfig")
        values = {field.name: getattr(config, field.name) for field in fields}
        module = types.SimpleNamespace(config=decoder(**values, qk_norm=qk_norm))
        return blueprint(part)._replace(module=module)

    monkeypatch.setattr(weights, "blueprint", later)
    part = VERSION_0_1 / "language_model", "language_model"
    assert (weights.digest(*part) == DIGESTS[part]) == (not qk_norm)
