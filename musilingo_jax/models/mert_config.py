"""What a released MERT or HuBERT `config.json` says, and what we refuse to guess."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from jaxtyping import Array, Int

from musilingo_jax.models.cqt import OCTAVES, bin_frequencies
from musilingo_jax.runtime.errors import UserError

# What the models' own code takes when a file leaves the attribute out.
ABSENT = {
    "feat_proj_layer_norm": True,
    "conv_bias": False,
    "feature_extractor_cqt": False,
    "feature_extractor_cqt_bins": 336,
    "do_normalize": False,
}
MOST_LAYERS = 1_000  # A file that says more is damaged, and obeying it takes for ever.
# Files of plain HuBERT do not say their sample rate; it is speech at 16 kHz.
SAMPLE_RATES = {"hubert": 16_000, "mert_model": 24_000}

# Attributes that would change the computation: only this value is implemented.
REQUIRED = {
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

# Attributes that change nothing that a frozen encoder computes, and why not.
WITHOUT_EFFECT = {
    "dropout, masking and initialisation: of training only": """
        activation_dropout attention_dropout feat_extract_dropout feat_proj_dropout
        feat_quantizer_dropout final_dropout hidden_dropout hidden_dropout_prob
        layerdrop apply_spec_augment initializer_range gradient_checkpointing
        skip_masking mask_time_prob mask_time_length mask_time_min_masks
        mask_time_min_space mask_time_other mask_time_selection mask_feature_prob
        mask_feature_length mask_feature_min_masks mask_channel_length
        mask_channel_min_space mask_channel_other mask_channel_prob
        mask_channel_selection no_mask_time_overlap no_mask_channel_overlap
        """,
    "takes the maximum off before the softmax, which is the same softmax": """
        attention_relax
        """,
    "heads and losses that stand on the encoder": """
        vocab_size ctc_loss_reduction ctc_zero_infinity use_weighted_layer_sum
        classifier_proj_size pad_token_id bos_token_id eos_token_id sep_token_id
        decoder_start_token_id tokenizer_class finetuning_task problem_type id2label
        label2id num_labels tie_word_embeddings tie_encoder_decoder
        cross_attention_hidden_size task_specific_params adapter_kernel_size
        adapter_stride num_adapter_layers output_hidden_size codevector_dim
        proj_codevector_dim num_codevector_groups num_codevectors_per_group
        num_negatives contrastive_logits_temperature diversity_loss_weight
        tdnn_dim tdnn_dilation tdnn_kernel xvector_output_dim
        """,
    "who wrote the file, in what type, and what calls return": """
        _name_or_path name_or_path _commit_hash architectures auto_map torch_dtype
        dtype transformers_version output_attentions output_hidden_states return_dict
        use_return_dict torchscript use_bfloat16 use_cache prefix tf_legacy_loss
        attn_implementation _attn_implementation _attn_implementation_autoset
        """,
    "text generation, which old libraries wrote into every config": """
        bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping
        encoder_no_repeat_ngram_size exponential_decay_length_penalty
        forced_bos_token_id forced_eos_token_id length_penalty max_length min_length
        no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
        output_scores remove_invalid_values repetition_penalty return_dict_in_generate
        suppress_tokens temperature top_k top_p typical_p
        """,
}
IGNORED_ATTRIBUTES = frozenset(
    name for names in WITHOUT_EFFECT.values() for name in names.split()
)


@dataclass(frozen=True)
class MertConfig:
    """The architecture, under the names of the released files.

    Attributes:
      model_type: "mert_model" or "hubert".
      sample_rate: samples per second of the waveform.
      do_normalize: bring each clip to mean 0 and variance 1 first; the released
        `preprocessor_config.json` says so, and its value may be added to the dict.
      conv_dim, conv_kernel, conv_stride: one number per convolution.
      conv_bias: whether the convolutions have a bias.
      feat_extract_norm: "group" (after the first convolution) or "layer" (after all).
      feat_proj_layer_norm: a layer norm before the projection to `hidden_size`.
      feature_extractor_cqt: constant-Q bins beside the convolutional features …
      feature_extractor_cqt_bins: … and how many, over seven octaves.
      num_conv_pos_embeddings, num_conv_pos_embedding_groups: width in frames and
        groups of the positional convolution.
      do_stable_layer_norm: pre-norm transformer (330M), else post-norm (95M).
    """

    model_type: str
    sample_rate: int
    do_normalize: bool
    conv_dim: tuple[int, ...]
    conv_kernel: tuple[int, ...]
    conv_stride: tuple[int, ...]
    conv_bias: bool
    feat_extract_norm: str
    feat_proj_layer_norm: bool
    feature_extractor_cqt: bool
    feature_extractor_cqt_bins: int
    num_conv_pos_embeddings: int
    num_conv_pos_embedding_groups: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    do_stable_layer_norm: bool
    layer_norm_eps: float

    def __post_init__(self):
        for field in fields(self):
            _check(field.name, getattr(self, field.name), field.type)
        if not len(self.conv_dim) == len(self.conv_kernel) == len(self.conv_stride):
            raise UserError(
                "MERT config: conv_dim, conv_kernel and conv_stride must have the same "
                f"length, but are {self.conv_dim}, {self.conv_kernel} and "
                f"{self.conv_stride}."
            )
        if self.feat_extract_norm not in ("group", "layer"):
            raise UserError(
                'MERT config: feat_extract_norm must be "group" or "layer", but is '
                f"{self.feat_extract_norm!r}."
            )
        for divisor in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            if self.hidden_size % getattr(self, divisor):
                raise UserError(
                    f"MERT config: hidden_size {self.hidden_size} is not a multiple of "
                    f"{divisor} {getattr(self, divisor)}."
                )

        if self.feature_extractor_cqt:
            bins = self.feature_extractor_cqt_bins
            if bins < OCTAVES:
                raise UserError(
                    f"MERT config: feature_extractor_cqt_bins is {bins}, but the bins "
                    f"span {OCTAVES} octaves; take a multiple of {OCTAVES}."
                )
            highest = bin_frequencies(bins)[-1]
            if highest > 0.4 * self.sample_rate:
                raise UserError(
                    f"MERT config: constant-Q bins up to {highest:.0f} Hz need a "
                    f"sample_rate above {highest / 0.4:.0f}, not {self.sample_rate}."
                )

    @classmethod
    def from_dict(cls, config_json: Mapping[str, Any]) -> "MertConfig":
        """Reads a released `config.json`.

        Every attribute is used, known to have no effect, or equal to the one value
        that is implemented.

        Raises:
          UserError: an attribute is missing, unknown, or has another value.
        """
        kind = config_json.get("model_type") or "mert_model"
        if not isinstance(kind, str) or kind not in SAMPLE_RATES:
            raise UserError(
                f"config.json: model_type is {kind!r}, but an encoder's is "
                '"mert_model" or "hubert"; give the folder of an encoder.'
            )
        known = {"sample_rate": SAMPLE_RATES[kind], **ABSENT}
        names = {field.name for field in fields(cls)}
        for name, value in (dict(config_json) | {"model_type": kind}).items():
            if name in names:
                known[name] = tuple(value) if isinstance(value, list) else value
            elif name == "num_feat_extract_layers":
                if value != len(config_json.get("conv_dim", ())):
                    raise UserError(
                        f"config.json: num_feat_extract_layers is {value}, but "
                        f"conv_dim is {config_json.get('conv_dim')}."
                    )
            elif name in REQUIRED:
                if value != REQUIRED[name]:
                    raise UserError(
                        f"config.json: {name} is {value!r}, but only "
                        f"{REQUIRED[name]!r} is implemented."
                    )
            elif name not in IGNORED_ATTRIBUTES:
                raise UserError(
                    f"config.json: unknown attribute {name!r} ({value!r}); "
                    "remove it if it does not change what the encoder computes."
                )
        if missing := sorted(names - set(known)):
            raise UserError(f"config.json: missing {', '.join(missing)}.")
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """A `config.json` that `from_dict` and the `transformers` library read."""
        settings = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        return settings | {"hidden_act": "gelu", "feat_extract_activation": "gelu"}

    @property
    def samples_per_frame(self) -> int:
        return math.prod(self.conv_stride)

    @property
    def frames_per_second(self) -> float:
        return self.sample_rate / self.samples_per_frame

    @property
    def receptive_field(self) -> int:
        """Samples that one frame of the convolutional stack sees."""
        return self.samples_for_frames(1)

    def frames(self, samples: int | Int[Array, "*batch"]) -> int | Int[Array, "*batch"]:
        """Frames that the convolutional stack makes of so many samples."""
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return max(samples, 0) if isinstance(samples, int) else samples.clip(0)

    def samples_for_frames(self, frames: int) -> int:
        """The fewest samples of which the stack makes so many frames (at least 1)."""
        layers = zip(self.conv_kernel, self.conv_stride, strict=True)
        for kernel, stride in reversed(list(layers)):
            frames = (frames - 1) * stride + kernel
        return frames


def _check(name: str, value: Any, kind: Any) -> None:
    """Refuses what is not of the kind that the field is declared with.

    Raises:
      UserError: it is not; numbers, besides, must be positive, and no more layers
        asked for than any model has.
    """
    if kind is bool or kind is str:
        fits, wanted = (
            isinstance(value, kind),
            {bool: "true or false", str: "text"}[kind],
        )
    elif kind is int:
        fits, wanted = _is_count(value), "a positive whole number"
    elif kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits, wanted = number and 0 < value < math.inf, "a positive number"
    else:
        fits = isinstance(value, tuple) and value and all(map(_is_count, value))
        wanted = "a list of positive whole numbers"
    if not fits:
        raise UserError(f"MERT config: {name} is {value!r}, but must be {wanted}.")
    if name == "num_hidden_layers" and value > MOST_LAYERS:
        raise UserError(
            f"MERT config: num_hidden_layers is {value}, more than any model has."
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
