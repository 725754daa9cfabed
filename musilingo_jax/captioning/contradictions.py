"""Where a caption says something else than the fields of its song.

    fields      112.4 BPM, A minor, 4/4, instrumental, piano, no drums
    caption     A calm piano piece in A minor. It runs at 140 BPM, with drums.
                ------------------------------ =============================
                agrees                         tempo, drums

A tempo agrees within 4 %, as in evaluation (`metrics/tempo.py`); half of it and twice
of it do not, since the row would then name two tempi. Names of one key are the same
(`statements/keys.py`); a relative key is another. What a caption does not say, it
cannot contradict, and a field that is unknown is contradicted by nothing. Instruments
beyond those of the fields are no contradiction: no field lists all that plays.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from musilingo_jax.corpora.statements import values
from musilingo_jax.corpora.statements.keys import named_key, named_keys
from musilingo_jax.corpora.statements.metres import beats, metres
from musilingo_jax.corpora.statements.modes import modes
from musilingo_jax.corpora.statements.tempos import tempos
from musilingo_jax.evaluation.metrics import tempo

EMPTY, CUT = "empty", "cut"
REASONS = ("tempo", "key", "mode", "metre", "vocals", "drums", "instruments")
REASONS += (EMPTY, CUT)

_VOICES = ("vocals", "vocalist", "voice", "singer", "singing", "sung", "lyrics")
_VOICES += ("rapper", "rapping", "choir", "female vocals", "male vocals")
_NO_VOICES = ("instrumental", "novocals", "novocal", "novoice", "withoutvocals")
# "an instrumental break" says nothing of the rest.
_INSTRUMENTAL = re.compile(
    r"""\b(?:non-?vocal | instrumental (?!ly\b | [\s-]+(?:break|section|part|passage
        |intro|introduction|interlude|solo|bridge|outro|hook|accompaniment)s?\b))\b""",
    re.VERBOSE | re.IGNORECASE,
)
# A sentence ends before a capital letter, so that "approx. 120 BPM" is in one.
_BORDER = re.compile(r"""(?<=[.!?])["'”’)]*\s+(?=["'“‘(]*[A-Z])|\s*\n+\s*""")


@dataclass(frozen=True)
class Facts:
    """What is known of a song; None or empty for what is not.

    Attributes:
      bpm: beats per minute.
      key: such as "A minor".
      beats: in a bar, as `metres.beats` counts them.
      vocals: whether anybody sings.
      instruments: some that play.
      absent: some that do not.
    """

    bpm: float | None
    key: str | None
    beats: int | None
    vocals: bool | None
    instruments: tuple[str, ...]
    absent: tuple[str, ...]

    @classmethod
    def of(cls, fields: Mapping[str, Mapping[str, Any]]) -> "Facts":
        """What the fields of a row say."""
        metre = fields["timesignature"]["value"]
        return cls(
            bpm=fields["bpm"]["value"],
            key=fields["key"]["value"],
            beats=beats(metre) if metre else None,
            vocals=is_sung(fields["vocals"]["value"]),
            instruments=tuple(fields["instruments"]["value"]),
            absent=tuple(fields["instruments"].get("absent", ())),
        )


class Fault(NamedTuple):
    """A sentence of a caption that cannot stay.

    Attributes:
      reason: of `REASONS`.
      sentence: the sentence.
      stated: what it says of the matter.
      known: what the fields say.
    """

    reason: str
    sentence: str
    stated: str
    known: str


def is_sung(vocals: str | None) -> bool | None:
    """Whether the value of a field `vocals` says that anybody sings."""
    if vocals is None:
        return None
    said = values.is_yes_or_no(vocals)
    return values.key_of(vocals) not in _NO_VOICES if said is None else said


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the space around them."""
    return [part.strip() for part in _BORDER.split(text) if part.strip()]


def faults(caption: str, facts: Facts, *, is_cut: bool) -> list[Fault]:
    """The faults of a caption, sentence by sentence.

    Args:
      caption: the text.
      facts: of its song.
      is_cut: whether the text was cut, so that its last sentence has no end.
    """
    parts = sentences(caption)
    if not parts:
        return [Fault(EMPTY, "", "", "")]
    found = [fault for part in parts for fault in _of_sentence(part, facts)]
    return [*found, Fault(CUT, parts[-1], "", "")] if is_cut else found


def _of_sentence(sentence: str, facts: Facts) -> Iterator[Fault]:
    for reason, stated, known in (
        *_of_numbers(sentence, facts),
        *_of_vocals(sentence, facts.vocals),
        *_of_instruments(sentence, facts),
    ):
        yield Fault(reason, sentence, stated, known)


_Parts = Iterator[tuple[str, str, str]]


def _of_numbers(sentence: str, facts: Facts) -> _Parts:
    """Tempo, key, mode and metre."""
    if (bpm := facts.bpm) is not None:
        for each in tempos(sentence):
            if not tempo.accuracy(each, bpm)[0]:
                stated = f"{each.low:g}" + f" to {each.high:g}" * (each.high > each.low)
                yield "tempo", f"{stated} BPM", f"{bpm:g} BPM"
    if facts.key and (key := named_key(facts.key)):
        for name in named_keys(sentence):
            if name != key:
                yield "key", name, key
        mode = key.split()[-1]
        for each in modes(sentence):
            if each != mode:
                yield "mode", each, mode
    if facts.beats is not None:
        for metre in metres(sentence):
            if beats(metre) != facts.beats:
                yield "metre", metre, f"bars of {facts.beats}"


def _of_vocals(sentence: str, sung: bool | None) -> _Parts:
    if sung is None:
        return
    named, denied = _both(sentence, _VOICES)
    if not sung and named:
        yield "vocals", "vocals", "instrumental"
    # "no lyrics" or "no choir" do not say that nobody sings.
    silent = denied & {values.key_of(v, plural=True) for v in ("vocals", "singing")}
    plain = values.stated(sentence, ("instrumental",))
    if sung and not named and (silent or (plain and _INSTRUMENTAL.search(sentence))):
        yield "vocals", "instrumental", "vocals"


def _of_instruments(sentence: str, facts: Facts) -> _Parts:
    named, _ = _both(sentence, facts.absent)
    _, denied = _both(sentence, facts.instruments)
    for key in sorted(named):
        yield _kind(key), key, f"no {key}"
    for key in sorted(denied - named):
        yield _kind(key), f"no {key}", key


def _both(sentence: str, names: Collection[str]) -> tuple[set[str], set[str]]:
    """The names that a sentence states, and those that it denies, as keys."""
    stated = {each.key for each in values.stated(sentence, names, plural=True)}
    denied = {each.key for each in values.denied(sentence, names, plural=True)}
    return stated, denied - stated


def _kind(key: str) -> str:
    return "drums" if key in ("drum", "drumkit") else "instruments"


def without(caption: str, found: Sequence[Fault]) -> str:
    """The caption without the sentences of these faults; "" if none is left."""
    faulty = {fault.sentence for fault in found}
    return " ".join(part for part in sentences(caption) if part not in faulty)
