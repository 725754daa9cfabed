"""Which turns of a conversation a model is shown."""

from collections.abc import Sequence

from musilingo_jax.answering.config import Decoding
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.speaker import Speaker


def newest_that_fit(
    model: Speaker,
    excerpt: Excerpt,
    question: str,
    turns: Sequence[tuple[str, str]],
    decoding: Decoding,
) -> list[tuple[str, str]]:
    """The newest turns that a prompt has room for, the next answer included.

    Args:
      model: what answers.
      excerpt: what it heard of the song.
      question: what is asked next.
      turns: questions about the song and their answers, the oldest first.
      decoding: how the next question is answered.
    """
    shown = list(turns)
    room = model.context - model.decoding(**decoding).max_new_tokens
    while shown and model.prompt_length(excerpt, question, shown) > room:
        del shown[0]
    return shown
