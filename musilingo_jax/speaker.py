"""Questions about songs → answers, for songs and questions in memory."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from musilingo_jax import weights
from musilingo_jax.beams import search_each
from musilingo_jax.continuous import Conversation, Text, Waiting
from musilingo_jax.errors import UserError
from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.llama import Llama
from musilingo_jax.prompts import PromptConfig, encode
from musilingo_jax.sampling import (
    Choice,
    Greedy,
    MinimumLength,
    RepetitionPenalty,
    Sample,
)
from musilingo_jax.stops import Stops, settled, stops_of, tidy
from musilingo_jax.tokenizer import Tokenizer

Features = Float[np.ndarray, "windows width"]

# Tokens between two looks at an answer that is streamed.
STEPS = 2


@dataclass(frozen=True)
class GenerateConfig:
    """How answers are made; the names are those of the `transformers` library.

    Attributes:
      max_new_tokens: an answer that has not stopped by then is cut.
      min_new_tokens: it does not stop before; 0 for no such length.
      temperature: 0 for the likeliest token, else see `sampling.Sample`.
      top_k, top_p, min_p: see there, too; not looked at if the temperature is 0. 0, 1
        and 0 keep all tokens.
      repetition_penalty: see `sampling.RepetitionPenalty`; 1 for none.
      beams: texts that are followed at a time; 1 for no search.
      length_penalty: how a search compares texts of different lengths, see `beams.py`;
        not looked at without one.
      stop: texts that end an answer, besides the prompt's end sign.
      seed: of the draws.
      batch_size: rows that speak together; changes the speed, not the answers.
    """

    max_new_tokens: int
    min_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    beams: int
    length_penalty: float
    stop: tuple[str, ...]
    seed: int
    batch_size: int

    @classmethod
    def from_config(cls, config: ConfigDict) -> "GenerateConfig":
        """The section `generate`.

        Raises:
          UserError: the section or a key is missing, unknown or out of range.
        """
        values = dict(config.get("generate", {}))
        names = {field.name for field in fields(cls)}
        if wrong := sorted(names ^ values.keys()):
            raise UserError(
                f"config.generate must have exactly the keys {', '.join(sorted(names))}"
                f": it lacks, or has too many, {', '.join(wrong)}"
            )
        if isinstance(values["stop"], str):
            raise UserError(
                f"generate.stop is the text {values['stop']!r}: give a list of texts, "
                f"({values['stop']!r},)"
            )
        return cls(**values | {"stop": tuple(values["stop"])})

    def __post_init__(self):
        for name in ("max_new_tokens", "batch_size", "beams"):
            if getattr(self, name) < 1:
                raise UserError(f"generate.{name} must be at least 1")
        for name in ("temperature", "top_k"):
            if getattr(self, name) < 0:
                raise UserError(f"generate.{name} must not be negative")
        if not 0 <= self.min_new_tokens < self.max_new_tokens:
            raise UserError(
                "generate.min_new_tokens must be at least 0 and less than "
                f"max_new_tokens, {self.max_new_tokens}"
            )
        if not 0 < self.top_p <= 1:
            raise UserError("generate.top_p must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise UserError("generate.min_p must be at least 0 and at most 1")
        if not self.repetition_penalty > 0:
            raise UserError("generate.repetition_penalty must be above 0 (1: none)")
        if self.beams > 1 and self.temperature > 0:
            raise UserError(
                f"generate.beams is {self.beams}, but beams follow the likeliest texts "
                "and draw nothing: set generate.temperature to 0, or beams to 1"
            )
        if not all(isinstance(text, str) and text for text in self.stop):
            raise UserError(
                f"generate.stop {self.stop!r} must be texts, none of them empty"
            )

    @property
    def choice(self) -> Choice:
        """How the next token is chosen, as one rule."""
        processors = []
        if self.repetition_penalty != 1:
            processors.append(RepetitionPenalty(self.repetition_penalty))
        if self.min_new_tokens > 0:
            processors.append(MinimumLength(self.min_new_tokens))
        method = Greedy()
        if self.temperature > 0:
            method = Sample(self.temperature, self.top_k, self.top_p, self.min_p)
        return Choice(tuple(processors), method)


# The likeliest tokens, each taken at once; what else is wanted is a change of it.
GREEDY = GenerateConfig(
    max_new_tokens=300,
    min_new_tokens=0,
    temperature=0.0,
    top_k=0,
    top_p=1.0,
    min_p=0.0,
    repetition_penalty=1.0,
    beams=1,
    length_penalty=1.0,
    stop=(),
    seed=0,
    batch_size=8,
)


@dataclass(frozen=True)
class Speaker:
    """What turns pooled audio and a question into words."""

    adapter: Adapter
    llama: Llama
    tokenizer: Tokenizer

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
    ) -> "Speaker":
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
        return cls(loaded, llama.unstack(), weights.load_tokenizer(language_model))


def answer(
    speaker: Speaker,
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
    speaker: Speaker,
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
    """
    if not requests:
        return
    texts = (prompt.end_sign, *config.stop)
    waiting = waiting_of(speaker, prompt, requests, config)
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
    speaker: Speaker,
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
    """
    if config.beams > 1:
        yield from answer(speaker, prompt, [request], config, mesh=mesh)
        return
    texts = (prompt.end_sign, *config.stop)
    waiting = waiting_of(speaker, prompt, [request], config)
    shown = 0
    for tokens in _conversation(speaker, prompt, waiting, config, mesh).pieces(STEPS):
        sure = settled(speaker.tokenizer.spell(tokens), texts)
        if sure[shown:]:
            yield sure[shown:]
        shown = len(sure)
    if rest := tidy(speaker.tokenizer.decode(tokens), texts)[shown:]:
        yield rest


def _conversation(
    speaker: Speaker,
    prompt: PromptConfig,
    waiting: Sequence[Waiting],
    config: GenerateConfig,
    mesh: jax.sharding.Mesh | None,
) -> Conversation:
    return Conversation(
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
    speaker: Speaker,
    prompt: PromptConfig,
    requests: Sequence[tuple[Features, str]],
    config: GenerateConfig,
) -> list[Waiting]:
    """The requests as prompts.

    A prompt's draws come from what is asked about what, not from where it stands.
    """
    waiting = []
    for index, (features, question) in enumerate(requests):
        features = np.ascontiguousarray(features, np.float32)
        example = encode(speaker.tokenizer, prompt, question, None, len(features))
        asked = f"{config.seed}\n{question}\n".encode() + features.tobytes()
        text = Text(features, tuple(example.tokens), tuple(example.audio_slot))
        waiting.append(Waiting(index, text, zlib.crc32(asked)))
    return waiting
