"""Questions that take a step from what is known: each answer names where it starts."""

from collections.abc import Iterator

from musilingo_jax.instruction import theory
from musilingo_jax.instruction.pairs import Pair, draw
from musilingo_jax.instruction.subjects import Subject
from musilingo_jax.instruction.theory import Key

_EXCHANGED = {
    "minor": ("brighter", "minor", "major"),
    "major": ("darker", "major", "minor"),
}


def pairs(subject: Subject, seed: int) -> Iterator[Pair]:
    """All that the rules can ask of a clip.

    Args:
      subject: the clip.
      seed: of the wordings.
    """
    key, bpm = theory.key_of(subject), theory.bpm_of(subject)
    beats = theory.beats_of(subject)
    if key is not None:
        yield from _of_key(key, seed, subject.clip)
    if bpm is not None:
        yield from _of_tempo(bpm, seed, subject.clip)
    if bpm is not None and beats is not None:
        yield _bar(bpm, beats, seed, subject.clip)
    if beats is not None:
        yield _count(beats, seed, subject.clip)


def _of_key(key: Key, *seed: object) -> Iterator[Pair]:
    question = draw(
        (
            "Which other key has the same key signature as this music?",
            "What is the relative key of this piece?",
        ),
        "relative",
        *seed,
    )
    answer = f"The music is in {key}. Its relative key, with the same key signature, is"
    yield Pair(question, f"{answer} {key.relative}.")
    adjective, here, there = _EXCHANGED[key.mode]
    question = draw(
        (
            f"How could the harmony be changed to make it sound {adjective}?",
            f"What would you change in the harmony for a {adjective} version?",
        ),
        "parallel",
        *seed,
    )
    yield Pair(
        question,
        f"The music is in {key}. With the same tonic but {there} instead of {here} "
        f"thirds, in {key.parallel}, it would sound {adjective}.",
    )
    question = draw(
        (
            "Which chord would lead back to the tonic most strongly?",
            "Which chord is the dominant here?",
        ),
        "dominant",
        *seed,
    )
    answer = f"The key is {key}, so the dominant chord is {key.dominant}"
    yield Pair(question, f"{answer}, which leads back to the tonic.")


def _of_tempo(bpm: int, *seed: object) -> Iterator[Pair]:
    question = draw(
        (
            "At which tempo would you begin to practise this piece?",
            "I cannot play this at full speed yet: where should I set the metronome?",
        ),
        "practise",
        *seed,
    )
    slower = round(0.6 * bpm)
    yield Pair(
        question,
        f"The tempo is about {bpm} BPM. Begin with about 60 percent of it, near "
        f"{slower} BPM, and become faster step by step.",
    )
    question = draw(
        ("How long does a beat last?", "How much time is there from beat to beat?"),
        "beat",
        *seed,
    )
    yield Pair(
        question,
        f"At about {bpm} BPM, a beat lasts 60 / {bpm} = {60 / bpm:.2f} seconds.",
    )


def _bar(bpm: int, beats: int, *seed: object) -> Pair:
    question = draw(
        ("How long does a bar last?", "About how many seconds long is one bar?"),
        "bar",
        *seed,
    )
    return Pair(
        question,
        f"A bar has {beats} beats, and at about {bpm} BPM a beat lasts "
        f"{60 / bpm:.2f} seconds, so a bar lasts about {60 * beats / bpm:.1f} seconds.",
    )


def _count(beats: int, *seed: object) -> Pair:
    """How it is counted; in what is asked for is drawn, so that yes is half."""
    groups, needs = draw((("threes", 3), ("fours", 4)), "groups", *seed)
    question = draw(
        (
            f"Would a dancer count this music in {groups}?",
            f"If I clap along, can I count in {groups}?",
        ),
        "count",
        *seed,
    )
    if needs == beats:
        return Pair(question, f"Yes: each bar has {beats} beats, which make {groups}.")
    return Pair(question, f"No: each bar has {beats} beats, which are not {groups}.")
