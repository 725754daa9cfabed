"""The numbers that make a LLaMA, read from the released `config.json`, and guarded.

A released file says more than a model needs, and next year's will say something new.
So every attribute is either used, ignored by name, or known to have the one value that
we compute; for anything else we refuse to guess.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from musilingo_jax.runtime.errors import UserError

_USED = """
    vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim rms_norm_eps rope_theta rope_scaling rope_parameters
    tie_word_embeddings
"""

_FIXED = {
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "pruned_heads": {},
    "partial_rotary_factor": 1.0,
    "rope_interleaved": False,
    "sliding_window": None,
    "layer_types": None,
    "quantization_config": None,
}
"""Attributes that would change the arithmetic, with the one value that we compute."""

_IGNORED = {
    "where the file comes from, and in which type it was stored": """
        architectures _name_or_path name_or_path _commit_hash transformers_version
        transformers.js_config auto_map is_llama_config torch_dtype dtype use_bfloat16
        torchscript unsloth_fixed unsloth_version
    """,
    "special tokens, which the tokenizer knows": """
        bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id
        tokenizer_class prefix
    """,
    "training of the language model, which the other library did": """
        initializer_range attention_dropout gradient_checkpointing
    """,
    "advice: angles have no end, and a product in slices is the same product": """
        max_position_embeddings max_sequence_length pretraining_tp
    """,
    "how the other library runs, and what it returns": """
        use_cache attn_implementation _attn_implementation _attn_implementation_autoset
        _flash_attn_2_enabled return_dict use_return_dict output_hidden_states
        output_attentions chunk_size_feed_forward is_decoder tie_encoder_decoder
        tf_legacy_loss
    """,
    "its classifiers": """
        id2label label2id num_labels problem_type finetuning_task task_specific_params
    """,
    "its decoding: ours is told by our own configuration": """
        max_length min_length max_new_tokens do_sample early_stopping num_beams
        num_beam_groups diversity_penalty temperature top_k top_p min_p typical_p
        repetition_penalty length_penalty no_repeat_ngram_size
        encoder_no_repeat_ngram_size bad_words_ids num_return_sequences
        forced_bos_token_id forced_eos_token_id remove_invalid_values
        exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
        output_scores return_dict_in_generate
    """,
}
"""Attributes that change nothing here, by the reason why."""


@dataclass(frozen=True)
class LinearScaling:
    """Rotary angles of positions `factor` times closer (Chen et al. 2023)."""

    factor: float

    def __call__(self, frequencies: np.ndarray) -> np.ndarray:
        return frequencies / self.factor


@dataclass(frozen=True)
class Llama3Scaling:
    """Slows down only what turns too slowly to have closed a circle in pretraining.

    By how often a frequency turned within the `original_max_position_embeddings`
    positions of the pretraining:

        turns      0 ………… low_freq_factor ………… high_freq_factor ………… ∞
        divisor      factor               blend                 1
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def __call__(self, frequencies: np.ndarray) -> np.ndarray:
        turns = self.original_max_position_embeddings * frequencies / (2 * np.pi)
        span = self.high_freq_factor - self.low_freq_factor
        kept = np.clip((turns - self.low_freq_factor) / span, 0.0, 1.0)
        return kept * frequencies + (1 - kept) * frequencies / self.factor


_MOST_LAYERS = 1_000  # A file that says more is damaged.
_SCALINGS = {"linear": LinearScaling, "llama3": Llama3Scaling}


@dataclass(frozen=True)
class LlamaConfig:
    """The numbers that make a LLaMA; hashable, so that it can be static under `jit`.

    Attributes:
      vocab: rows of the embedding.
      width: of the residual stream.
      depth: layers.
      heads: query heads.
      key_heads: key and value heads; a divisor of `heads`.
      head_dim: width of a head.
      mlp_width: width inside the gated mlp.
      norm_eps: added to the mean square by every norm.
      rope_theta: base of the rotary frequencies.
      rope_scaling: how they are slowed down, if at all.
      tied: the head is the transposed embedding.
    """

    vocab: int
    width: int
    depth: int
    heads: int
    key_heads: int
    head_dim: int
    mlp_width: int
    norm_eps: float
    rope_theta: float
    rope_scaling: LinearScaling | Llama3Scaling | None
    tied: bool

    @classmethod
    def from_dict(cls, config_json: dict[str, Any]) -> "LlamaConfig":
        """Reads a released `config.json`, old or new, and refuses what it cannot do.

        What a file may leave out is what the format did not have when LLaMA-1 was
        released: `num_key_value_heads`, `head_dim`, `rope_theta` (then 10,000), and
        `tie_word_embeddings` (then false).

        Raises:
          UserError: an attribute is unknown, missing or of a value not supported.
        """
        _guard(config_json)
        width = _positive(config_json, "hidden_size", int)
        heads = _positive(config_json, "num_attention_heads", int)
        depth = _positive(config_json, "num_hidden_layers", int)
        if depth > _MOST_LAYERS:
            raise _refusal(f"num_hidden_layers = {depth} is more than any model has")
        late = {"num_key_value_heads": heads, "head_dim": width // heads}
        late |= {k: v for k, v in config_json.items() if k in late and v is not None}
        key_heads = _positive(late, "num_key_value_heads", int)
        head_dim = _positive(late, "head_dim", int)
        if heads % key_heads:
            raise _refusal(
                f"num_attention_heads = {heads} is not a multiple of "
                f"num_key_value_heads = {key_heads}"
            )
        if head_dim % 2:
            raise _refusal(f"head_dim = {head_dim} is odd; rotary angles turn pairs")
        tied = config_json.get("tie_word_embeddings", False)
        if not isinstance(tied, bool):
            raise _refusal(f"tie_word_embeddings = {tied!r} is neither true nor false")
        theta, scaling = _rope(config_json)
        return cls(
            vocab=_positive(config_json, "vocab_size", int),
            width=width,
            depth=depth,
            heads=heads,
            key_heads=key_heads,
            head_dim=head_dim,
            mlp_width=_positive(config_json, "intermediate_size", int),
            norm_eps=_positive(config_json, "rms_norm_eps", float),
            rope_theta=theta,
            rope_scaling=scaling,
            tied=tied,
        )

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` of this model: `from_dict(to_dict())` is the same again.

        The rotary numbers are written in both spellings, so that old and new versions
        of transformers read the same angles.
        """
        if self.rope_scaling is None:
            scaling = None
        else:
            kind = {c: k for k, c in _SCALINGS.items()}[type(self.rope_scaling)]
            scaling = {"rope_type": kind} | dataclasses.asdict(self.rope_scaling)
        rope = {"rope_theta": self.rope_theta} | (scaling or {"rope_type": "default"})
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "vocab_size": self.vocab,
            "hidden_size": self.width,
            "intermediate_size": self.mlp_width,
            "num_hidden_layers": self.depth,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "head_dim": self.head_dim,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": scaling,
            "rope_parameters": rope,
            "tie_word_embeddings": self.tied,
        }

    def rope_frequencies(self) -> np.ndarray:
        """Angle per position of each pair in a head: float32 [head_dim / 2].

        Rounded at the steps at which the models' own code rounds, so that the angles
        are those of the training: 2000 positions on, the last bit is 1e-4 of a radian.
        """
        exponents = np.arange(0, self.head_dim, 2, dtype=np.float32) / self.head_dim
        powers = np.power(self.rope_theta, exponents.astype(np.float64))
        frequencies = 1 / powers.astype(np.float32)
        if self.rope_scaling is not None:
            frequencies = self.rope_scaling(frequencies)
        return frequencies


def _guard(config_json: dict[str, Any]) -> None:
    """Refuses attributes that we do not know, or do not compute the value of."""
    ignored = " ".join(_IGNORED.values())
    known = set(_USED.split()) | set(ignored.split()) | _FIXED.keys()
    if unknown := sorted(config_json.keys() - known):
        raise _refusal(
            f"it is not known what {', '.join(unknown)} would change; remove the "
            "attribute only if you know that it changes nothing"
        )
    for name, only in _FIXED.items():
        # null is how these files say "not set".
        value = config_json.get(name)
        if value is not None and value != only:
            raise _refusal(f"{name} = {value!r} is not supported, only {only!r}")


def _rope(
    config_json: dict[str, Any],
) -> tuple[float, LinearScaling | Llama3Scaling | None]:
    """Base and scaling of the rotary frequencies, from any of the three spellings.

        LLaMA-1            (nothing: 10,000, no scaling)
        transformers 4     "rope_theta": 1e6, "rope_scaling": {"type": "linear", …}
        transformers 5     "rope_parameters": {"rope_theta": 1e6, "rope_type": …, …}

    A file that has several must say the same in all.
    """
    places = [config_json]
    for name in ("rope_scaling", "rope_parameters"):
        place = config_json.get(name)
        if not isinstance(place, dict | None):
            raise _refusal(f"{name} = {place!r} is not an object with names")
        places += [] if place is None else [place]
    bases = {
        _positive(place, "rope_theta", float)
        for place in places
        if place.get("rope_theta") is not None
    } or {10_000.0}
    scalings = {_scaling(place) for place in places[1:]} or {None}
    if len(bases) > 1 or len(scalings) > 1:
        raise _refusal("rope_theta, rope_scaling and rope_parameters contradict")
    return bases.pop(), scalings.pop()


def _scaling(place: dict[str, Any]) -> LinearScaling | Llama3Scaling | None:
    """What a `rope_scaling` or `rope_parameters` says, the base excepted."""
    kind = place.get("rope_type") or place.get("type") or "default"
    fields = {"default": {}} | {
        name: {field.name: field.type for field in dataclasses.fields(scaling)}
        for name, scaling in _SCALINGS.items()
    }
    if not isinstance(kind, str) or kind not in fields:
        raise _refusal(
            f"rope_type = {kind!r} is not supported, only {', '.join(fields)}"
        )
    harmless = {"rope_theta", "rope_type", "type"}
    if place.get("partial_rotary_factor") == 1.0:
        harmless.add("partial_rotary_factor")
    if unknown := sorted(place.keys() - harmless - fields[kind].keys()):
        raise _refusal(
            f"{', '.join(unknown)} beside rope_type = {kind!r} is not supported"
        )
    if kind == "default":
        return None
    numbers = {
        name: _positive(place, name, number) for name, number in fields[kind].items()
    }
    return _SCALINGS[kind](**numbers)


def _positive(values: dict[str, Any], name: str, kind: type) -> Any:
    """The positive number called `name`; JSON may write a whole float as an integer."""
    if name not in values:
        raise _refusal(f"{name} is missing")
    value = values[name]
    allowed = int if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not value > 0:
        raise _refusal(f"{name} = {value!r} is not a positive {kind.__name__}")
    return kind(value)


def _refusal(reason: str) -> UserError:
    return UserError(f"The language model's config.json cannot be used: {reason}.")
