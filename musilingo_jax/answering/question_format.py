"""How a stage of training puts questions, which is how its model must be asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.corpora.records import Record
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import read_section, setting

QUESTIONS: dict[str, Callable[[Record], bool]] = {
    "captions": lambda record: not record.question,
    "questions": lambda record: bool(record.question),
    "all": lambda record: True,
}
"""Name → which records a stage learns from."""


@dataclass(frozen=True)
class QuestionFormat:
    """The part of a stage's section that matters after training, too.

    Attributes:
      prompt: the conversation around each song.
      questions: a key of `QUESTIONS`.
      max_tokens: of a prompt with its audio and its answer.
      max_windows: audio vectors of a song that are read at once.
    """

    prompt: PromptConfig
    questions: str = setting(choices=tuple(QUESTIONS))
    max_tokens: int = setting(at_least=1)
    max_windows: int = setting(at_least=1)

    @classmethod
    def of_stage(cls, config: Mapping[str, Any] | ConfigDict, name: str):
        """That of the section `name` of a config.

        Raises:
          UserError: the section or a key is missing or out of bounds.
        """
        if name not in config:
            raise UserError(
                f"config.stages names {name!r}, but there is no such section"
            )
        return read_section(cls, config[name], f"config.{name}", allow_others=True)


def question_format(config: ConfigDict, question: str) -> QuestionFormat | None:
    """That of the last stage that learns from such records; None if none does.

    Args:
      config: of an experiment.
      question: what is asked; "" for a caption.
    """
    for name in reversed(config.stages):
        found = QuestionFormat.of_stage(config, name)
        if found.questions in ("all", "questions" if question else "captions"):
            return found
    return None
