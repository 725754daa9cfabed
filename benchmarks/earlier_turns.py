"""Earlier turns in a prompt: what they do to answers, and what they cost.

    python benchmarks/earlier_turns.py --turns=0,1,2,3
    python benchmarks/earlier_turns.py --conversations=4

The first asks whether the embedded model stays right. It learnt from single questions.
Each question of the test split whose answer names a value is asked after so many other
questions about the same clip and their true answers. Printed are the right answers, by
attribute.

The second holds conversations of eight turns, each twice: in a row that keeps what was
said, and in one that a question about another clip takes in between, so that all but
the song is read again. Printed are the tokens that are read for a turn and the seconds
to the first piece of its answer, as medians, and how many answers are the same.
"""

import collections
import random
import time
from collections.abc import Sequence

import numpy as np
from absl import app, flags

import musilingo_jax
from musilingo_jax.corpora import songs as corpus
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.metrics import facts

TURNS = flags.DEFINE_list("turns", ["0", "1", "2", "3"], "how many earlier turns")
CLIPS = flags.DEFINE_integer("clips", 24, "clips of the test split at most")
TALKS = flags.DEFINE_integer("conversations", 0, "conversations, instead of the former")

_QUESTIONS = (
    "What style of music is this?",
    "How do you know the style?",
    "Which instrument plays the melody?",
    "What is the tempo?",
    "Which key is it in?",
    "Do you hear drums?",
    "What is the mood of this music?",
    "Describe this music.",
)


def main(argv: list[str]) -> None:
    """Prints the table."""
    del argv
    if TALKS.value:
        _print_costs(TALKS.value)
        return
    records = [r for r in corpus.load("musilingo-tiny-corpus") if r.question]
    records = [r for r in records if r.split == "test"]
    clips = list(dict.fromkeys(r.clip for r in records))[: CLIPS.value]
    records = [r for r in records if r.clip in clips]
    asked = [r for r in records if r.attribute]
    values = facts.vocabulary((r.attribute, r.value) for r in asked)
    model = musilingo_jax.load(rows=16)
    heard = {r.clip: model.hear(r.audio) for r in records}
    for turns in map(int, TURNS.value):
        pending = []
        for number, record in enumerate(asked):
            others = [
                r
                for r in records
                if r.clip == record.clip and r.attribute != record.attribute
            ]
            chosen = random.Random(number).sample(others, turns)
            earlier = [(r.question, r.answer) for r in chosen]
            excerpt = heard[record.clip]
            pending.append(model.submit(excerpt, record.question, earlier=earlier))
        given = [answer.answer().text for answer in pending]
        rows = [AnsweredQuestion.of(r, g) for r, g in zip(asked, given, strict=True)]
        found = facts.score(rows, given, values).scores
        # The strictest score of each row: for a key the exact one.
        scored = np.fmin.reduce(np.stack([*found.values()]), axis=0)
        right, total = collections.Counter(), collections.Counter()
        for record, score in zip(asked, scored, strict=True):
            total[record.attribute] += not np.isnan(score)
            right[record.attribute] += score == 1
        print(
            f"{turns} turns: {sum(right.values())}/{sum(total.values())} right  "
            + "  ".join(f"{name} {right[name]}/{total[name]}" for name in sorted(total))
        )


def _print_costs(count: int) -> None:
    """Holds conversations with and without what rows keep, and prints both."""
    records = [r for r in corpus.load("musilingo-tiny-corpus") if r.split == "test"]
    songs = list(dict.fromkeys(r.audio for r in records))[: count + 1]
    model = musilingo_jax.load(rows=1)
    other, *heard = [model.hear(song) for song in songs]
    kept, again = [], []
    for excerpt in [heard[0], *heard]:  # The first one compiles; it is not counted.
        kept.append(_conversation(model, excerpt, None))
        again.append(_conversation(model, excerpt, other))
    for turn, question in enumerate(_QUESTIONS):
        columns = [
            np.median(
                [[row[turn][key] for key in (1, 2, 3)] for row in rows[1:]], axis=0
            )
            for rows in (kept, again)
        ]
        (tokens, read, seconds), (_, read_again, seconds_again) = columns
        print(
            f"turn {turn + 1}: {tokens:.0f} tokens, read {read:.0f} or "
            f"{read_again:.0f}, first piece after {1000 * seconds:.1f} or "
            f"{1000 * seconds_again:.1f} ms   {question}"
        )
    pairs = [
        (one[0], two[0])
        for ours, theirs in zip(kept, again, strict=True)
        for one, two in zip(ours, theirs, strict=True)
    ]
    same = sum(one == two for one, two in pairs)
    print(f"{same} of {len(pairs)} answers are the same")


def _conversation(
    model: musilingo_jax.Model,
    excerpt: musilingo_jax.Excerpt,
    other: musilingo_jax.Excerpt | None,
) -> Sequence[tuple[str, int, int, float]]:
    """The answer of each turn, tokens of its prompt, those read, seconds to begin.

    Args:
      model: of one row.
      excerpt: what the conversation is about.
      other: what takes the row before each turn; None for nothing.
    """
    turns: list[tuple[str, int, int, float]] = []
    earlier: list[tuple[str, str]] = []
    for question in _QUESTIONS:
        if other is not None:
            model.submit(other, _QUESTIONS[0]).answer()
        began = time.monotonic()
        pending = model.submit(excerpt, question, earlier=earlier, max_new_tokens=40)
        pieces = pending.pieces()
        text = next(pieces, "")
        seconds = time.monotonic() - began
        text += "".join(pieces)
        earlier.append((question, text))
        read = pending.prompt_tokens - pending.cached_tokens
        turns.append((text, pending.prompt_tokens, read, seconds))
    return turns


if __name__ == "__main__":
    app.run(main)
