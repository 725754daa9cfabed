"""Shapes of released models by name, for planning without a network.

A plan needs only shapes. Those of released models are written down here, so that a name
is enough; for any other model, its `config.json` is read.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from ml_collections import ConfigDict

from musilingo_jax.models.llama_config import Llama3Scaling, LlamaConfig
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.pretrained import model_config, sources, weights
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json

_LLAMA_7B = LlamaConfig(
    vocab=32_000,
    width=4096,
    depth=32,
    heads=32,
    key_heads=32,
    head_dim=128,
    mlp_width=11_008,
    norm_eps=1e-6,
    rope_theta=10_000.0,
    rope_scaling=None,
    tied=False,
)
_LLAMA_13B = replace(
    _LLAMA_7B, width=5120, depth=40, heads=40, key_heads=40, mlp_width=13_824
)
# Vicuna v0 adds a padding token. LLaMA 2, and so Vicuna v1.5, has another epsilon.
_VICUNA_7B, _VICUNA_13B = (replace(c, vocab=32_001) for c in (_LLAMA_7B, _LLAMA_13B))
_LLAMA_2_7B, _LLAMA_2_13B = (replace(c, norm_eps=1e-5) for c in (_LLAMA_7B, _LLAMA_13B))

_LLAMA_3_8B = replace(
    _LLAMA_2_7B, vocab=128_256, key_heads=8, mlp_width=14_336, rope_theta=500_000.0
)
_LLAMA_3_70B = replace(_LLAMA_3_8B, width=8192, depth=80, heads=64, mlp_width=28_672)
_LLAMA_3_1 = Llama3Scaling(8.0, 1.0, 4.0, 8192)
_MISTRAL_7B = replace(
    _LLAMA_2_7B, family="mistral", key_heads=8, mlp_width=14_336, windows=(4096,) * 32
)
_QWEN_2_5_7B = replace(
    _LLAMA_7B,
    family="qwen2",
    biases=("query", "key", "value"),
    vocab=152_064,
    width=3584,
    depth=28,
    heads=28,
    key_heads=4,
    mlp_width=18_944,
    rope_theta=1e6,
)
_QWEN_3_8B = replace(
    _LLAMA_7B,
    family="qwen3",
    query_key_norm=True,
    vocab=151_936,
    depth=36,
    key_heads=8,
    mlp_width=12_288,
    rope_theta=1e6,
)
_SMOLLM_2_135M = replace(
    _LLAMA_2_7B,
    vocab=49_152,
    width=576,
    depth=30,
    heads=9,
    key_heads=3,
    head_dim=64,
    mlp_width=1536,
    rope_theta=100_000.0,
    tied=True,
)
_SMOLLM_3_3B = replace(
    _LLAMA_7B,
    family="smollm3",
    vocab=128_256,
    width=2048,
    depth=36,
    heads=16,
    key_heads=4,
    rope_theta=5e6,
    tied=True,
    unrotated=tuple(range(3, 36, 4)),
)

LANGUAGE_MODELS = {
    "mu-llama/MU-LLaMA": _LLAMA_2_7B,
    "m-a-p/MusiLingo-long-v1": _VICUNA_7B,
    "m-a-p/MusiLingo-short-v1": _VICUNA_7B,
    "m-a-p/MusiLingo-musicqa-v1": _VICUNA_7B,
    "lmsys/vicuna-7b-delta-v0": _VICUNA_7B,
    "lmsys/vicuna-13b-delta-v0": _VICUNA_13B,
    "lmsys/vicuna-7b-v1.5": _LLAMA_2_7B,
    "lmsys/vicuna-13b-v1.5": _LLAMA_2_13B,
    "huggyllama/llama-7b": _LLAMA_7B,
    "huggyllama/llama-13b": _LLAMA_13B,
    "meta-llama/Llama-2-7b-hf": _LLAMA_2_7B,
    "meta-llama/Llama-2-7b-chat-hf": _LLAMA_2_7B,
    "meta-llama/Llama-2-13b-hf": _LLAMA_2_13B,
    "meta-llama/Llama-2-13b-chat-hf": _LLAMA_2_13B,
    "meta-llama/Meta-Llama-3-8B-Instruct": _LLAMA_3_8B,
    "meta-llama/Meta-Llama-3-70B-Instruct": _LLAMA_3_70B,
    "meta-llama/Llama-3.1-8B-Instruct": replace(_LLAMA_3_8B, rope_scaling=_LLAMA_3_1),
    "meta-llama/Llama-3.1-70B-Instruct": replace(_LLAMA_3_70B, rope_scaling=_LLAMA_3_1),
    "mistralai/Mistral-7B-v0.1": _MISTRAL_7B,
    "Qwen/Qwen2.5-7B-Instruct": _QWEN_2_5_7B,
    "Qwen/Qwen3-8B": _QWEN_3_8B,
    "HuggingFaceTB/SmolLM2-135M-Instruct": _SMOLLM_2_135M,
    "HuggingFaceTB/SmolLM3-3B": _SMOLLM_3_3B,
}

# HuBERT's base and large size (Hsu et al. 2021, table 1), at 24 kHz.
_MERT_95M = MertConfig(
    model_type="mert_model",
    sample_rate=24_000,
    do_normalize=True,
    conv_dim=(512,) * 7,
    conv_kernel=(10, 3, 3, 3, 3, 2, 2),
    conv_stride=(5, 2, 2, 2, 2, 2, 2),
    conv_bias=False,
    feat_extract_norm="group",
    feat_proj_layer_norm=True,
    feature_extractor_cqt=False,
    feature_extractor_cqt_bins=336,
    num_conv_pos_embeddings=128,
    num_conv_pos_embedding_groups=16,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    do_stable_layer_norm=False,
    layer_norm_eps=1e-5,
)
_MERT_330M = replace(
    _MERT_95M,
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=4096,
    do_stable_layer_norm=True,
)

ENCODERS = {
    "mu-llama/MU-LLaMA": _MERT_330M,
    "m-a-p/MusiLingo-long-v1": _MERT_330M,
    "m-a-p/MusiLingo-short-v1": _MERT_330M,
    "m-a-p/MusiLingo-musicqa-v1": _MERT_330M,
    "m-a-p/MERT-v1-330M": _MERT_330M,
    "m-a-p/MERT-v1-95M": _MERT_95M,
}


@dataclass(frozen=True)
class Shapes:
    """What a plan needs to know about a language model and what it hears.

    Attributes:
      language_model: its configuration.
      encoder_width: of a feature vector.
      source: where these come from, for people.
      encoder_states: hidden states of the encoder, its depth + 1; 0 if only the width
        is known.
    """

    language_model: LlamaConfig
    encoder_width: int
    source: str
    encoder_states: int = 0

    def heading(self, weights: str) -> str:
        """A line for people, with the type of the weights."""
        llama = self.language_model
        return (
            f"  language model    {llama.depth} layers × {llama.width}, {weights} "
            f"({self.source})"
        )


def shapes(
    config: ConfigDict, *, language_model_config: str, encoder_width: int
) -> Shapes:
    """Shapes of the models of a config, by their names or from their files.

    Args:
      config: the experiment.
      language_model_config: a `config.json`, or a name in `LANGUAGE_MODELS`, that
        replaces the config's language model; "" for the config's.
      encoder_width: replaces the encoder's width; 0 for the encoder's.

    Raises:
      UserError: a model is not known by name, and its files are not on this machine.
    """
    if language_model_config:
        llama, source = _given(language_model_config)
    else:
        llama, source = _language_model(model_config.named(config, "language_model"))
    states = 0
    if not encoder_width:
        mert, _ = encoder(model_config.named(config, "encoder"))
        encoder_width, states = mert.hidden_size, mert.num_hidden_layers + 1
    return Shapes(llama, encoder_width, source, states)


def _given(named: str) -> tuple[LlamaConfig, str]:
    """What --language_model_config names, and a description of it."""
    if Path(named).is_file():
        try:
            return LlamaConfig.from_dict(read_json(Path(named))), named
        except UserError as error:
            raise UserError(f"{named}: {error}") from error
    if named in LANGUAGE_MODELS:
        return LANGUAGE_MODELS[named], f"shapes of {named}, known by name"
    raise UserError(
        f"--language_model_config={named}: this is neither a file nor one of the known "
        f"names: {', '.join(LANGUAGE_MODELS)}"
    )


def _language_model(source: str) -> tuple[LlamaConfig, str]:
    """The language model of the config, and where its shapes come from."""
    known = LANGUAGE_MODELS.get(source.partition("@")[0])
    if known and not Path(source).is_dir():
        return known, f"shapes of {source}, known by name"
    try:
        part = sources.find(source, "language_model", weights=False)
    except UserError as error:
        raise UserError(
            f"the shapes of config.model.language_model = {source!r} are not known by "
            f"name, and its files cannot be read ({error}); give its config.json, or "
            "the name of a model with the same shapes, with --language_model_config"
        ) from error
    return weights.blueprint(part).module.config, f"config.json of {source}"


def encoder(source: str) -> tuple[MertConfig, str]:
    """The encoder of a config, by its name or from its files, and where it comes from.

    Raises:
      UserError: it is not known by name, and its files are not on this machine.
    """
    known = ENCODERS.get(source.partition("@")[0])
    if known and not Path(source).is_dir():
        return known, f"shapes of {source}, known by name"
    try:
        part = sources.find(source, "encoder", weights=False)
    except UserError as error:
        raise UserError(
            f"the shapes of config.model.encoder = {source!r} are not known by name, "
            f"and its files cannot be read ({error}); to plan what only reads "
            "features, give their width with --encoder_width"
        ) from error
    config = weights.blueprint(part).module.config
    if not isinstance(config, MertConfig):
        raise UserError(
            f"{source}: has stored frames, which nothing encodes; to plan what only "
            f"reads features, give --encoder_width={config.hidden_size}"
        )
    return config, f"config.json of {source}"
