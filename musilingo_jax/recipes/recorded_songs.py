"""A corpus of recordings, with questions and answers from pseudo-labels.

The songs stay where they are: a line of `songs.jsonl` names a song, and some seconds of
it. To measure with, these are the seconds that the teachers heard. To learn from, they
are others nearby: the encoder has learnt what the teachers said of those very seconds,
so what it makes of them is clearer than what it makes of other music, and an adapter
that learnt from them would expect too much.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import soundfile
from jaxtyping import Float

from musilingo_jax.corpora import clips, fact_questions, songs
from musilingo_jax.corpora.facts import FACTS
from musilingo_jax.recipes import no_music, pseudo_labels
from musilingo_jax.recipes.augmentation import slowed
from musilingo_jax.recipes.excerpts import RecordedSet
from musilingo_jax.recipes.lessons import SOUNDS, Lessons, sound_of
from musilingo_jax.recipes.soundfont import SAMPLE_RATE
from musilingo_jax.runtime import cli, storage
from musilingo_jax.runtime.errors import UserError

# Of the questions whose answer is that it cannot be told, so many are kept. A value can
# be said in four ways or so, of which the likeliest is taken, and "I can't tell" in one
# alone: at equal shares it would be said where a value is three times as likely. So a
# quarter is kept of them, but where the teachers hardly ever know a value.
_UNSURE_SHARE = 0.02
_RARELY_KNOWN = ("key", "mode", "manner", "lead")
_RARELY_KNOWN_SHARE = 0.08
# The speeds of slowed copies of excerpts whose tempo is known, and how many of each.
_SPEEDS = (0.5, 0.95)
_COPIES = 2
# So many seconds before or after what the teachers heard is what is learnt from.
_SHIFT = 8.0
# Seconds at the end of a song that compressed files may lack.
_MARGIN = 0.1
# How often the family of an excerpt is asked for, at most.
_MOST_ASKED = 3
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

    Raises:
      UserError: a song to learn from cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seconds = recorded.waveform.shape[1] / SAMPLE_RATE
    silent = folder / "silence.flac"
    soundfile.write(silent, np.zeros(round(seconds * SAMPLE_RATE)), SAMPLE_RATE)
    rows: list[Row] = []
    times = _times(facts)
    for index, known in enumerate(facts):
        rng = np.random.default_rng([seed, index])
        start = recorded.starts[index]
        if split == "train":
            start = _nearby(recorded.paths[index], start, seconds, rng)
        about: Row = {
            "audio": str(recorded.paths[index]),
            "split": split,
            "start": round(start, 3),
            "end": round(start + seconds, 3),
        }
        said = tested(known, rng) if split == "test" else taught(known, rng, times)
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


def _nearby(
    path: Path, start: float, seconds: float, rng: np.random.Generator
) -> float:
    """Where a stretch begins that is near another of the same song, and as long.

    Raises:
      UserError: the song cannot be read.
    """
    length = clips.duration(path, None) if path.is_file() else None
    if length is None:
        raise UserError(f"{path} cannot be read any more: give `make music` again")
    last = max(0.0, length - seconds - _MARGIN)
    return min(max(0.0, start + rng.uniform(-_SHIFT, _SHIFT)), last)


def _times(facts: Sequence[Mapping[str, str]]) -> dict[str, int]:
    """How often each family is asked for: the rarer, the more often.

    By the square root of how many times as frequent the most frequent one is: half of
    the music of games is electronic, and other people's is not.
    """
    count = Counter(known["family"] for known in facts if "family" in known)
    most = max(count.values(), default=0)
    return {
        family: min(_MOST_ASKED, round((most / each) ** 0.5))
        for family, each in count.items()
    }


def _slowed(
    folder: Path,
    recorded: RecordedSet,
    bpm: Float[np.ndarray, " excerpts"],
    seed: int,
) -> list[Row]:
    """Writes slowed copies of excerpts; asks for their tempo, and if they are music."""
    (folder / "slowed").mkdir(exist_ok=True)
    rows: list[Row] = []
    chosen = [
        (int(index), copy)
        for index in np.flatnonzero(~np.isnan(bpm))
        for copy in range(_COPIES)
    ]
    for index, copy in cli.progress(
        chosen, total=len(chosen), unit="clip", label="slowed"
    ):
        rng = np.random.default_rng([seed, index, 1 + copy])
        speed = float(rng.uniform(*_SPEEDS))
        name = f"slowed/{index:05d}_{copy}.flac"
        sound = slowed(recorded.heard(index), speed)
        soundfile.write(folder / name, sound, SAMPLE_RATE, subtype="PCM_16")
        known = {"sound": SOUNDS[0], **pseudo_labels.beats(speed * float(bpm[index]))}
        # Of the first copy alone, or there would be little speech among the sounds.
        for fact in ("beats", "tempo") if copy else ("beats", "tempo", "sound"):
            question, answer, value = fact_questions.short(known, fact, rng)
            row: Row = {"audio": name, "split": "train", "question": question}
            rows.append({**row, "answer": answer, "attribute": fact, "value": value})
    return rows


def taught(
    known: Mapping[str, str],
    rng: np.random.Generator,
    times: Mapping[str, int] = MappingProxyType({}),
) -> list[Row]:
    """A caption, questions about what is known and some about what is not.

    Args:
      known: fact → value.
      rng: chooses the words.
      times: value → how often it is asked for, where that is more than once.
    """
    rows: list[Row] = [{"answer": fact_questions.caption(known, rng)}]
    is_music = known["sound"] == SOUNDS[0]
    for fact in fact_questions.ASKED_OF_RECORDINGS:
        for _ in range(times.get(known.get(fact, ""), 1)):
            question, answer, value = fact_questions.short(known, fact, rng)
            if value is not None:
                named = {"attribute": fact, "value": value}
                rows.append({"question": question, "answer": answer, **named})
            elif rng.random() < (_unsure_share(fact) if is_music else 0.5):
                rows.append({"question": question, "answer": answer})
    for question, answer in fact_questions.long(known, rng):
        rows.append({"question": question, "answer": answer})
    return rows


def _unsure_share(fact: str) -> float:
    return _RARELY_KNOWN_SHARE if fact in _RARELY_KNOWN else _UNSURE_SHARE


def tested(known: Mapping[str, str], rng: np.random.Generator) -> list[Row]:
    """A short question about each fact that is known."""
    rows: list[Row] = []
    for fact in FACTS:
        if fact in known and fact in fact_questions.OF_RECORDINGS:
            question, answer, value = fact_questions.short(known, fact, rng)
            row: Row = {"question": question, "answer": answer}
            rows.append({**row, "attribute": fact, "value": value})
    return rows
