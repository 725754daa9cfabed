"""Questions about songs → answers, for songs and questions in memory."""

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from musilingo_jax import weights
from musilingo_jax.decoding import Greedy, Nucleus, Prompts, Sampling, decode
from musilingo_jax.errors import UserError
from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.llama import Llama
from musilingo_jax.prompts import Example, PromptConfig, encode
from musilingo_jax.sharding import batch_sharding
from musilingo_jax.stops import stop_table, tidy
from musilingo_jax.tokenizer import Tokenizer

Features = Float[np.ndarray, "windows width"]

# Prompts are padded to a multiple of this, so that few programs are compiled.
BUCKET = 32


@dataclass(frozen=True)
class GenerateConfig:
    """How answers are made.

    Attributes:
      max_new_tokens: an answer that has not stopped by then is cut.
      temperature: 0 for the likeliest token, else see `Nucleus`.
      top_p: see `Nucleus`; not looked at if the temperature is 0.
      seed: of the draws.
      batch_size: prompts answered together; changes the speed, not the answers.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
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
        return cls(**values)

    def __post_init__(self):
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"generate.{name} must be at least 1")
        if self.temperature < 0:
            raise UserError("generate.temperature must not be negative")
        if not 0 < self.top_p <= 1:
            raise UserError("generate.top_p must be above 0 and at most 1")

    @property
    def sampling(self) -> Sampling:
        if self.temperature == 0:
            return Greedy()
        return Nucleus(temperature=self.temperature, top_p=self.top_p)


@dataclass(frozen=True)
class Speaker:
    """What turns pooled audio and a question into words."""

    adapter: Adapter
    llama: Llama
    tokenizer: Tokenizer

    @classmethod
    def load(
        cls,
        language_model: str,
        adapter: str,
        *,
        dtype: str,
        mesh: jax.sharding.Mesh | None,
    ) -> "Speaker":
        """Loads the released or trained parts.

        Raises:
          UserError: a part is missing, or the two do not fit together.
        """
        llama = weights.load_language_model(language_model, dtype=dtype, mesh=mesh)
        loaded = weights.load_adapter(adapter, mesh=mesh)
        width = loaded.projection.kernel.shape[1]
        if width != llama.config.width:
            raise UserError(
                f"the adapter {adapter} makes vectors of width {width}, but the "
                f"language model {language_model} reads {llama.config.width}: give the "
                "two that were trained together"
            )
        return cls(loaded, llama, weights.load_tokenizer(language_model))


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
    """`answer`, but gives each (index, answer) as soon as its batch is done.

    An answer depends on its own request and on the seed alone: the order, the batch
    size and the neighbours change nothing.
    """
    if not requests:
        return
    stops = stop_table(speaker.tokenizer, prompt.end_sign, speaker.llama.config.vocab)
    examples = [
        encode(speaker.tokenizer, prompt, question, None, len(features))
        for features, question in requests
    ]
    # A power of two: again few programs, and unused vectors cost next to nothing.
    windows = max(len(features) for features, _ in requests)
    windows = 1 << (windows - 1).bit_length()
    # At least two rows: products with a single row are slow on CPUs.
    rows = max(2, min(config.batch_size, len(requests)))
    if mesh is not None:
        shares = mesh.shape["data"] * mesh.shape["fsdp"]
        rows = shares * math.ceil(rows / shares)
    lengths = [len(example.tokens) for example in examples]
    for length, indices in _batches(lengths, rows):
        prompts = _pad(
            [(*requests[i], examples[i]) for i in indices],
            rows=rows,
            length=length,
            windows=windows,
            seed=config.seed,
        )
        if mesh is not None:
            prompts = jax.device_put(prompts, batch_sharding(mesh))
        said = decode(
            speaker.adapter,
            speaker.llama,
            prompts,
            stops,
            sampling=config.sampling,
            max_new_tokens=config.max_new_tokens,
        )
        for index, tokens in zip(indices, np.asarray(said), strict=False):
            text = speaker.tokenizer.decode(tokens[tokens >= 0])
            yield index, tidy(text, prompt.end_sign)


def _batches(
    lengths: Sequence[int], rows: int
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Padded length and indices of each batch: neighbours in length go together."""
    buckets: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        buckets.setdefault(BUCKET * math.ceil(length / BUCKET), []).append(index)
    for length, indices in sorted(buckets.items()):
        for start in range(0, len(indices), rows):
            yield length, tuple(indices[start : start + rows])


def _pad(
    requests: Sequence[tuple[Features, str, Example]],
    *,
    rows: int,
    length: int,
    windows: int,
    seed: int,
) -> Prompts:
    """Prompts of one batch, padded on the left, filled up with rows that say nothing.

    A row's draws come from what is asked about what, not from where it stands.
    """
    prompts = Prompts(
        features=np.zeros((rows, windows, requests[0][0].shape[1]), np.float32),
        tokens=np.zeros((rows, length), np.int32),
        audio_slot=np.full((rows, length), -1, np.int32),
        lengths=np.zeros(rows, np.int32),
        seeds=np.zeros(rows, np.uint32),
    )
    for row, (features, question, example) in enumerate(requests):
        start = length - len(example.tokens)
        prompts.features[row, : len(features)] = features
        prompts.tokens[row, start:] = example.tokens
        prompts.audio_slot[row, start:] = example.audio_slot
        prompts.lengths[row] = len(example.tokens)
        song = np.ascontiguousarray(features, np.float32).tobytes()
        prompts.seeds[row] = zlib.crc32(f"{seed}\n{question}\n".encode() + song)
    return prompts
