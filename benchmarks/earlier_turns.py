"""Whether the embedded model stays right when earlier turns stand in its prompt.

    python benchmarks/earlier_turns.py --turns=0,1,2,3

It learnt from single questions. Each question of the test split whose answer names a
value is asked after so many other questions about the same clip and their true answers.
Printed are the right answers, by attribute.
"""

import collections
import random

import numpy as np
from absl import app, flags

import musilingo_jax
from musilingo_jax.corpora import songs as corpus
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.metrics import facts

TURNS = flags.DEFINE_list("turns", ["0", "1", "2", "3"], "how many earlier turns")
CLIPS = flags.DEFINE_integer("clips", 24, "clips of the test split at most")


def main(argv: list[str]) -> None:
    """Prints the table."""
    del argv
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


if __name__ == "__main__":
    app.run(main)
