"""The loaded model that answers: adapter, language model, tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

from musilingo_jax.answering.prompt_reader import PromptReader
from musilingo_jax.answering.stop_texts import Stops, stops_of
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.models.bridges import Bridge
from musilingo_jax.models.bridges.gated_values import GatedValues
from musilingo_jax.models.llama import UnstackedLlama, unstacked
from musilingo_jax.models.lora import UNTUNED, MapSizes, Tuning
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.pretrained import sources, trained_with, weights
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.pretrained.tokenizer import Tokenizer
from musilingo_jax.runtime.errors import UserError

# Of a LLaMA whose `config.json` does not name its context.
DEFAULT_CONTEXT = 2048


@dataclass(frozen=True)
class Answerer:
    """What turns pooled audio and a question into text.

    Attributes:
      bridge: cached features → what the language model hears.
      llama: the language model.
      tokenizer: the language model's.
      context: tokens of a prompt and its answer at most.
      mesh: the devices that the adapter and the language model are on; None for the
        default one.
      tuning: what was trained beside the language model's weights.
    """

    bridge: Bridge
    llama: UnstackedLlama
    tokenizer: Tokenizer
    context: int = DEFAULT_CONTEXT
    mesh: Mesh | None = None
    tuning: Tuning = UNTUNED

    @property
    def reader(self) -> PromptReader:
        """The part that programs are compiled for."""
        return PromptReader(self.bridge, self.llama, self.mesh, self.tuning)

    def stops(self, texts: tuple[str, ...]) -> Stops:
        """What ends an answer: these texts, and the tokenizer's end tokens."""
        return stops_of(self.tokenizer, texts, self.llama.config.vocab)

    @classmethod
    def load(
        cls,
        language_model: str,
        adapter: str,
        *,
        dtype: str,
        quantization: str,
        mesh: Mesh | None,
    ) -> "Answerer":
        """Loads an adapter and a language model.

        Args:
          language_model: its source, and its tokenizer's.
          adapter: its source.
          dtype: of the language model's weights, as in `ModelConfig`.
          quantization: of the language model's matrices, as in `ModelConfig`.
          mesh: the devices to load onto; None for the default one.

        Raises:
          UserError: a part is missing, or they do not fit together.
        """
        llama = weights.load_language_model(
            language_model, dtype=dtype, quantization=quantization, mesh=mesh
        )
        learnt = weights.load_adapter(adapter, mesh=mesh)
        bridge, tuning = learnt.bridge, learnt.tuning or UNTUNED
        assert bridge is not None  # Every adapter has one.
        width = bridge.width
        if width != llama.config.width:
            raise UserError(
                f"the adapter {adapter} makes vectors of width {width}, but the "
                f"language model {language_model} reads {llama.config.width}: give two "
                "that were trained together"
            )
        if tuning.sizes not in (None, MapSizes.of(llama.config)):
            raise UserError(
                f"the adapter {adapter} was trained beside weights of other sizes than "
                f"the language model {language_model} has: give two that were trained "
                "together"
            )
        return cls(
            bridge=bridge,
            llama=unstacked(llama),
            tokenizer=weights.load_tokenizer(language_model),
            context=context_of(language_model),
            mesh=mesh,
            tuning=tuning.unstacked(),
        )


def load_answerer(
    model: ModelConfig, features: FeatureConfig, mesh: Mesh | None
) -> Answerer:
    """Loads an `Answerer`, after checking that it was trained with the encoder.

    Args:
      model: the sources of encoder, adapter and language model; the encoder itself is
        not loaded.
      features: how songs become vectors.
      mesh: the devices to load onto; None for the default one.

    Raises:
      UserError: a part is missing, or they do not fit together.
    """
    adapter = model.adapter
    described = sources.find(adapter, "adapter").config
    bridge = weights.blueprint(sources.find(adapter, "adapter")).module.bridge
    encoder = weights.blueprint(sources.find(model.encoder, "encoder")).module
    width = encoder.config.hidden_size
    if described.get("encoder_width") != width:
        raise UserError(
            f"the adapter {adapter} reads features of width "
            f"{described.get('encoder_width')}, but the encoder {model.encoder} "
            f"makes {width}: give two that were trained together"
        )
    _check_features(adapter, bridge, described, features, encoder.config)
    parts = adapter, model.encoder, model.language_model
    trained_with.check(*parts)
    trained_with.tell_if_unknown(*parts)
    return Answerer.load(
        model.language_model,
        adapter,
        dtype=model.dtype,
        quantization=model.quantization,
        mesh=mesh,
    )


def _check_features(
    adapter: str,
    bridge: Bridge,
    described: Mapping[str, Any],
    features: FeatureConfig,
    encoder: MertConfig,
) -> None:
    """Checks that the features of a config are those that a bridge reads.

    Raises:
      UserError: they are not.
    """
    check_reduction(adapter, features.reduction)
    frames = described.get("window_frames")
    if bridge.splices and frames != features.window_frames:
        raise UserError(
            f"the adapter {adapter} reads means over {frames} frames, but "
            f"config.features.window_frames is {features.window_frames}: set it to "
            "the same, or give another --adapter"
        )
    states = encoder.num_hidden_layers + 1
    if isinstance(bridge, GatedValues) and bridge.config.encoder_states != states:
        raise UserError(
            f"the adapter {adapter} mixes {bridge.config.encoder_states} states of an "
            f"encoder, but {encoder.num_hidden_layers} layers make {states}: give two "
            "that were trained together"
        )


def check_reduction(adapter: str, reduction: str) -> None:
    """Checks that features are of the kind that an adapter reads.

    Args:
      adapter: its source.
      reduction: as in `FeatureConfig`.

    Raises:
      UserError: they are not, or the adapter cannot be found.
    """
    bridge = weights.blueprint(sources.find(adapter, "adapter")).module.bridge
    if reduction != bridge.reduction:
        raise UserError(
            f"the adapter {adapter} reads features of the kind {bridge.reduction!r}, "
            f"but config.features.reduction is {reduction!r}: set it to the same, or "
            "give another --adapter"
        )


def context_of(language_model: str) -> int:
    """Tokens that a language model reads at most, by its `config.json`."""
    described = sources.find(language_model, "language_model").config
    return described.get("max_position_embeddings") or DEFAULT_CONTEXT
