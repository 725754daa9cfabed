"""Sections: where a song becomes another, and which of its parts are alike.

    likeness of each second with each other     ■■■■········    a checkerboard along the
                                                ■■■■········    diagonal is the largest
                                                ····■■■■■···    where one block ends and
                                                ····■■■■■···    the next begins
    sections                                    A   B    C

(Foote 2000). Sections whose mean sound is alike have one letter.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from musilingo_jax.annotation.spectra import HOP, RATE, Spectra

VERSION = 1

_STEP = 1.0  # seconds
_KERNEL = 8  # steps on either side of a border
_SHORTEST = 8  # steps of a section
# A border stands out by this many deviations from the mean of the novelty.
_STANDS_OUT = 1.0
_ALIKE = 0.9  # cosine
_CEPSTRUM = 12


class Section(NamedTuple):
    """A part of a song: its times in seconds, and a letter for parts that are alike."""

    start: float
    end: float
    label: str


def find(spectra: Spectra) -> list[Section]:
    """The sections of a song, without gaps; one if it is short, or all alike."""
    features = _features(spectra)
    edges = [0, *borders(features), len(features)]
    means = [features[a:b].mean(axis=0) for a, b in pairwise(edges)]
    sections, known = [], []
    for (a, b), mean in zip(pairwise(edges), means, strict=True):
        likeness = [_cosine(mean, one) for one in known]
        if likeness and max(likeness) > _ALIKE:
            letter = int(np.argmax(likeness))
        else:
            letter = len(known)
            known.append(mean)
        end = spectra.seconds if b == len(features) else b * _STEP
        sections.append(Section(a * _STEP, end, chr(ord("A") + letter % 26)))
    return sections


def borders(features: Float[np.ndarray, "steps width"]) -> list[int]:
    """The steps at which sections begin, without the first.

    Args:
      features: of each step, with mean 0, so that what differs is opposed.
    """
    count = len(features)
    if count < 2 * _SHORTEST:
        return []
    size = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(size, 1e-9)
    likeness = unit @ unit.T
    novelty = np.zeros(count)
    for step in range(_SHORTEST, count - _SHORTEST + 1):
        reach = min(_KERNEL, step, count - step)
        before, after = slice(step - reach, step), slice(step, step + reach)
        within = likeness[before, before].mean() + likeness[after, after].mean()
        novelty[step] = within - 2 * likeness[before, after].mean()
    inner = novelty[_SHORTEST : count - _SHORTEST + 1]
    least = inner.mean() + _STANDS_OUT * inner.std()
    chosen: list[int] = []
    for step in np.argsort(-novelty):
        if novelty[step] <= max(least, 0.0):
            break
        if all(abs(step - other) >= _SHORTEST for other in chosen):
            chosen.append(int(step))
    return sorted(chosen)


def _features(spectra: Spectra) -> Float[np.ndarray, "steps width"]:
    """Harmony and timbre of each second, each with mean 0 and the same weight."""
    from scipy.fft import dct

    mel: np.ndarray = np.asarray(dct(spectra.mel, axis=0, norm="ortho"))
    cepstrum = mel[1 : 1 + _CEPSTRUM]
    frames = min(cepstrum.shape[1], spectra.chroma.shape[1])
    per_step = round(_STEP * RATE / HOP)
    starts = range(0, max(frames - per_step // 2, 1), per_step)
    parts = []
    for curve in (spectra.chroma, cepstrum):
        steps = np.stack([curve[:, s : s + per_step].mean(axis=1) for s in starts])
        steps = steps - steps.mean(axis=0)
        parts.append(steps / (np.linalg.norm(steps, axis=1).mean() or 1.0))
    return np.hstack(parts)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9))
