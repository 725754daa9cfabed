"""What the benchmarks of multiple choices share: options in order, three rules."""

import random
from collections.abc import Sequence

from musilingo_jax.benchmarks.item import HONEST, LIKELIHOOD, Score
from musilingo_jax.evaluation.metrics.choices import LETTERS
from musilingo_jax.runtime.errors import UserError

ACCURACY = "accuracy, published rule"
READ = Score(
    "multiple_choice",
    "accuracy, answers as read",
    HONEST,
    "the answer chooses the right option, by its text, by its letter in any usual "
    "form, or by both; two different options count as none",
)
CHOSEN = Score(
    "multiple_choice_answered",
    "answered, as read",
    HONEST,
    "the answer chooses an option, right or wrong",
    is_evidence=False,
)
LIKELIEST = Score(
    LIKELIHOOD,
    "accuracy, by likelihood",
    LIKELIHOOD,
    "the right option costs the fewest nats per token behind the question, which is "
    "asked without options; nothing is lost to the form of an answer",
)


def order(count: int, identity: str, seed: int) -> list[int]:
    """A random order of options, which depends on nothing but its arguments."""
    places = list(range(count))
    # Of a text, `random` takes a digest, which is the same in every process.
    random.Random(f"{seed} {identity}").shuffle(places)
    return places


def lettered(options: Sequence[str]) -> str:
    """“(A) Drums. (B) A flute. ”, with a space at the end."""
    pairs = zip(LETTERS, options, strict=False)
    return "".join(f"({letter}) {option} " for letter, option in pairs)


def check(options: Sequence[str], right: str, *, where: str) -> None:
    """Checks the options of a question.

    Args:
      options: their texts.
      right: the text of the right one.
      where: the question is, for messages.

    Raises:
      UserError: there are too few or too many, one is empty, or the right one is not
        among them.
    """
    if not 2 <= len(options) <= len(LETTERS):
        raise UserError(
            f"{where}: has {len(options)} options: a choice needs 2 to {len(LETTERS)}"
        )
    if any(not option.strip() for option in options):
        raise UserError(f"{where}: an option is empty, and any answer would contain it")
    if right not in options:
        raise UserError(f"{where}: the answer {right!r:.60} is not among the options")
