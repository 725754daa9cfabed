"""Shapes of released models by name, for planning without a network.

A plan needs only shapes. Those of released models are written down here, so that a name
is enough; for any other model, its `config.json` is read.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from ml_collections import ConfigDict

from musilingo_jax.models.llama_config import LlamaConfig
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

LANGUAGE_MODELS = {
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
    "meta-llama/Llama-2-13b-hf": _LLAMA_2_13B,
}
ENCODER_WIDTHS = {
    "m-a-p/MusiLingo-long-v1": 1024,
    "m-a-p/MusiLingo-short-v1": 1024,
    "m-a-p/MusiLingo-musicqa-v1": 1024,
    "m-a-p/MERT-v1-330M": 1024,
    "m-a-p/MERT-v1-95M": 768,
}


@dataclass(frozen=True)
class Shapes:
    """What a plan needs to know about the models.

    Attributes:
      language_model: its configuration.
      encoder_width: of a feature vector.
      source: where these come from, for people.
    """

    language_model: LlamaConfig
    encoder_width: int
    source: str


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
    if not encoder_width:
        encoder_width = _encoder_width(model_config.named(config, "encoder"))
    return Shapes(llama, encoder_width, source)


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


def _encoder_width(source: str) -> int:
    known = ENCODER_WIDTHS.get(source.partition("@")[0])
    if known and not Path(source).is_dir():
        return known
    try:
        part = sources.find(source, "encoder", weights=False)
    except UserError as error:
        raise UserError(
            f"the width of config.model.encoder = {source!r} is not known by name, and "
            f"its files cannot be read ({error}); give the width with --encoder_width"
        ) from error
    return weights.blueprint(part).module.config.hidden_size
