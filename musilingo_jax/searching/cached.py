"""The clips of a cache: their pooled features, and the texts that belong to them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.corpora.records import contents, contents_of
from musilingo_jax.instruction.subjects import Subject
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.searching.likeness import Likeness, pool


class Texts(NamedTuple):
    """What is said of clips.

    Attributes:
      of: clip → all that is said of it.
      others: how many clips something is said of that are not in the cache.
    """

    of: dict[str, str]
    others: int


def likeness_of(cache: FeatureCache) -> Likeness:
    """The likeness of all clips of a cache, in its order.

    Raises:
      UserError: its vectors are not of stretches of time, or as in `Likeness.of`.
    """
    if cache.reduction == "layers":
        raise UserError(
            f"{cache.folder}: holds a vector for each layer and not for each stretch "
            'of a song: encode it with config.features.reduction = "pooled"'
        )
    return Likeness.of([cache.features(clip) for clip in cache.ids])


def texts(cache: FeatureCache, subjects: Iterable[Subject]) -> Texts:
    """The captions, values and tags of the clips of a cache.

    A clip is found by its id, or else by the content of its file, which is the same
    wherever the file is.
    """
    by_content = _by_content(cache.ids)
    said: dict[str, list[str]] = {}
    others = 0
    for subject in subjects:
        found = {subject.clip} & set(cache.ids)
        content = contents_of(subject.clip)
        if not found and content is not None and subject.end is None:
            found = by_content.get(content, set())
        others += not found
        for clip in found:
            said.setdefault(clip, []).append(_text(subject))
    return Texts({clip: " ".join(parts) for clip, parts in said.items()}, others)


def vector_of(cache: FeatureCache, song: Path) -> Float[np.ndarray, " width"]:
    """The mean vector of a song: of the cache, or of a file with features.

    Args:
      cache: where the song is looked for, by the content of its file.
      song: a sound file, or an `.npy` that `musilingo embed` wrote.

    Raises:
      UserError: the cache has no such song, or other features than the file.
    """
    if song.suffix.lower() == ".npy":
        features = _load(song)
        width = cache.features(next(iter(cache.ids))).shape[-1]
        if features.ndim != 2 or not features.size or features.shape[1] != width:
            raise UserError(
                f"{song}: holds an array of shape {list(features.shape)}, but the "
                f"cache has vectors of width {width}: write it by `musilingo embed` "
                "with the encoder of the cache"
            )
        return pool(features)
    try:
        found = _by_content(cache.ids).get(contents(song), set())
    except OSError as error:
        raise UserError(f"{song}: cannot be read ({error.strerror})") from error
    if not found:
        raise UserError(
            f"{song}: is not in the cache {cache.folder}: encode it there, or write "
            "its features by `musilingo embed --out=song.npy`, and give --song=song.npy"
        )
    return pool(cache.features(min(found)))


def _by_content(clips: Iterable[str]) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for clip in clips:
        if (content := contents_of(clip)) is not None:
            found.setdefault(content, set()).add(clip)
    return found


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as a NumPy array ({error})") from error


def _text(subject: Subject) -> str:
    values = [f"{name}: {value}" for name, value in subject.facts.items()]
    known = "; ".join([*values, *subject.tags])
    return " ".join(filter(None, (*subject.captions, known)))
