"""A question about a song, and all that its answer depends on."""

from dataclasses import dataclass

from musilingo_jax.answering.answer import check_question, prompt_tokens, seed_of
from musilingo_jax.answering.answerer import Answerer
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.padded_prompts import Features, PromptTokens
from musilingo_jax.answering.usage import Usage
from musilingo_jax.runtime.errors import UserError


@dataclass(frozen=True)
class Question:
    """A question about a song.

    Attributes:
      features: what was heard of the song.
      text: what is asked.
      earlier: questions that were asked about it before, and their answers.
      decoding: how it is answered.
    """

    features: Features
    text: str
    earlier: tuple[tuple[str, str], ...]
    decoding: GenerateConfig

    def prompt(self, answerer: Answerer, usage: Usage) -> PromptTokens:
        """What the model reads."""
        return prompt_tokens(
            answerer, usage.prompt, self.features, self.text, self.earlier
        )

    @property
    def seed(self) -> int:
        """What the draws of the answer are derived from."""
        return seed_of(self.decoding, self.features, self.text, self.earlier)

    def checked(self, answerer: Answerer, usage: Usage) -> "Question":
        """This question, if it can be answered.

        Raises:
          UserError: it is empty or no text, longer than any in training, or ends the
            conversation that it is put into; or there is no room for its answer.
        """
        if not self.text.strip():
            raise UserError("the question is empty: ask something")
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"the question {self.text[:40]!a} holds bytes that are no text in "
                "UTF-8: type it anew, or convert the file"
            ) from error
        check_question(usage.prompt, self.text)
        alone = prompt_tokens(answerer, usage.prompt, self.features, self.text)
        length = len(alone.tokens)
        if length > usage.max_tokens:
            raise UserError(
                f"the question {self.text[:40]!r}… takes {length} tokens with its "
                f"song, and training saw at most {usage.max_tokens}: ask a shorter one"
            )
        if self.earlier:
            length = len(self.prompt(answerer, usage).tokens)
        vocab = answerer.llama.config.vocab
        self.decoding.check_room(length, answerer.context, vocab)
        return self
