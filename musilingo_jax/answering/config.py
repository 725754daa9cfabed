"""How answers are made: the numbers of `config.generate`, checked."""

from dataclasses import dataclass, fields

import numpy as np
from ml_collections import ConfigDict

from musilingo_jax.answering.sampling import (
    Choice,
    Greedy,
    MinimumLength,
    RepetitionPenalty,
    Sample,
)
from musilingo_jax.runtime.errors import UserError

# Beyond it a number is infinite on the device.
_LARGEST = float(np.finfo(np.float32).max)


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
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is float and not abs(value) <= _LARGEST:
                raise UserError(
                    f"generate.{field.name} is {value}: give a number that is finite"
                )
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

    def check_room(self, prompt: int, context: int, vocab: int) -> None:
        """Checks that a language model can hold such answers.

        Args:
          prompt: tokens of the longest prompt, its audio included.
          context: tokens that the language model reads at most.
          vocab: tokens that it knows.

        Raises:
          UserError: it cannot.
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
                f"{vocab} tokens to go on with: lower it"
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
