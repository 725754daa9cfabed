"""What is taken for known of a recording: what its teachers are sure of.

These are pseudo-labels: nobody has listened. A fact has a value where the taggers'
probabilities are far on one side, and none where they are in between; what is learnt
from them can be no truer than the taggers.

    probability of "guitar"     0 ──────┬───────────────┬────────── 1
                                no guitar   not known     guitar
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from musilingo_jax.corpora.facts import beats_of, tempo_of
from musilingo_jax.corpora.styles import MODES, TONICS
from musilingo_jax.models.taggers.musicnn import TAGS

# The taggers' names in the columns of their outputs.
_PREFIX = {"MTT_musicnn": "MTT", "MSD_musicnn": "MSD"}
COLUMNS = [f"{_PREFIX[name]}/{tag}" for name, tags in TAGS.items() for tag in tags]

FAMILIES = {
    "metal": ("MSD/metal", "MSD/heavy metal"),
    "rock": ("MTT/rock", "MSD/rock", "MSD/hard rock", "MSD/alternative rock"),
    "electronic": ("MTT/techno", "MTT/electronic", "MSD/electronic", "MSD/electronica"),
    "classical": ("MTT/classical",),
    "ambient": ("MTT/ambient", "MSD/ambient"),
    "jazz": ("MSD/jazz",),
    "hip-hop": ("MSD/Hip-Hop",),
}
"""Family → the tags that speak for it; the likeliest of them counts."""
_FAMILY_AT_LEAST, _FAMILY_AHEAD = 0.35, 1.4
# The same of what is taught: who is to name a family where it is plain must have learnt
# where it is likely, too.
_TAUGHT_AT_LEAST, _TAUGHT_AHEAD = 0.2, 1.1


@dataclass(frozen=True)
class Evidence:
    """Which tags speak for a value of a fact, and for its other value.

    Attributes:
      tags: the likeliest of them counts.
      yes: the value if its probability is at least `above`.
      no: the value if it is at most `below`.
      above, below: probabilities.
      synonyms: whether the tags are words for the same, of which people choose one: so
        not the likeliest counts but the sum.
    """

    tags: tuple[str, ...]
    yes: str
    no: str
    above: float
    below: float
    synonyms: bool = False


EVIDENCE = {
    "vocals": Evidence(
        (
            "MTT/vocal",
            "MTT/vocals",
            "MTT/singing",
            "MTT/voice",
            "MTT/male vocal",
            "MTT/female vocal",
            "MTT/choir",
            "MTT/opera",
            "MTT/female voice",
            "MTT/male voice",
        ),
        "vocals",
        "no vocals",
        0.85,
        0.15,
        synonyms=True,
    ),
    "guitar": Evidence(("MTT/guitar", "MSD/guitar"), "guitar", "no guitar", 0.4, 0.06),
    "piano": Evidence(("MTT/piano",), "piano", "no piano", 0.35, 0.05),
    "strings": Evidence(
        ("MTT/strings", "MTT/violin", "MTT/cello"), "strings", "no strings", 0.4, 0.05
    ),
    "flute": Evidence(("MTT/flute",), "flute", "no flute", 0.3, 0.02),
    "synthesizer": Evidence(
        ("MTT/synth", "MTT/techno", "MTT/electronic"),
        "synthesizer",
        "no synthesizer",
        0.35,
        0.05,
    ),
    "choir": Evidence(("MTT/choir", "MTT/choral"), "choir", "no choir", 0.3, 0.02),
    "drums": Evidence(
        ("MTT/drums", "MTT/beat", "MTT/beats", "MTT/techno", "MTT/rock", "MTT/dance"),
        "drums",
        "no drums",
        0.35,
        0.07,
    ),
}
# Of two sides of which each has tags, one is far likelier.
_SIDES = {
    "manner": {"loud": ("MTT/loud",), "quiet": ("MTT/quiet", "MTT/soft")},
    "energy": {
        "energetic": ("MTT/fast", "MTT/loud", "MTT/techno", "MTT/beat", "MTT/rock"),
        "calm": ("MTT/slow", "MTT/quiet", "MTT/soft", "MTT/ambient", "MTT/new age"),
    },
}
_SIDE_AT_LEAST, _SIDE_AHEAD = 0.2, 3.0

# How often each pitch class sounds in a key (Krumhansl and Kessler 1982).
_PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
_KEY_AT_LEAST, _KEY_AHEAD = 0.75, 0.08


def facts(
    logits: Float[np.ndarray, " tags"], *, likely: bool = False
) -> dict[str, str]:
    """What the taggers are sure of.

    Args:
      logits: of both taggers, in the order of `teacher_outputs.TAG_NAMES`.
      likely: also a family that is only likely, as is good for learning.
    """
    odds = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    probability = dict(zip(COLUMNS, odds, strict=True))

    def likeliest(tags: tuple[str, ...]) -> float:
        return max(probability[tag] for tag in tags)

    known = {"sound": "music"}
    family = _far_ahead(
        {name: likeliest(tags) for name, tags in FAMILIES.items()},
        at_least=_TAUGHT_AT_LEAST if likely else _FAMILY_AT_LEAST,
        ahead=_TAUGHT_AHEAD if likely else _FAMILY_AHEAD,
    )
    if family:
        known["family"] = family
    for name, evidence in EVIDENCE.items():
        each = [probability[tag] for tag in evidence.tags]
        found = sum(each) if evidence.synonyms else max(each)
        if found >= evidence.above:
            known[name] = evidence.yes
        elif found <= evidence.below:
            known[name] = evidence.no
    for name, sides in _SIDES.items():
        side = _far_ahead(
            {value: likeliest(tags) for value, tags in sides.items()},
            at_least=_SIDE_AT_LEAST,
            ahead=_SIDE_AHEAD,
        )
        if side:
            known[name] = side
    return known


def _far_ahead(
    likely: Mapping[str, float], *, at_least: float, ahead: float
) -> str | None:
    """The likeliest, if it is likely, and that many times as likely as the next."""
    first, second = sorted(likely, key=lambda name: likely[name], reverse=True)[:2]
    if likely[first] >= at_least and likely[first] >= ahead * likely[second]:
        return first
    return None


def key(chroma: Float[np.ndarray, "frames 12"]) -> dict[str, str]:
    """The key, and its mode, where one profile is far better than all others.

    Args:
      chroma: the probability that a pitch class sounds, of at least ten seconds.
    """
    heard = chroma.mean(axis=0)
    if heard.std() < 1e-6:
        return {}
    found = {
        f"{TONICS[tonic]} {mode}": float(
            np.corrcoef(heard, np.roll(_PROFILES[mode], tonic))[0, 1]
        )
        for mode in MODES
        for tonic in range(12)
    }
    first, second = sorted(found, key=lambda name: found[name], reverse=True)[:2]
    if found[first] < _KEY_AT_LEAST or found[first] - found[second] < _KEY_AHEAD:
        return {}
    return {"key": first, "mode": first.split()[-1]}


def beats(bpm: float) -> dict[str, str]:
    """The tempo as a number and as a word; nothing for NaN."""
    if math.isnan(bpm):
        return {}
    return {"beats": beats_of(bpm), "tempo": tempo_of(bpm)}
