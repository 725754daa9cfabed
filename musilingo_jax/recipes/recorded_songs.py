"""A corpus of recordings, with questions and answers from pseudo-labels.

The songs stay where they are: a line of `songs.jsonl` names a song, and the seconds of
it that an excerpt was taken from.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from musilingo_jax.corpora import fact_questions, songs
from musilingo_jax.corpora.facts import FACTS
from musilingo_jax.recipes import no_music, pseudo_labels
from musilingo_jax.recipes.augmentation import slowed
from musilingo_jax.recipes.excerpts import RecordedSet
from musilingo_jax.recipes.lessons import SOUNDS, Lessons, sound_of
from musilingo_jax.recipes.soundfont import SAMPLE_RATE
from musilingo_jax.runtime import cli, storage

# Of the questions whose answer is that it cannot be told, so many are kept.
_UNSURE_SHARE = 0.08
# The speeds of slowed copies of the excerpts whose tempo is known.
_SPEEDS = (0.5, 0.95)
# Silent clips, for each so many excerpts.
_SILENT_EVERY = 50

Row = dict[str, object]


def known_facts(
    recorded: RecordedSet, lessons: Lessons, *, likely: bool = False
) -> list[dict[str, str]]:
    """What is taken for known of each excerpt: fact → value.

    Args:
      recorded: the excerpts.
      lessons: what the teachers heard in them.
      likely: as in `pseudo_labels.facts`.
    """
    found = []
    rows = cli.progress(
        range(len(recorded)), total=len(recorded), unit="excerpt", label="facts"
    )
    for row in rows:
        sound = sound_of(recorded.packages[row])
        if sound != SOUNDS[0]:
            found.append({"sound": sound})
            continue
        known = pseudo_labels.facts(lessons.tag_logits(row), likely=likely)
        if lessons.noted[row]:
            known |= pseudo_labels.key(lessons.chroma[row])
        known |= pseudo_labels.beats(float(lessons.bpm[row]))
        found.append(known)
    return found


def write_corpus(
    folder: Path,
    recorded: RecordedSet,
    facts: list[dict[str, str]],
    bpm: Float[np.ndarray, " excerpts"],
    *,
    split: str,
    seed: int,
) -> None:
    """Writes songs.jsonl: captions, short and long questions, and their answers.

    Args:
      folder: where to write; gets a silent clip, and slowed copies of excerpts.
      recorded: the excerpts.
      facts: of each excerpt, from `known_facts`.
      bpm: beats per minute of each excerpt, NaN where they are not known.
      split: "train", with questions about what is not known, too; or "test", with one
        about each fact that is known and nothing else.
      seed: of the texts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seconds = recorded.waveform.shape[1] / SAMPLE_RATE
    silent = folder / "silence.flac"
    soundfile.write(silent, np.zeros(round(seconds * SAMPLE_RATE)), SAMPLE_RATE)
    rows: list[Row] = []
    for index, known in enumerate(facts):
        rng = np.random.default_rng([seed, index])
        start = recorded.starts[index]
        about: Row = {
            "audio": str(recorded.paths[index]),
            "split": split,
            "start": round(start, 3),
            "end": round(start + seconds, 3),
        }
        said = tested(known, rng) if split == "test" else taught(known, rng)
        rows += [{**about, **row} for row in said]
    if split == "train":
        about = {"audio": silent.name, "split": split}
        for index in range(len(facts) // _SILENT_EVERY):
            rng = np.random.default_rng([seed, len(facts) + index])
            known = {"sound": no_music.SILENCE}
            rows += [{**about, **row} for row in taught(known, rng)]
        rows += _slowed(folder, recorded, bpm, seed)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    storage.write_text(folder / songs.FILE_NAME, text)


def _slowed(
    folder: Path,
    recorded: RecordedSet,
    bpm: Float[np.ndarray, " excerpts"],
    seed: int,
) -> list[Row]:
    """Writes slowed copies of excerpts; asks for their tempo, and if they are music."""
    (folder / "slowed").mkdir(exist_ok=True)
    rows: list[Row] = []
    chosen = np.flatnonzero(~np.isnan(bpm))
    total = len(chosen)
    for index in cli.progress(chosen, total=total, unit="clip", label="slowed"):
        rng = np.random.default_rng([seed, int(index), 1])
        speed = float(rng.uniform(*_SPEEDS))
        name = f"slowed/{index:05d}.flac"
        sound = slowed(recorded.heard(int(index)), speed)
        soundfile.write(folder / name, sound, SAMPLE_RATE, subtype="PCM_16")
        known = {"sound": SOUNDS[0], **pseudo_labels.beats(speed * float(bpm[index]))}
        for fact in ("beats", "tempo", "sound"):
            question, answer, value = fact_questions.short(known, fact, rng)
            row: Row = {"audio": name, "split": "train", "question": question}
            rows.append({**row, "answer": answer, "attribute": fact, "value": value})
    return rows


def taught(known: Mapping[str, str], rng: np.random.Generator) -> list[Row]:
    """A caption, questions about what is known and some about what is not."""
    rows: list[Row] = [{"answer": fact_questions.caption(known, rng)}]
    is_music = known["sound"] == SOUNDS[0]
    for fact in fact_questions.ASKED_OF_RECORDINGS:
        question, answer, value = fact_questions.short(known, fact, rng)
        if value is not None:
            named = {"attribute": fact, "value": value}
            rows.append({"question": question, "answer": answer, **named})
        elif rng.random() < (_UNSURE_SHARE if is_music else 0.5):
            rows.append({"question": question, "answer": answer})
    for question, answer in fact_questions.long(known, rng):
        rows.append({"question": question, "answer": answer})
    return rows


def tested(known: Mapping[str, str], rng: np.random.Generator) -> list[Row]:
    """A short question about each fact that is known."""
    rows: list[Row] = []
    for fact in FACTS:
        if fact in known and fact in fact_questions.OF_RECORDINGS:
            question, answer, value = fact_questions.short(known, fact, rng)
            row: Row = {"question": question, "answer": answer}
            rows.append({**row, "attribute": fact, "value": value})
    return rows
