"""Fields that a language model gives: chosen among allowed tags, or read from answers.

    a vocabulary    the question is put once, and each allowed tag scored as its answer
    none            the question is answered, and the words of a short list that the
                    answer states become the value; the answer stays beside it

So a field never holds a word that nobody has allowed.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from musilingo_jax.captioning import fields
from musilingo_jax.captioning.contradictions import is_sung
from musilingo_jax.captioning.fields import Field
from musilingo_jax.corpora.statements import values

QUESTIONS = {
    fields.GENRE: "What is the genre of this piece?",
    fields.INSTRUMENTS: "Which instruments do you hear?",
    fields.MOOD: "What is the mood of this music?",
    fields.VOCALS: "Are there vocals?",
    fields.TAGS: "Which words describe this music?",
}
_FRAMES = {
    fields.GENRE: "The genre is {}.",
    fields.INSTRUMENTS: "I hear {}.",
    fields.MOOD: "The mood is {}.",
}
DRUMS = "Do you hear drums?"
"""Asked besides, where instruments are read from answers."""

# Of a list, tags with less than this part of the best one's share are left out.
_LEAST = 0.5
# Tags of a list at most.
_MOST = 5


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split()).split(", "))


_GENRES = _listed("""
ambient, ballad, bluegrass, blues, bossa nova, classical, country, dance, disco, drum
and bass, dub, dubstep, electronic, flamenco, folk, funk, gospel, hip hop, house, indie,
jazz, latin, lo-fi, march, metal, new age, opera, pop, punk, r&b, rap, reggae, rock,
rock and roll, salsa, samba, ska, soul, soundtrack, swing, synthpop, tango, techno,
trance, trap, waltz, world music
""")
_INSTRUMENTS = _listed("""
accordion, acoustic guitar, banjo, bass, bass guitar, bassoon, bells, brass, cello,
clarinet, double bass, drum machine, drums, electric guitar, electric piano, fiddle,
flute, guitar, harmonica, harp, harpsichord, horn, keyboard, mandolin, marimba, oboe,
orchestra, organ, percussion, piano, saxophone, sitar, strings, synthesizer, timpani,
trombone, trumpet, tuba, ukulele, vibraphone, viola, violin, xylophone
""")
_MOODS = _listed("""
aggressive, angry, calm, cheerful, dark, dramatic, dreamy, energetic, epic, gentle,
happy, heavy, hopeful, intense, joyful, lively, melancholic, mellow, mysterious,
nostalgic, peaceful, playful, relaxed, relaxing, romantic, sad, serious, soft, soothing,
tender, tense, upbeat, uplifting, warm, weird
""")
_WORDS = {
    fields.GENRE: _GENRES,
    fields.INSTRUMENTS: _INSTRUMENTS,
    fields.MOOD: _MOODS,
    fields.TAGS: (*_GENRES, *_MOODS),
}


def options_of(name: str, tags: Sequence[str]) -> tuple[str, ...]:
    """The answers that stand for the tags of a field, as a model would word them."""
    return tuple(_FRAMES.get(name, "{}").replace("{}", tag) for tag in tags)


def chosen(
    name: str, options: Sequence[str], shares: Float[np.ndarray, " options"]
) -> tuple[object, object]:
    """The value of a field and its confidence, chosen among tags.

    Args:
      name: of the field.
      options: the tags.
      shares: of each of them, as `option_scores.shares` returns them.

    Returns:
      The best tag; for a list also those with at least half of its share, at most five.
    """
    order = [int(place) for place in np.argsort(-shares, kind="stable")]
    if name not in fields.LISTS:
        best = order[0]
        return options[best], round(float(shares[best]), 3)
    kept = [p for p in order[:_MOST] if shares[p] >= _LEAST * shares[order[0]]]
    return (
        tuple(options[place] for place in kept),
        tuple(round(float(shares[place]), 3) for place in kept),
    )


def questions_of(names: Sequence[str]) -> list[str]:
    """What is asked for the values of these fields, without a vocabulary."""
    asked = [QUESTIONS[name] for name in names]
    return [*asked, DRUMS] if fields.INSTRUMENTS in names else asked


def read(
    names: Sequence[str], answers: Mapping[str, str], model: str, version: str
) -> dict[str, Field]:
    """The values that answers state.

    Args:
      names: of the fields.
      answers: to `questions_of` these fields.
      model: its name.
      version: of it.

    Returns:
      Field → its value, and the model's `answer`. Instruments that are said not to
      play are `absent`.
    """
    found: dict[str, Field] = {}
    for name in names:
        answer = answers[QUESTIONS[name]]
        value, absent = _read(name, answer)
        if name == fields.INSTRUMENTS:
            value, absent = _with_drums(value, absent, answers[DRUMS])
        found[name] = fields.field(value, fields.MODEL, model, version)
        found[name]["answer"] = answer
        if absent:
            found[name]["absent"] = list(absent)
    return found


def _read(name: str, answer: str) -> tuple[object, tuple[str, ...]]:
    """What an answer states, and what it denies."""
    if name == fields.VOCALS:
        sung = values.presence(answer, "vocals")
        if sung is None and values.stated(answer, ("instrumental",)):
            sung = is_sung("instrumental")
        return None if sung is None else ("instrumental", "vocals")[sung], ()
    plural = name == fields.INSTRUMENTS
    words = {values.key_of(word, plural=plural): word for word in _WORDS[name]}

    def spelt(stated: Sequence[values.Stated]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(words[each.key] for each in stated))

    stated = spelt(values.stated(answer, words.values(), plural=plural))
    if name == fields.GENRE:
        return (stated[0] if stated else None), ()
    return stated, spelt(values.denied(answer, words.values(), plural=plural))


def _with_drums(
    value: object, absent: tuple[str, ...], answer: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Instruments, and those that do not play, after the answer to `DRUMS`."""
    there = values.presence(answer, "drums")
    played = fields.listed(value)
    others = tuple(word for word in played if word != "drums")
    silent = tuple(word for word in absent if word != "drums")
    if there is None:
        return tuple(played), absent
    return (*others, *["drums"] * there), (*silent, *["drums"] * (not there))
