"""Questions about songs → answers, for songs and questions in memory."""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float

from musilingo_jax.answering.beam_search import search_each
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.continuous_batching import (
    ContinuousBatch,
    PromptTokens,
    QueuedPrompt,
)
from musilingo_jax.answering.prompts import PromptConfig, encode
from musilingo_jax.answering.stop_texts import Stops, settled, stops_of, tidy
from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.llama import Llama
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.pretrained.sources import ModelConfig
from musilingo_jax.pretrained.tokenizer import Tokenizer
from musilingo_jax.runtime.errors import UserError

Features = Float[np.ndarray, "windows width"]

# Tokens between two looks at an answer that is streamed.
STEPS = 2
# Tokens that a LLaMA reads at most if its `config.json` does not say so; it need not.
CONTEXT = 2048


@dataclass(frozen=True)
class Answerer:
    """What turns pooled audio and a question into words.

    Attributes:
      adapter: pooled audio → word embeddings.
      llama: the language model.
      tokenizer: its own.
      context: tokens of a prompt and its answer, at most.
    """

    adapter: Adapter
    llama: Llama
    tokenizer: Tokenizer
    context: int = CONTEXT

    def stops(self, texts: tuple[str, ...]) -> Stops:
        """What ends an answer: some texts, and the tokenizer's end tokens."""
        return stops_of(self.tokenizer, texts, self.llama.config.vocab)

    @classmethod
    def load(
        cls,
        language_model: str,
        adapter: str,
        *,
        dtype: str,
        quantization: str,
        mesh: jax.sharding.Mesh | None,
    ) -> "Answerer":
        """Loads the released or trained parts.

        Raises:
          UserError: a part is missing, or the two do not fit together.
        """
        llama = weights.load_language_model(
            language_model, dtype=dtype, quantization=quantization, mesh=mesh
        )
        loaded = weights.load_adapter(adapter, mesh=mesh)
        width = loaded.projection.kernel.shape[1]
        if width != llama.config.width:
            raise UserError(
                f"the adapter {adapter} makes vectors of width {width}, but the "
                f"language model {language_model} reads {llama.config.width}: give the "
                "two that were trained together"
            )
        return cls(
            loaded,
            llama.unstack(),
            weights.load_tokenizer(language_model),
            context_of(language_model),
        )


def load_answerer(
    model: ModelConfig, window_frames: int, mesh: jax.sharding.Mesh
) -> Answerer:
    """The language model with an adapter that reads the encoder's features.

    Args:
      model: the sources of all three.
      window_frames: encoder frames per feature vector.
      mesh: where the arrays go.

    Raises:
      UserError: a part is missing, or they do not fit together.
    """
    adapter = model.adapter
    said = sources.find(adapter, "adapter").config
    encoder = weights.blueprint(sources.find(model.encoder, "encoder")).module
    width = encoder.config.hidden_size
    if said.get("encoder_width") != width:
        raise UserError(
            f"the adapter {adapter} reads features of width "
            f"{said.get('encoder_width')}, but the encoder {model.encoder} "
            f"makes {width}: give the two that were trained together"
        )
    frames = said.get("window_frames")
    if frames != window_frames:
        raise UserError(
            f"the adapter {adapter} reads means over {frames} frames, but "
            f"config.features.window_frames is {window_frames}: set it to the same, "
            "or give another --adapter"
        )
    return Answerer.load(
        model.language_model,
        adapter,
        dtype=model.dtype,
        quantization=model.quantization,
        mesh=mesh,
    )


def context_of(language_model: str) -> int:
    """Tokens that a language model was made to read at most."""
    said = sources.find(language_model, "language_model").config
    return said.get("max_position_embeddings") or CONTEXT


def check_question(prompt: PromptConfig, question: str) -> None:
    """Checks that a question does not end the conversation that it stands in.

    Raises:
      UserError: it holds the prompt's end sign.
    """
    if prompt.template and prompt.end_sign in question:
        raise UserError(
            f"the question {question[:60]!r} holds {prompt.end_sign!r}, with which "
            "every turn of the conversation ends: ask without it"
        )


def answer(
    speaker: Answerer,
    prompt: PromptConfig,
    requests: Sequence[tuple[Features, str]],
    config: GenerateConfig,
    *,
    mesh: jax.sharding.Mesh | None,
) -> list[str]:
    """Answers questions about songs.

    Args:
      speaker: the model.
      prompt: the conversation around each question.
      requests: pooled features of a song, and a question about it.
      config: how to decode.
      mesh: the devices that the speaker was loaded onto; None for the default one.

    Returns:
      The answers, in the order of the requests.
    """
    answers = dict(answer_each(speaker, prompt, requests, config, mesh=mesh))
    return [answers[index] for index in range(len(requests))]


def answer_each(
    speaker: Answerer,
    prompt: PromptConfig,
    requests: Sequence[tuple[Features, str]],
    config: GenerateConfig,
    *,
    mesh: jax.sharding.Mesh | None,
) -> Iterator[tuple[int, str]]:
    """`answer`, but gives each (index, answer) as soon as it is done.

    An answer depends on its own request and on the seed alone: the order, the batch
    size and the neighbours change nothing. A request with features of shape (0, width)
    is asked without any audio in its prompt.

    Raises:
      UserError: at once, there is a prompt that leaves no room for an answer; or with
        an answer, the device has too little memory.
    """
    waiting = waiting_of(speaker, prompt, requests, config)
    return _each(speaker, prompt, waiting, config, mesh)


def _each(
    speaker: Answerer,
    prompt: PromptConfig,
    waiting: Sequence[QueuedPrompt],
    config: GenerateConfig,
    mesh: jax.sharding.Mesh | None,
) -> Iterator[tuple[int, str]]:
    """`answer_each`, once all is known to be answerable."""
    if not waiting:
        return
    texts = (prompt.end_sign, *config.stop)
    with _enough_memory(config):
        if config.beams > 1:
            said = search_each(
                speaker.adapter,
                speaker.llama,
                waiting,
                speaker.stops(texts),
                config.choice,
                rows=config.batch_size,
                most=config.max_new_tokens,
                beams=config.beams,
                length_penalty=config.length_penalty,
                mesh=mesh,
            )
        else:
            said = _conversation(speaker, prompt, waiting, config, mesh).answers()
        for index, tokens in said:
            yield index, tidy(speaker.tokenizer.decode(tokens), texts)


def stream(
    speaker: Answerer,
    prompt: PromptConfig,
    request: tuple[Features, str],
    config: GenerateConfig,
    *,
    mesh: jax.sharding.Mesh | None,
) -> Iterator[str]:
    """The answer to one request, in pieces, as it is made.

    The pieces, joined, are what `answer` gives; no letter is ever cut in two, and what
    may turn out to be the beginning of a stop text is held back until it is known not
    to be one. A search over beams knows its answer only at the end: it is one piece.
    Errors are those of `answer_each`.
    """
    if config.beams > 1:
        yield from answer(speaker, prompt, [request], config, mesh=mesh)
        return
    texts = (prompt.end_sign, *config.stop)
    waiting = waiting_of(speaker, prompt, [request], config)
    shown = 0
    with _enough_memory(config):
        talk = _conversation(speaker, prompt, waiting, config, mesh)
        for tokens in talk.pieces(STEPS):
            sure = settled(speaker.tokenizer.spell(tokens), texts)
            if sure[shown:]:
                yield sure[shown:]
            shown = len(sure)
    if rest := tidy(speaker.tokenizer.decode(tokens), texts)[shown:]:
        yield rest


@contextmanager
def _enough_memory(config: GenerateConfig) -> Iterator[None]:
    """Says what to lower where the device has too little memory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"the device has too little memory for generate.batch_size = "
            f"{config.batch_size}, generate.beams = {config.beams} and "
            f"generate.max_new_tokens = {config.max_new_tokens}: lower one of them"
        ) from error


def _conversation(
    speaker: Answerer,
    prompt: PromptConfig,
    waiting: Sequence[QueuedPrompt],
    config: GenerateConfig,
    mesh: jax.sharding.Mesh | None,
) -> ContinuousBatch:
    return ContinuousBatch(
        speaker.adapter,
        speaker.llama,
        waiting,
        speaker.stops((prompt.end_sign, *config.stop)),
        config.choice,
        rows=config.batch_size,
        most=config.max_new_tokens,
        mesh=mesh,
    )


def waiting_of(
    speaker: Answerer,
    prompt: PromptConfig,
    requests: Sequence[tuple[Features, str]],
    config: GenerateConfig,
) -> list[QueuedPrompt]:
    """The requests as prompts.

    A prompt's draws come from what is asked about what, not from where it stands.

    Raises:
      UserError: there is one that leaves no room for an answer.
    """
    waiting = []
    for index, (features, question) in enumerate(requests):
        features = np.ascontiguousarray(features, np.float32)
        example = encode(speaker.tokenizer, prompt, question, None, len(features))
        asked = f"{config.seed}\n{question}\n".encode() + features.tobytes()
        text = PromptTokens(features, tuple(example.tokens), tuple(example.audio_slot))
        waiting.append(QueuedPrompt(index, text, zlib.crc32(asked)))
    longest = max((len(prompt.text.tokens) for prompt in waiting), default=0)
    config.check_room(longest, speaker.context, speaker.llama.config.vocab)
    return waiting
