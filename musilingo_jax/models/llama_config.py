"""The configuration of a decoder like LLaMA, read from a released `config.json`."""

import dataclasses
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from musilingo_jax.models import decoder_families
from musilingo_jax.models.decoder_families import FAMILIES
from musilingo_jax.models.released_config import LARGEST_SIZE
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import setting


@dataclass(frozen=True)
class LinearScaling:
    """Divides all rotary frequencies (Chen et al. 2023, "position interpolation")."""

    factor: float

    def __call__(self, frequencies: np.ndarray) -> np.ndarray:
        """The slower frequencies."""
        return frequencies / self.factor


@dataclass(frozen=True)
class Llama3Scaling:
    """Divides only frequencies too low to have completed a turn in pretraining.

    By how many turns a frequency makes in the `original_max_position_embeddings`
    positions of pretraining:

        turns      0 ………… low_freq_factor ………… high_freq_factor ………… ∞
        divisor      factor               blend                 1
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def __call__(self, frequencies: np.ndarray) -> np.ndarray:
        """The slower frequencies."""
        turns = self.original_max_position_embeddings * frequencies / (2 * np.pi)
        span = self.high_freq_factor - self.low_freq_factor
        kept = np.clip((turns - self.low_freq_factor) / span, 0.0, 1.0)
        return kept * frequencies + (1 - kept) * frequencies / self.factor


_MOST_LAYERS = 1_000  # More than any model has: the file is damaged.
_SCALINGS = {"linear": LinearScaling, "llama3": Llama3Scaling}


@dataclass(frozen=True)
class LlamaConfig:
    """The configuration of a LLaMA; hashable, so that it can be static under `jit`.

    Attributes:
      vocab: rows of the embedding.
      width: of the residual stream.
      depth: number of layers.
      heads: query heads.
      key_heads: key and value heads; a divisor of `heads`.
      head_dim: width of a head.
      mlp_width: width inside the gated mlp.
      norm_eps: added to the mean square by every norm.
      rope_theta: base of the rotary frequencies.
      rope_scaling: how they are divided for longer texts, if at all.
      tied: whether the head is the transposed embedding.
      family: a key of `FAMILIES`.
      biases: the linear maps of a layer that have a bias, such as "query".
      query_key_norm: whether each head of queries and keys is normed.
      windows: how far each layer attends back, itself included; 0 = to the beginning;
        () = all layers to the beginning.
      unrotated: the layers whose queries and keys are not turned by their positions.
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
    family: str = setting(default="llama", before="llama")
    biases: tuple[str, ...] = setting(default=(), before=())
    query_key_norm: bool = setting(default=False, before=False)
    windows: tuple[int, ...] = setting(default=(), before=())
    unrotated: tuple[int, ...] = setting(default=(), before=())

    @classmethod
    def from_dict(cls, config_json: dict[str, Any]) -> "LlamaConfig":
        """Reads a released `config.json`, of any version of the format.

        A file may leave out what the format did not have when LLaMA-1 was released:
        `num_key_value_heads`, `head_dim`, `rope_theta` (10,000 since then), and
        `tie_word_embeddings` (as its family has it).

        Raises:
          UserError: an attribute is unknown, missing, or has an unsupported value.
        """
        family = decoder_families.family_of(config_json)
        width = _positive(config_json, "hidden_size", int)
        heads = _positive(config_json, "num_attention_heads", int)
        depth = _positive(config_json, "num_hidden_layers", int)
        if depth > _MOST_LAYERS:
            raise UserError(
                f"config.json: num_hidden_layers is {depth}: it must be at most "
                f"{_MOST_LAYERS}"
            )
        late = {"num_key_value_heads": heads, "head_dim": width // heads}
        late |= {k: v for k, v in config_json.items() if k in late and v is not None}
        key_heads = _positive(late, "num_key_value_heads", int)
        head_dim = _positive(late, "head_dim", int)
        if heads % key_heads:
            raise UserError(
                f"config.json: num_attention_heads is {heads}: it must be a multiple "
                f"of num_key_value_heads, which is {key_heads}"
            )
        if head_dim % 2:
            raise UserError(
                f"config.json: head_dim is {head_dim}: it must be even, because rotary "
                "angles turn pairs"
            )
        tied = decoder_families.tied(config_json)
        if not isinstance(tied, bool):
            raise UserError(
                f"config.json: tie_word_embeddings is {tied!r}: it must be true or "
                "false"
            )
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
            family=config_json.get("model_type", "llama"),
            biases=decoder_families.biases(config_json, family),
            query_key_norm=family.query_key_norm,
            windows=decoder_families.windows(config_json, depth),
            unrotated=decoder_families.unrotated(config_json, depth),
        )

    def to_dict(self) -> dict[str, Any]:
        """A `config.json` from which `from_dict` reads an equal config.

        The rotary attributes are written in both spellings, so that old and new
        versions of transformers compute the same angles.
        """
        if self.rope_scaling is None:
            scaling = None
        else:
            kind = {c: k for k, c in _SCALINGS.items()}[type(self.rope_scaling)]
            scaling = {"rope_type": kind} | dataclasses.asdict(self.rope_scaling)
        rope = {"rope_theta": self.rope_theta} | (scaling or {"rope_type": "default"})
        return {
            "architectures": [FAMILIES[self.family].architecture],
            "model_type": self.family,
            "hidden_act": "silu",
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
        } | self._family_to_dict()

    def _family_to_dict(self) -> dict[str, Any]:
        """The attributes that only some families have."""
        known = FAMILIES[self.family].guard.used.split()
        window = max(self.windows, default=0)
        own = {
            "attention_bias": "out" in self.biases,
            "mlp_bias": "up" in self.biases,
            "use_sliding_window": bool(window),
            "sliding_window": window or None,
            "max_window_layers": self.depth,
            "layer_types": [
                "sliding_attention" if one else "full_attention"
                for one in self.windows or (0,) * self.depth
            ],
            "no_rope_layers": [
                int(layer not in self.unrotated) for layer in range(self.depth)
            ],
        }
        return {name: value for name, value in own.items() if name in known}

    def rotations(self) -> np.ndarray:
        """Angle per position of each pair in a head, by layer: float32 [depth, half].

        A layer that is not rotated has angles of 0.
        """
        angles = np.tile(self.rope_frequencies(), (self.depth, 1))
        angles[list(self.unrotated)] = 0
        return angles

    def rope_frequencies(self) -> np.ndarray:
        """Angle per position of each pair in a head: float32 [head_dim / 2].

        Rounded at the steps at which the models' own code rounds, so that the angles
        are those of training: at position 2000, the last bit is 1e-4 of a radian.
        """
        exponents = np.arange(0, self.head_dim, 2, dtype=np.float32) / self.head_dim
        powers = np.power(self.rope_theta, exponents.astype(np.float64))
        frequencies = 1 / powers.astype(np.float32)
        if self.rope_scaling is not None:
            frequencies = self.rope_scaling(frequencies)
        return frequencies


def _rope(
    config_json: dict[str, Any],
) -> tuple[float, LinearScaling | Llama3Scaling | None]:
    """Base and scaling of the rotary frequencies, in any of the three spellings.

        LLaMA-1            (nothing: 10,000, no scaling)
        transformers 4     "rope_theta": 1e6, "rope_scaling": {"type": "linear", …}
        transformers 5     "rope_parameters": {"rope_theta": 1e6, "rope_type": …, …}

    Where a file has several, they must agree.
    """
    places = [config_json]
    for name in ("rope_scaling", "rope_parameters"):
        place = config_json.get(name)
        if not isinstance(place, dict | None):
            raise UserError(f"config.json: {name} is {place!r}: it must be an object")
        places += [] if place is None else [place]
    bases = {
        _positive(place, "rope_theta", float)
        for place in places
        if place.get("rope_theta") is not None
    } or {10_000.0}
    scalings = {_scaling(place) for place in places[1:]} or {None}
    if len(bases) > 1 or len(scalings) > 1:
        raise UserError(
            "config.json: rope_theta, rope_scaling and rope_parameters contradict each "
            "other"
        )
    return bases.pop(), scalings.pop()


def _scaling(place: dict[str, Any]) -> LinearScaling | Llama3Scaling | None:
    """The scaling that a `rope_scaling` or `rope_parameters` describes."""
    kind = place.get("rope_type") or place.get("type") or "default"
    fields = {"default": {}} | {
        name: {
            field.name: int if field.type is int else float
            for field in dataclasses.fields(scaling)
        }
        for name, scaling in _SCALINGS.items()
    }
    if not isinstance(kind, str) or kind not in fields:
        raise UserError(
            f"config.json: rope_type is {kind!r}, but only {', '.join(fields)} are "
            "implemented"
        )
    harmless = {"rope_theta", "rope_type", "type"}
    if place.get("partial_rotary_factor") == 1.0:
        harmless.add("partial_rotary_factor")
    if unknown := sorted(place.keys() - harmless - fields[kind].keys()):
        raise UserError(
            f"config.json: unknown attribute {', '.join(unknown)} of rope_type {kind!r}"
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
        raise UserError(f"config.json: {name} is missing")
    value = values[name]
    allowed = int if kind is int else (int, float)
    number = isinstance(value, allowed) and not isinstance(value, bool)
    largest = LARGEST_SIZE if kind is int else sys.float_info.max
    if not number or not 0 < value <= largest:
        described = "a positive number"
        if kind is int:
            described = f"a positive whole number, at most {LARGEST_SIZE:,}"
        raise UserError(f"config.json: {name} is {value!r}: it must be {described}")
    return kind(value)
