"""How answers are decoded: the section `config.generate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from ml_collections import ConfigDict

from musilingo_jax.answering.sampling import (
    Choice,
    Greedy,
    MinimumLength,
    Processor,
    RepetitionPenalty,
    Sample,
)
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import check, read_section, setting

# Larger numbers are infinite on the device.
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class GenerateConfig:
    """How answers are decoded; the names are those of the `transformers` library.

    Attributes:
      max_new_tokens: an answer that has not stopped by then is cut.
      min_new_tokens: an answer does not stop before; 0 for no such length.
      temperature: 0 takes the likeliest token; above 0 see `sampling.Sample`.
      top_k, top_p, min_p: see there, too; ignored if the temperature is 0. 0, 1 and 0
        keep all tokens.
      repetition_penalty: see `sampling.RepetitionPenalty`; 1 for none.
      beams: texts that a beam search follows; 1 for no search. With a temperature above
        0, their continuations are drawn (`beam_search.py`).
      length_penalty: how a beam search compares texts of different lengths, see
        `beam_search.py`; ignored without one.
      stopping: "each_beam" ends each text of a beam search at its own stop text;
        "first_beam" ends the search at that of the best text, as MusiLingo's demo does.
        Without a beam search there is only one text, so both are the same.
      stop: texts that end an answer, besides the prompt's end sign.
      seed: what the draws are derived from.
      batch_size: rows that are decoded together; changes the speed, not the answers.
    """

    max_new_tokens: int = setting(at_least=1)
    min_new_tokens: int = setting(at_least=0)
    temperature: float = setting(at_least=0, at_most=_LARGEST)
    top_k: int = setting(at_least=0)
    top_p: float = setting(above=0, at_most=1)
    min_p: float = setting(at_least=0, at_most=1)
    repetition_penalty: float = setting(above=0, at_most=_LARGEST)
    beams: int = setting(at_least=1)
    length_penalty: float = setting(at_least=-_LARGEST, at_most=_LARGEST)
    stopping: str = setting(choices=("each_beam", "first_beam"), before="each_beam")
    stop: tuple[str, ...] = setting()
    seed: int = setting()
    batch_size: int = setting(at_least=1)

    @classmethod
    def from_config(cls, config: ConfigDict) -> "GenerateConfig":
        """Reads the section `generate`.

        Raises:
          UserError: the section or a key is missing, unknown or out of bounds.
        """
        return read_section(cls, config.get("generate", {}), "config.generate")

    def __post_init__(self):
        check(self, "generate")
        if self.min_new_tokens >= self.max_new_tokens:
            raise UserError(
                f"generate.min_new_tokens is {self.min_new_tokens}: it must be less "
                f"than generate.max_new_tokens, {self.max_new_tokens}"
            )
        if "" in self.stop:
            raise UserError(
                f"generate.stop is {self.stop!r}: leave out the empty text, with which "
                "every answer would end at once"
            )

    def check_room(self, prompt: int, context: int, vocab: int) -> None:
        """Checks that these settings fit a language model.

        Args:
          prompt: tokens of the longest prompt, its audio included.
          context: tokens that the language model reads at most.
          vocab: tokens in its vocabulary.

        Raises:
          UserError: a prompt and its answer are too long, or there are more beams than
            tokens.
        """
        if prompt + self.max_new_tokens > context:
            raise UserError(
                f"generate.max_new_tokens is {self.max_new_tokens}, after up to "
                f"{prompt} tokens of a prompt, but the language model reads at most "
                f"{context} in all: lower it"
            )
        if self.beams > vocab:
            raise UserError(
                f"generate.beams is {self.beams}, but the language model knows only "
                f"{vocab} tokens to continue with: lower it"
            )

    @property
    def choice(self) -> Choice:
        """How the next token is chosen, as one rule."""
        processors: list[Processor] = []
        if self.repetition_penalty != 1:
            processors.append(RepetitionPenalty(self.repetition_penalty))
        if self.min_new_tokens > 0:
            processors.append(MinimumLength(self.min_new_tokens))
        method: Greedy | Sample = Greedy()
        if self.temperature > 0:
            method = Sample(self.temperature, self.top_k, self.top_p, self.min_p)
        return Choice(tuple(processors), method)

    @property
    def cut_mark(self) -> str:
        """What to show after an answer that is cut."""
        return f" … (cut after {self.max_new_tokens} tokens)"


class Decoding(TypedDict, total=False):
    """How one answer is decoded; what is not given is as the model's own config says.

    Attributes:
      temperature: 0 takes the likeliest token; above 0, tokens are drawn.
      top_p: draws among the fewest tokens whose probabilities add up to it.
      max_new_tokens: an answer that has not ended by then is cut.
      seed: of the draws.
      stop: a text that ends the answer, or several.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int
    stop: str | Sequence[str]


# The likeliest token, again and again; other ways of decoding are changes of this one.
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
    stopping="each_beam",
    stop=(),
    seed=0,
    batch_size=8,
)
