"""The loaded model that answers: adapter, language model, tokenizer."""

from dataclasses import dataclass

from jax.sharding import Mesh

from musilingo_jax.answering.prompt_reader import PromptReader
from musilingo_jax.answering.stop_texts import Stops, stops_of
from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.llama import UnstackedLlama, unstacked
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
      adapter: pooled audio → word embeddings.
      llama: the language model.
      tokenizer: the language model's.
      context: tokens of a prompt and its answer at most.
      mesh: the devices that the adapter and the language model are on; None for the
        default one.
    """

    adapter: Adapter
    llama: UnstackedLlama
    tokenizer: Tokenizer
    context: int = DEFAULT_CONTEXT
    mesh: Mesh | None = None

    @property
    def reader(self) -> PromptReader:
        """The part that programs are compiled for."""
        return PromptReader(self.adapter, self.llama, self.mesh)

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
        loaded = weights.load_adapter(adapter, mesh=mesh)
        width = loaded.projection.kernel.shape[1]
        if width != llama.config.width:
            raise UserError(
                f"the adapter {adapter} makes vectors of width {width}, but the "
                f"language model {language_model} reads {llama.config.width}: give two "
                "that were trained together"
            )
        return cls(
            adapter=loaded,
            llama=unstacked(llama),
            tokenizer=weights.load_tokenizer(language_model),
            context=context_of(language_model),
            mesh=mesh,
        )


def load_answerer(
    model: ModelConfig, window_frames: int, mesh: Mesh | None
) -> Answerer:
    """Loads an `Answerer`, after checking that it was trained with the encoder.

    Args:
      model: the sources of encoder, adapter and language model; the encoder itself is
        not loaded.
      window_frames: encoder frames that are averaged into one vector.
      mesh: the devices to load onto; None for the default one.

    Raises:
      UserError: a part is missing, or they do not fit together.
    """
    adapter = model.adapter
    described = sources.find(adapter, "adapter").config
    encoder = weights.blueprint(sources.find(model.encoder, "encoder")).module
    width = encoder.config.hidden_size
    if described.get("encoder_width") != width:
        raise UserError(
            f"the adapter {adapter} reads features of width "
            f"{described.get('encoder_width')}, but the encoder {model.encoder} "
            f"makes {width}: give two that were trained together"
        )
    frames = described.get("window_frames")
    if frames != window_frames:
        raise UserError(
            f"the adapter {adapter} reads means over {frames} frames, but "
            f"config.features.window_frames is {window_frames}: set it to the same, "
            "or give another --adapter"
        )
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


def context_of(language_model: str) -> int:
    """Tokens that a language model reads at most, by its `config.json`."""
    described = sources.find(language_model, "language_model").config
    return described.get("max_position_embeddings") or DEFAULT_CONTEXT
