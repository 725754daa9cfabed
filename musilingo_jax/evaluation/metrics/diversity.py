"""How varied the answers of a system are, and how long."""

from collections.abc import Sequence

from musilingo_jax.evaluation.metrics.words import words


def distinct(answers: Sequence[str], order: int) -> float | None:
    """Distinct n-grams over all n-grams of all answers (Li et al. 2016).

    None if no answer has `order` words. It falls with the number of answers: compare it
    only with that of the references to the same questions.
    """
    grams = [
        gram
        for answer in answers
        for gram in zip(*(words(answer)[i:] for i in range(order)), strict=False)
    ]
    return len(set(grams)) / len(grams) if grams else None


def length(answer: str) -> int:
    """The number of words of an answer."""
    return len(words(answer))


def of(answers: Sequence[str]) -> dict[str, float | None]:
    """Distinct-1, distinct-2 and mean number of words; None if there are no words."""
    mean = sum(map(length, answers)) / len(answers) if answers else None
    return {
        "distinct1": distinct(answers, 1),
        "distinct2": distinct(answers, 2),
        "length": mean,
    }
