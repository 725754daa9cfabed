"""The families of decoders that `Llama` computes: what their `config.json` may say.

Each is a LLaMA with a few differences, which become fields of `LlamaConfig`:

    model_type   biases              norm of q, k   windows       not rotated
    llama        all or none                        none
    mistral      none                               all layers
    qwen2        query, key, value                  some layers
    qwen3        attention or none   yes            some layers
    smollm3      all or none                        some layers   every 4th layer

(Touvron et al. 2023; Jiang et al. 2023, "Mistral 7B"; Yang et al. 2024, "Qwen2"; Yang
et al. 2025, "Qwen3"; Bakouch et al. 2025, "SmolLM3".)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from musilingo_jax.models.released_config import AttributeGuard
from musilingo_jax.runtime.errors import UserError

ATTENTION = ("query", "key", "value", "out")
MLP = ("gate", "up", "down")

_USED = """
    vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim rms_norm_eps rope_theta rope_scaling rope_parameters
    tie_word_embeddings model_type
"""
_FIXED = {
    "hidden_act": "silu",
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "pruned_heads": {},
    "partial_rotary_factor": 1.0,
    "rope_interleaved": False,
    "quantization_config": None,
}
_IGNORED = {
    "provenance of the file": """
        transformers.js_config is_llama_config unsloth_fixed unsloth_version
    """,
    "limits that no formula uses; a product in slices is the same product": """
        max_position_embeddings max_sequence_length pretraining_tp
    """,
    "how the other library runs": """
        _flash_attn_2_enabled chunk_size_feed_forward is_decoder
    """,
    "its text generation": "max_new_tokens min_p",
}


def _guard(used: str = "", **fixed: Any) -> AttributeGuard:
    """A guard that knows what all families have, and `used`."""
    return AttributeGuard(
        used=_USED + used, fixed=_FIXED | fixed, ignored=_IGNORED, null_is_unset=True
    )


@dataclass(frozen=True)
class Family:
    """What a family has besides the attributes of LLaMA-1.

    Attributes:
      architecture: the class of the transformers library.
      guard: the attributes that its `config.json` may have.
      required: those that it must have, since their defaults differ between families.
      biases: linear maps that always have a bias.
      query_key_norm: whether each head of queries and keys is normed.
      tied: whether the head is the transposed embedding where a file does not say.
    """

    architecture: str
    guard: AttributeGuard
    required: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()
    query_key_norm: bool = False
    tied: bool = False


_WINDOWS = "use_sliding_window sliding_window max_window_layers layer_types"
_REQUIRED = ("num_key_value_heads",)
FAMILIES: dict[str, Family] = {
    "llama": Family(
        "LlamaForCausalLM",
        _guard("attention_bias mlp_bias", sliding_window=None, layer_types=None),
    ),
    "mistral": Family(
        "MistralForCausalLM",
        _guard(
            "sliding_window", attention_bias=False, mlp_bias=False, layer_types=None
        ),
        required=_REQUIRED,
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        _guard(_WINDOWS, mlp_bias=False, use_mrope=False),
        required=_REQUIRED,
        biases=("query", "key", "value"),
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        _guard(_WINDOWS + " attention_bias", mlp_bias=False),
        required=(*_REQUIRED, "head_dim"),
        query_key_norm=True,
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        _guard(
            _WINDOWS + " attention_bias mlp_bias no_rope_layers no_rope_layer_interval"
        ),
        required=_REQUIRED,
        # Version 4 of the library leaves out what is usual for all of its models.
        tied=True,
    ),
}
"""`model_type` → the family. Files without one are LLaMAs."""


def family_of(config_json: Mapping[str, Any]) -> Family:
    """The family of a `config.json`, all of whose attributes are accounted for.

    Raises:
      UserError: the family is unknown, or an attribute is unknown, missing, or has a
        value that is not implemented.
    """
    kind = config_json.get("model_type", "llama")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UserError(
            f"config.json: model_type is {kind!r}, but only {', '.join(FAMILIES)} are "
            "implemented"
        )
    family = FAMILIES[kind]
    family.guard.check(config_json)
    if missing := [name for name in family.required if name not in config_json]:
        raise UserError(
            f"config.json: {', '.join(missing)} is missing, of which a {kind} has no "
            "usual value; get the file from the model's source"
        )
    return family


def biases(config_json: Mapping[str, Any], family: Family) -> tuple[str, ...]:
    """The linear maps of a layer that have a bias."""
    found = list(family.biases)
    if _flag(config_json, "attention_bias"):
        found += [name for name in ATTENTION if name not in found]
    return (*found, *(MLP if _flag(config_json, "mlp_bias") else ()))


def tied(config_json: Mapping[str, Any]) -> Any:
    """`tie_word_embeddings`, or what it is in the family where a file does not say."""
    kind = config_json.get("model_type", "llama")
    usual = isinstance(kind, str) and kind in FAMILIES and FAMILIES[kind].tied
    return config_json.get("tie_word_embeddings", usual)


def windows(config_json: Mapping[str, Any], depth: int) -> tuple[int, ...]:
    """How far each layer attends back, itself included; 0 = to the beginning.

    () if all layers attend to the beginning.

    Raises:
      UserError: the attributes contradict each other.
    """
    kind = config_json.get("model_type", "llama")
    if kind == "mistral":
        window = _window(config_json)
        return (window,) * depth if window else ()
    if not _flag(config_json, "use_sliding_window"):
        _check_types(config_json, ("full_attention",) * depth)
        return ()
    window = _window(config_json)
    if not window:
        raise UserError(
            "config.json: use_sliding_window is true, but sliding_window is not given"
        )
    types = config_json.get("layer_types")
    if types is None:
        if kind == "smollm3":
            rotated = _rotated(config_json, depth)
            sliding = [not turned for turned in rotated]
        else:
            first = _whole(config_json, "max_window_layers", least=0)
            sliding = [layer >= first for layer in range(depth)]
        types = ["sliding_attention" if one else "full_attention" for one in sliding]
    _check_types(config_json, tuple(types))
    found = tuple(window if one == "sliding_attention" else 0 for one in types)
    return found if len(found) == depth and any(found) else ()


def unrotated(config_json: Mapping[str, Any], depth: int) -> tuple[int, ...]:
    """The layers whose queries and keys are not turned by their positions."""
    if config_json.get("model_type") != "smollm3":
        return ()
    rotated = _rotated(config_json, depth)
    return tuple(layer for layer, turned in enumerate(rotated) if not turned)


def _rotated(config_json: Mapping[str, Any], depth: int) -> list[int]:
    flags = config_json.get("no_rope_layers")
    if flags is None and "no_rope_layer_interval" in config_json:
        every = _whole(config_json, "no_rope_layer_interval")
        return [int((layer + 1) % every != 0) for layer in range(depth)]
    # In spite of its name, 1 is with rotation.
    if (
        not isinstance(flags, list)
        or len(flags) != depth
        or not all(flag in (0, 1) for flag in flags)
    ):
        raise UserError(
            f"config.json: no_rope_layers must be a list of {depth} numbers, one for "
            "each layer, 1 for a layer with rotary angles and 0 for one without"
        )
    return flags


def _check_types(config_json: Mapping[str, Any], types: tuple[Any, ...]) -> None:
    """Checks `layer_types`, if there are any, against what the other keys say.

    Raises:
      UserError: it says something else, or is not one type for each layer.
    """
    said = config_json.get("layer_types")
    depth = config_json["num_hidden_layers"]
    known = ("full_attention", "sliding_attention")
    if said is None:
        return
    if (
        not isinstance(said, list)
        or len(said) != depth
        or not all(one in known for one in said)
    ):
        raise UserError(
            f"config.json: layer_types must be a list of {depth} types, each of them "
            f"{' or '.join(known)}"
        )
    if tuple(said) != types:
        raise UserError(
            "config.json: layer_types and use_sliding_window contradict each other"
        )


def _window(config_json: Mapping[str, Any]) -> int:
    """The number of positions in a window; 0 if there is no window."""
    return (
        0
        if config_json.get("sliding_window") is None
        else _whole(config_json, "sliding_window")
    )


def _whole(config_json: Mapping[str, Any], name: str, *, least: int = 1) -> int:
    value = config_json.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(
            f"config.json: {name} is {value!r}: it must be a whole number of at least "
            f"{least}"
        )
    return value


def _flag(config_json: Mapping[str, Any], name: str) -> bool:
    value = config_json.get(name)
    if not isinstance(value, bool | None):
        raise UserError(f"config.json: {name} is {value!r}: it must be true or false")
    return bool(value)
