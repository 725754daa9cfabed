"""Captions that agree with the fields of their songs.

    kept           the model's caption has no fault
    regenerated    another one, drawn, has none
    shortened      all have some: the faulty sentences of one are dropped
    dropped        nothing of it is left

Of captions that all have faults, the one with the fewest faulty sentences is shortened,
the first of several; what is left is looked at once more. Draws follow from the seed,
the song and the number of the try, so that they are the same in any company.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from musilingo_jax.answering.answer import Answer
from musilingo_jax.answering.model import CAPTION
from musilingo_jax.answering.padded_prompts import Features
from musilingo_jax.captioning.asker import Asker
from musilingo_jax.captioning.contradictions import Facts, Fault, faults, without

KEPT, REGENERATED, SHORTENED, DROPPED = "kept", "regenerated", "shortened", "dropped"
OUTCOMES = (KEPT, REGENERATED, SHORTENED, DROPPED)


class Drawing(NamedTuple):
    """How other captions are drawn.

    Attributes:
      tries: how often; 0 for never.
      temperature: of the draws.
      seed: of the first try; the next one has the next seed.
    """

    tries: int
    temperature: float
    seed: int


class Checked(NamedTuple):
    """A caption after all checks.

    Attributes:
      text: None if it was dropped.
      outcome: of `OUTCOMES`.
      tries: how many other captions were drawn.
      own: the model's own caption, which is the first one.
      faults: of that.
    """

    text: str | None
    outcome: str
    tries: int
    own: str
    faults: tuple[Fault, ...]

    def stored(self) -> dict[str, Any]:
        """What a row says of the check."""
        return {
            "outcome": self.outcome,
            "tries": self.tries,
            "own": self.own,
            "faults": [fault._asdict() for fault in self.faults],
        }


class _Attempt(NamedTuple):
    text: str
    faults: tuple[Fault, ...]

    @classmethod
    def of(cls, answer: Answer, facts: Facts) -> "_Attempt":
        text = answer.text.strip()
        return cls(text, tuple(faults(text, facts, is_cut=answer.is_cut)))

    @property
    def faulty(self) -> int:
        """How many sentences have faults; no sentence at all is worse than any."""
        found = {fault.sentence for fault in self.faults}
        return len(found) if self.text else 1_000_000


def check(
    asker: Asker,
    features: Sequence[Features],
    facts: Sequence[Facts],
    first: Sequence[Answer],
    drawing: Drawing,
) -> list[Checked]:
    """Checks the captions of some songs, and asks again where they have faults.

    Args:
      asker: the model.
      features: of each song.
      facts: of each song.
      first: the model's own caption of each song.
      drawing: how others are drawn.

    Returns:
      What became of each song's caption.
    """
    attempts = [
        [_Attempt.of(answer, known)] for answer, known in zip(first, facts, strict=True)
    ]
    for number in range(drawing.tries):
        places = [p for p, each in enumerate(attempts) if each[-1].faults]
        if not places:
            break
        answers = asker.drawn(
            [(features[place], CAPTION) for place in places],
            seed=drawing.seed + number,
            temperature=drawing.temperature,
        )
        for place, answer in zip(places, answers, strict=True):
            attempts[place].append(_Attempt.of(answer, facts[place]))
    return [_settled(each, known) for each, known in zip(attempts, facts, strict=True)]


def _settled(attempts: Sequence[_Attempt], facts: Facts) -> Checked:
    """What becomes of a caption, after all tries."""
    *others, last = attempts
    own = attempts[0]
    if not last.faults:
        outcome = REGENERATED if others else KEPT
        return Checked(last.text, outcome, len(others), *own)
    best = min(attempts, key=lambda each: each.faulty)
    text, left = best.text, best.faults
    # A sentence may be read otherwise when its neighbours are gone.
    while text and left:
        text = without(text, left)
        left = tuple(faults(text, facts, is_cut=False)) if text else ()
    outcome = SHORTENED if text else DROPPED
    return Checked(text or None, outcome, len(others), *own)
