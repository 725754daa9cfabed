"""The configuration of a MERT or HuBERT encoder, read from a released `config.json`."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from jaxtyping import Array, Int
from numpy import ndarray

from musilingo_jax.models.cqt import OCTAVES, bin_frequencies
from musilingo_jax.models.released_config import LARGEST_SIZE, AttributeGuard
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import check, setting

# What the models' own code assumes where a file lacks the attribute.
_ABSENT = {
    "feat_proj_layer_norm": True,
    "conv_bias": False,
    "feature_extractor_cqt": False,
    "feature_extractor_cqt_bins": 336,
    "do_normalize": False,
}
# Files of plain HuBERT lack their sample rate, which is that of speech.
_SAMPLE_RATES = {"hubert": 16_000, "mert_model": 24_000}
_MOST_LAYERS = 1_000  # More than any model has: the file is damaged.

_FIXED = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "conv_pos_batch_norm": False,
    "deepnorm": False,
    "adapter_attn_dim": None,
    "add_adapter": False,
    "add_cross_attention": False,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "pruned_heads": {},
    "chunk_size_feed_forward": 0,
    "quantization_config": None,
}
_IGNORED = {
    "dropout and masking, which only training has": """
        activation_dropout feat_extract_dropout feat_proj_dropout
        feat_quantizer_dropout final_dropout hidden_dropout hidden_dropout_prob
        layerdrop apply_spec_augment skip_masking mask_time_prob mask_time_length
        mask_time_min_masks mask_time_min_space mask_time_other mask_time_selection
        mask_feature_prob mask_feature_length mask_feature_min_masks
        mask_channel_length mask_channel_min_space mask_channel_other mask_channel_prob
        mask_channel_selection no_mask_time_overlap no_mask_channel_overlap
    """,
    "subtracts the maximum before the softmax, which leaves the softmax the same": """
        attention_relax
    """,
    "heads on the encoder, and their losses": """
        vocab_size ctc_loss_reduction ctc_zero_infinity use_weighted_layer_sum
        classifier_proj_size tie_word_embeddings cross_attention_hidden_size
        adapter_kernel_size adapter_stride num_adapter_layers output_hidden_size
        codevector_dim proj_codevector_dim num_codevector_groups
        num_codevectors_per_group num_negatives contrastive_logits_temperature
        diversity_loss_weight tdnn_dim tdnn_dilation tdnn_kernel xvector_output_dim
    """,
}


@dataclass(frozen=True)
class MertConfig:
    """The architecture, under the names of the released files.

    Attributes:
      model_type: "mert_model" or "hubert".
      sample_rate: samples per second of the waveform.
      do_normalize: whether to bring each clip to mean 0 and variance 1 first; from the
        released `preprocessor_config.json`, whose value may be added to the dict.
      conv_dim, conv_kernel, conv_stride: one number per convolution.
      conv_bias: whether the convolutions have a bias.
      feat_extract_norm: "group" (after the first convolution) or "layer" (after all).
      feat_proj_layer_norm: whether a layer norm precedes the projection to
        `hidden_size`.
      feature_extractor_cqt: whether constant-Q bins join the convolutional features.
      feature_extractor_cqt_bins: how many bins, over seven octaves.
      num_conv_pos_embeddings: width of the positional convolution, in frames.
      num_conv_pos_embedding_groups: groups of the positional convolution.
      do_stable_layer_norm: pre-norm transformer (330M), else post-norm (95M).
    """

    model_type: str = setting(choices=tuple(_SAMPLE_RATES))
    sample_rate: int = setting(at_least=1, at_most=LARGEST_SIZE)
    do_normalize: bool = setting()
    conv_dim: tuple[int, ...] = setting(at_least=1, at_most=LARGEST_SIZE)
    conv_kernel: tuple[int, ...] = setting(at_least=1, at_most=LARGEST_SIZE)
    conv_stride: tuple[int, ...] = setting(at_least=1, at_most=LARGEST_SIZE)
    conv_bias: bool = setting()
    feat_extract_norm: str = setting(choices=("group", "layer"))
    feat_proj_layer_norm: bool = setting()
    feature_extractor_cqt: bool = setting()
    feature_extractor_cqt_bins: int = setting(at_least=1, at_most=LARGEST_SIZE)
    num_conv_pos_embeddings: int = setting(at_least=1, at_most=LARGEST_SIZE)
    num_conv_pos_embedding_groups: int = setting(at_least=1, at_most=LARGEST_SIZE)
    hidden_size: int = setting(at_least=1, at_most=LARGEST_SIZE)
    num_hidden_layers: int = setting(at_least=1, at_most=_MOST_LAYERS)
    num_attention_heads: int = setting(at_least=1, at_most=LARGEST_SIZE)
    intermediate_size: int = setting(at_least=1, at_most=LARGEST_SIZE)
    do_stable_layer_norm: bool = setting()
    layer_norm_eps: float = setting(above=0)

    def __post_init__(self):
        check(self, "config.json")
        lengths = {len(self.conv_dim), len(self.conv_kernel), len(self.conv_stride)}
        if len(lengths) > 1 or lengths == {0}:
            raise UserError(
                "config.json: conv_dim, conv_kernel and conv_stride must have the same "
                f"length, at least 1, but are {list(self.conv_dim)}, "
                f"{list(self.conv_kernel)} and {list(self.conv_stride)}"
            )
        for divisor in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            if self.hidden_size % getattr(self, divisor):
                raise UserError(
                    f"config.json: hidden_size is {self.hidden_size}: it must be a "
                    f"multiple of {divisor}, which is {getattr(self, divisor)}"
                )
        if self.feature_extractor_cqt:
            self._check_bins()

    def _check_bins(self) -> None:
        bins = self.feature_extractor_cqt_bins
        if bins < OCTAVES:
            raise UserError(
                f"config.json: feature_extractor_cqt_bins is {bins}, but the bins span "
                f"{OCTAVES} octaves; take a multiple of {OCTAVES}"
            )
        highest = bin_frequencies(bins)[-1]
        if highest > 0.4 * self.sample_rate:
            raise UserError(
                f"config.json: sample_rate is {self.sample_rate}, but constant-Q bins "
                f"up to {highest:.0f} Hz need one above {highest / 0.4:.0f}"
            )

    @classmethod
    def from_dict(cls, config_json: Mapping[str, Any]) -> "MertConfig":
        """Reads a released `config.json`.

        Raises:
          UserError: an attribute is missing, unknown, or has an unsupported value.
        """
        kind = config_json.get("model_type") or "mert_model"
        if not isinstance(kind, str) or kind not in _SAMPLE_RATES:
            raise UserError(
                f"config.json: model_type is {kind!r}, but an encoder's is "
                '"mert_model" or "hubert"; give the folder of an encoder'
            )
        names = frozenset(field.name for field in fields(cls))
        AttributeGuard(
            used=" ".join((*names, "num_feat_extract_layers")),
            fixed=_FIXED,
            ignored=_IGNORED,
            null_is_unset=False,
        ).check(config_json)
        values: dict[str, Any] = {"sample_rate": _SAMPLE_RATES[kind], **_ABSENT}
        for name in names & config_json.keys():
            value = config_json[name]
            values[name] = tuple(value) if isinstance(value, list) else value
        values["model_type"] = kind
        if missing := sorted(names - values.keys()):
            raise UserError(f"config.json: missing {', '.join(missing)}")
        config = cls(**values)
        layers = config_json.get("num_feat_extract_layers", len(config.conv_dim))
        if layers != len(config.conv_dim):
            raise UserError(
                f"config.json: num_feat_extract_layers is {layers}, but conv_dim is "
                f"{list(config.conv_dim)}"
            )
        return config

    def to_dict(self) -> dict[str, Any]:
        """A `config.json` that `from_dict` and the `transformers` library read."""
        settings = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        return settings | {"hidden_act": "gelu", "feat_extract_activation": "gelu"}

    @property
    def samples_per_frame(self) -> int:
        """Samples from one frame to the next."""
        return math.prod(self.conv_stride)

    @property
    def frames_per_second(self) -> float:
        """Frames that a second of sound becomes."""
        return self.sample_rate / self.samples_per_frame

    @property
    def receptive_field(self) -> int:
        """Samples that one frame of the convolutional stack sees."""
        return self.samples_for_frames(1)

    def frames(
        self, samples: int | Int[Array | ndarray, "*batch"]
    ) -> int | Int[Array | ndarray, "*batch"]:
        """Frames that the convolutional stack makes of `samples` samples."""
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return max(samples, 0) if isinstance(samples, int) else samples.clip(0)

    def samples_for_frames(self, frames: int) -> int:
        """The fewest samples that the stack turns into `frames` frames (at least 1)."""
        layers = zip(self.conv_kernel, self.conv_stride, strict=True)
        for kernel, stride in reversed(list(layers)):
            frames = (frames - 1) * stride + kernel
        return frames
