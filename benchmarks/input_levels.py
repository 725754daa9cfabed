"""Asks about the bundled test clips, recorded louder and quieter.

    python benchmarks/input_levels.py
    python benchmarks/input_levels.py --level=0      # without bringing them to a level
    python benchmarks/input_levels.py --bits=16      # stored as 16-bit samples

Each clip is multiplied by a gain, its louder samples clipped if it is stored in 16
bits, and brought to a level; then all questions of the embedded corpus about it are
asked. Prints for each gain how many questions with a known answer are answered rightly,
and how many answers are not those at gain 1, by attribute.
"""

import collections
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import app, flags

sys.path.insert(0, str(Path(__file__).parent.parent))

from musilingo_jax.answering.answer import answer
from musilingo_jax.answering.model import Model
from musilingo_jax.audio import waveforms
from musilingo_jax.audio.features import encode
from musilingo_jax.audio.level import brought_to
from musilingo_jax.corpora import corpus
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.metrics import facts

LEVEL = flags.DEFINE_float("level", 0.1, "root mean square; 0 to leave the clips alone")
BITS = flags.DEFINE_integer("bits", 0, "bits of a stored sample; 0 for fractions")
GAINS = flags.DEFINE_multi_float("gain", [0.05, 0.1, 0.25, 0.5, 1.0, 2.5], "a gain")


def stored(waveform: np.ndarray, bits: int) -> np.ndarray:
    """What is read again after storing whole numbers of so many bits."""
    if not bits:
        return waveform
    scale = 2 ** (bits - 1)
    whole = np.clip(np.round(waveform * scale), -scale, scale - 1)
    return (whole / scale).astype(np.float32)


def at_level(waveform: np.ndarray) -> Iterator[np.ndarray]:
    """The waveform in one block, brought to the level that the flag says."""
    return brought_to(LEVEL.value, lambda tell: iter([waveform]), print)


def main(argv: list[str]) -> None:
    """Prints the table."""
    del argv
    chat = Model.load("musilingo-tiny")
    records = [r for r in corpus.load("musilingo-tiny-corpus") if r.split == "test"]
    records = [r for r in records if r.question]
    rate = chat.listener.mert.config.sample_rate
    clips = list({r.clip: r.audio for r in records}.items())
    waves = [waveforms.load(path, sample_rate=rate) for _, path in clips]
    answers: dict[float, list[str]] = {}
    for gain in dict.fromkeys([1.0, *GAINS.value]):
        songs = [at_level(stored(w * np.float32(gain), BITS.value)) for w in waves]
        features = {}
        for number, vectors in encode(
            chat.listener.mert, songs, chat.usage.features, chat.listener.mesh
        ):
            assert isinstance(vectors, np.ndarray), vectors
            features[clips[number][0]] = vectors
        requests = [(features[r.clip], r.question) for r in records]
        usage = chat.usage
        answers[gain] = answer(chat.answerer, usage.prompt, requests, usage.generate)
    kinds = sorted({r.attribute for r in records if r.attribute})
    print(f"{'gain':>5} {'right':>9} {'changed':>9}  " + "  ".join(kinds))
    for gain in sorted(answers):
        right, changed, total = scores(records, answers[gain], answers[1.0])
        print(
            f"{gain:5} {sum(right.values()):4}/{sum(total.values()):4} "
            f"{sum(a != b for a, b in zip(answers[gain], answers[1.0], strict=True)):4}"
            f"/{len(records):4}  "
            + "  ".join(f"{right[k]:g}/{total[k]} ({changed[k]})" for k in kinds)
        )


def scores(
    records: list, given: list[str], before: list[str]
) -> tuple[collections.Counter, collections.Counter, collections.Counter]:
    """Attribute → right answers; answers that changed; questions with a value."""
    right, changed, total = (collections.Counter() for _ in range(3))
    values = facts.vocabulary((r.attribute, r.value) for r in records)
    rows = [
        AnsweredQuestion.of(r, text) for r, text in zip(records, given, strict=True)
    ]
    found = facts.score(rows, given, values).scores
    # The strictest score of each row: for a key the exact one.
    scored = np.fmin.reduce(np.stack([*found.values()]), axis=0)
    for record, score, text, earlier in zip(
        records, scored, given, before, strict=True
    ):
        if np.isnan(score) or record.attribute is None:
            continue
        total[record.attribute] += 1
        changed[record.attribute] += text != earlier
        right[record.attribute] += score == 1
    return right, changed, total


if __name__ == "__main__":
    app.run(main)
