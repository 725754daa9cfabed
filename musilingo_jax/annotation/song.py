"""All fields of a song, each with its source.

    {"tempo": {"value": 120.1, "confidence": 0.98, "source":
               "musilingo_jax.annotation.beats", "version": "1, librosa 0.11.0"},
     "key": {"value": "A minor", "confidence": 0.12, "strength": 0.87, …}, …}

A field that cannot be told, such as the key of silence, has the value null.
"""

import importlib.metadata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from musilingo_jax.annotation import bars, beats, chords, keys, loudness, sections
from musilingo_jax.annotation.spectra import RATE, Spectra


@dataclass(frozen=True, eq=False)
class _Heard:
    """A song, and what several of its fields have in common."""

    spectra: Spectra

    @cached_property
    def beats(self) -> beats.Beats:
        return beats.find(self.spectra)

    @cached_property
    def bars(self) -> bars.Bars:
        return bars.find(self.spectra, self.beats.times)


def annotate(
    waveform: Float[np.ndarray, " samples"], fields: Collection[str]
) -> dict[str, dict[str, Any]]:
    """The fields of a waveform.

    Args:
      waveform: mono, `spectra.RATE` samples per second, full scale 1.
      fields: which of `FIELDS`.

    Returns:
      Field → its value, how sure it is, and its source, in the order of `FIELDS`.

    Raises:
      UserError: it is too short.
    """
    heard, stamps = _Heard(Spectra(waveform)), sources()
    return {
        field: {**make(heard), **stamps[field]}
        for field, (_, make) in _MAKERS.items()
        if field in fields
    }


def sources() -> dict[str, dict[str, str]]:
    """Field → what makes it, and its version, the library below included."""
    library = importlib.metadata.version("librosa")
    return {
        field: {
            "source": module.__name__,
            "version": f"{module.VERSION}, librosa {library}",
        }
        for field, (module, _) in _MAKERS.items()
    }


def _tempo(heard: _Heard) -> dict[str, Any]:
    bpm, steadiness = heard.beats.bpm, heard.beats.steadiness
    return {"value": round(bpm, 1) or None, "confidence": round(steadiness, 3)}


def _beats(heard: _Heard) -> dict[str, Any]:
    return {
        "value": _rounded(heard.beats.times),
        "confidence": round(heard.beats.steadiness, 3),
    }


def _downbeats(heard: _Heard) -> dict[str, Any]:
    return {
        "value": _rounded(heard.bars.downbeats),
        "confidence": round(heard.bars.margin, 2),
    }


def _metre(heard: _Heard) -> dict[str, Any]:
    return {
        "value": heard.bars.metre or None,
        "confidence": round(heard.bars.margin, 2),
    }


def _key(heard: _Heard) -> dict[str, Any]:
    key = keys.find(heard.spectra)
    return {
        "value": key.name or None,
        "confidence": round(key.margin, 3),
        "strength": round(key.strength, 3),
    }


def _chords(heard: _Heard) -> dict[str, Any]:
    found = chords.find(heard.spectra, heard.beats.times)
    lengths = [chord.end - chord.start for chord in found]
    likeness = np.average([chord.likeness for chord in found], weights=lengths)
    return {
        "value": [
            {"start": round(c.start, 2), "end": round(c.end, 2), "chord": c.name}
            for c in found
        ],
        "confidence": round(float(likeness), 3),
    }


def _loudness(heard: _Heard) -> dict[str, Any]:
    found = loudness.measure(heard.spectra.waveform, RATE)
    return {
        "value": {
            "lufs": round(found.lufs, 1),
            "range_lu": round(found.range, 1),
            "peak_db": round(found.peak_db, 1),
        }
    }


def _sections(heard: _Heard) -> dict[str, Any]:
    found = sections.find(heard.spectra)
    return {
        "value": [
            {"start": round(s.start, 2), "end": round(s.end, 2), "label": s.label}
            for s in found
        ]
    }


def _rounded(times: Float[np.ndarray, " times"]) -> list[float]:
    return [round(float(time), 2) for time in times]


_MAKERS: dict[str, tuple[Any, Callable[[_Heard], dict[str, Any]]]] = {
    "tempo": (beats, _tempo),
    "beats": (beats, _beats),
    "downbeats": (bars, _downbeats),
    "metre": (bars, _metre),
    "key": (keys, _key),
    "chords": (chords, _chords),
    "loudness": (loudness, _loudness),
    "sections": (sections, _sections),
}
FIELDS = tuple(_MAKERS)
"""What is measured; tags come from `tags`, which needs weights."""
