"""How a stage of training puts questions, which is how its model must be asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.corpora.records import Record
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import read_section, setting
from musilingo_jax.runtime.top_level import check_top_level

if TYPE_CHECKING:
    from ml_collections import ConfigDict

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
      max_tokens: tokens of a prompt with its audio and its answer at most.
      max_windows: audio vectors of a song at most; longer songs are cropped.
    """

    prompt: PromptConfig
    questions: str = setting(choices=tuple(QUESTIONS))
    max_tokens: int = setting(at_least=1)
    max_windows: int = setting(at_least=1)

    @classmethod
    def of_stage(
        cls, config: "Mapping[str, Any] | ConfigDict", name: str
    ) -> "QuestionFormat":
        """Reads the stage `name` of a config.

        Raises:
          UserError: the section or a key is missing or out of bounds.
        """
        if name not in config:
            raise UserError(
                f"config.stages names {name!r}, but there is no such section"
            )
        return read_section(cls, config[name], f"config.{name}", allow_others=True)


def question_format(
    config: "Mapping[str, Any] | ConfigDict", question: str
) -> QuestionFormat | None:
    """The format of the last stage that learns from such questions; None without one.

    Args:
      config: the config of an experiment.
      question: what is asked; "" for a caption.

    Raises:
      UserError: `stages` is not a list of names, or as in `QuestionFormat.of_stage`.
    """
    check_top_level(config, ("stages",), "config")
    for name in reversed(config["stages"]):
        stage = QuestionFormat.of_stage(config, name)
        if stage.questions in ("all", "questions" if question else "captions"):
            return stage
    return None
