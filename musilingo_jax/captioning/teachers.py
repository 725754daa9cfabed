"""Fields from the tags of musicnn's two taggers (`annotation/tags.py`)."""

from collections.abc import Mapping, Sequence
from typing import Any

from musilingo_jax.captioning import fields
from musilingo_jax.captioning.fields import Field

# The hundred tags by field; a tag that says nothing of one of them is only a tag.
_GENRES = """
classical, techno, electronic, rock, ambient, indian, opera, pop, new age, dance,
country, metal, alternative, indie, alternative rock, jazz, classic rock, soul,
indie rock, electronica, folk, punk, blues, hard rock, experimental, hip-hop,
easy listening, funk, electro, heavy metal, progressive rock, rnb, indie pop, house
"""
_INSTRUMENTS = """
guitar, strings, drums, piano, violin, synth, harpsichord, flute, sitar, harp, cello
"""
_MOODS = """
slow, fast, loud, quiet, soft, weird, beautiful, chillout, mellow, chill, party, sexy,
catchy, sad, happy
"""
_FEMALE = "female, woman, female vocal, female voice, female vocalists, female vocalist"
_MALE = "male, man, male vocal, male voice, male vocalists"
_SUNG = "vocal, vocals, singing, voice, choir, choral"
_UNSUNG = "no vocals, no vocal, no voice, instrumental"


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split()).split(", "))


_TAGS = {
    fields.GENRE: _listed(_GENRES),
    fields.INSTRUMENTS: _listed(_INSTRUMENTS),
    fields.MOOD: _listed(_MOODS),
}
_VOCALS = {
    "female voice": _listed(_FEMALE),
    "male voice": _listed(_MALE),
    "vocals": _listed(_SUNG),
    "instrumental": _listed(_UNSUNG),
}
# Of a list, tags of a lower probability are left out.
_LEAST = 0.3


def taught(annotation: Mapping[str, Any]) -> dict[str, Field]:
    """The fields that taggers give.

    `genre` and `vocals` are the likeliest of their tags, the lists all from 0.3 on, and
    `tags` all that the annotation has.

    Args:
      annotation: the field `tags` of an annotation.
    """
    likely: dict[str, float] = {}
    for found in annotation["value"]:  # The likeliest first.
        likely.setdefault(found["tag"], found["confidence"])

    def made(value: Any, confidence: Any) -> Field:
        return fields.field(
            value,
            fields.TEACHER,
            annotation["source"],
            annotation["version"],
            confidence,
        )

    def several(tags: Sequence[str], least: float) -> Field:
        kept = [tag for tag in likely if tag in tags and likely[tag] >= least]
        return made(tuple(kept), tuple(likely[tag] for tag in kept))

    def best(chances: Mapping[str, float]) -> Field:
        name = max(chances, key=lambda each: chances[each], default=None)
        return made(name, None if name is None else chances[name])

    genres = {tag: likely[tag] for tag in likely if tag in _TAGS[fields.GENRE]}
    sung = {
        name: max(likely[tag] for tag in tags if tag in likely)
        for name, tags in _VOCALS.items()
        if any(tag in likely for tag in tags)
    }
    return {
        fields.GENRE: best(genres),
        fields.INSTRUMENTS: several(_TAGS[fields.INSTRUMENTS], _LEAST),
        fields.MOOD: several(_TAGS[fields.MOOD], _LEAST),
        fields.VOCALS: best(sung),
        fields.TAGS: several(tuple(likely), 0.0),
    }
