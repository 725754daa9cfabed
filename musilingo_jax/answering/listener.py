"""Listens to songs: files or arrays → excerpts with the features that a model hears."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from musilingo_jax.answering.excerpt import Excerpt, clock
from musilingo_jax.answering.padded_prompts import Features
from musilingo_jax.audio import waveforms
from musilingo_jax.audio.array_songs import waveform_of
from musilingo_jax.audio.features import FeatureConfig, encode
from musilingo_jax.audio.level import Block, Meter, Tell, brought_to, is_silent
from musilingo_jax.models.mert import Mert
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.unicode_names import as_on_disk

Song = str | Path | tuple[np.ndarray, float]
"""A file, or an array with its samples per second, as in `array_songs.waveform_of`."""


def name_of(song: Song) -> str:
    """What a song is called: its path, or "the array"."""
    return "the array" if isinstance(song, tuple) else str(song)


@dataclass(frozen=True)
class Listener:
    """A music encoder, and how it was used in training.

    Attributes:
      mert: the encoder.
      features: how a song becomes vectors, one for each window.
      max_windows: windows that a prompt had in training at most.
      mesh: the devices that the encoder is on.
    """

    mert: Mert
    features: FeatureConfig
    max_windows: int
    mesh: jax.sharding.Mesh

    @property
    def max_seconds(self) -> float:
        """The longest stretch that is heard at once: as many windows as in training."""
        frames = self.max_windows * self.features.window_frames
        return self.mert.config.samples_for_frames(frames) / self._rate

    @property
    def window_seconds(self) -> float:
        """The length of a window."""
        frames = self.features.window_frames
        return frames * self.mert.config.samples_per_frame / self._rate

    def hear(
        self, song: Song, *, start: float | None, seconds: float | None
    ) -> Excerpt:
        """Listens to a stretch of a song, or to all of it if that is short enough.

        Args:
          song: the song.
          start: where the stretch begins, in seconds; None to take it from the middle.
          seconds: its length at most; None for `max_seconds`, which it never exceeds,
            since the model was not trained on more audio at once.

        Raises:
          UserError: the song cannot be read, or ends before `start`; or there is no
            such stretch.
        """
        name, rate = name_of(song), self._rate
        if start is not None and not 0 <= start < math.inf:
            raise UserError(f"start is {start}: give a second of the song, from 0 on")
        if seconds is not None and not seconds >= waveforms.SHORTEST_SECONDS:
            raise UserError(
                f"seconds is {seconds}: at least {waveforms.SHORTEST_SECONDS} are heard"
            )
        notices: list[str] = []
        waveform = self._waveform(song, notices.append)
        total = len(waveform) / rate
        seconds = self.max_seconds if seconds is None else seconds
        length = min(seconds, self.max_seconds)
        if start is None:
            start = max(0.0, (total - length) / 2)
        elif start > total - waveforms.SHORTEST_SECONDS:
            raise UserError(
                f"{name}: lasts {clock(total)} ({total:.1f} s), so there is nothing to "
                f"hear from second {start:g} on: choose an earlier --start"
            )
        stop = min(total, start + length)
        if length < min(seconds, total - start):
            notices.append(
                f"lasts longer than the {length:.1f} s that this model hears at once, "
                "which is what it heard in training: choose a part by --start"
            )
        heard = waveform[round(start * rate) : round(stop * rate)]
        return self._stretch(name, heard, start=start, total=total, notices=notices)

    def hear_all(self, song: Song) -> Excerpt:
        """Listens to a whole song; of a long one, keeps windows spread evenly over it.

        Of 12 windows, at most 4:    . ♪ . . ♪ . . ♪ . . ♪ .

        The song is encoded in a stream: neither its sound nor more than its features is
        in memory at once.

        Raises:
          UserError: the song cannot be read.
        """
        notices: list[str] = []
        features, meter = self._encode(song, notices.append)
        total, count = meter.samples / self._rate, len(features)
        windows: tuple[tuple[float, float], ...] = ()
        if self.features.reduction == "pooled" and count > self.max_windows:
            places = spread(count, self.max_windows)
            features, length = features[places], self.window_seconds
            windows = tuple(
                (place * length, min(total, (place + 1) * length)) for place in places
            )
        return Excerpt(
            name=name_of(song),
            start=0.0,
            stop=total,
            seconds=total,
            silent=meter.silent,
            notices=tuple(notices),
            features=features,
            windows=windows,
        )

    def embed(self, song: Song) -> Features:
        """The features of all windows of a song, [windows, width].

        Raises:
          UserError: the song cannot be read.
        """
        return self._encode(song, lambda notice: None)[0]

    def stretches(self, song: Song, tell: Tell) -> Iterator[Excerpt]:
        """A whole song, one stretch of `max_seconds` after the other, as it is decoded.

        What is left at the end, if it is shorter than half a second, is left out.

        Args:
          song: the song.
          tell: gets what should be known of it.

        Yields:
          Excerpts; `seconds` is how much of the song is known until then.

        Raises:
          UserError: the song cannot be read.
        """
        size = round(self.max_seconds * self._rate)
        pieces = waveforms.cut(
            self._blocks(song, tell), chunk_samples=size, hop_samples=size
        )
        for number, piece in enumerate(pieces):
            if len(piece) < waveforms.SHORTEST_SECONDS * self._rate:
                continue
            start = number * size / self._rate
            yield self._stretch(
                name_of(song),
                piece,
                start=start,
                total=start + len(piece) / self._rate,
                notices=[],
            )

    @property
    def _rate(self) -> int:
        return self.mert.config.sample_rate

    def _waveform(self, song: Song, tell: Tell) -> Block:
        return np.concatenate(list(self._blocks(song, tell)))

    def _blocks(self, song: Song, tell: Tell) -> Iterator[Block]:
        if isinstance(song, tuple):
            array, rate = song
            return iter([waveform_of(array, rate, sample_rate=self._rate)])
        path = as_on_disk(Path(song))
        return waveforms.read(path, sample_rate=self._rate, tell=tell)

    def _stretch(
        self,
        name: str,
        heard: Block,
        *,
        start: float,
        total: float,
        notices: list[str],
    ) -> Excerpt:
        """An excerpt of which all sound is in memory."""
        blocks = brought_to(
            self.features.level, lambda tell: iter([heard]), notices.append
        )
        ((_, features),) = encode(self.mert, [blocks], self.features, self.mesh)
        if isinstance(features, UserError):
            raise UserError(f"{name}: {features}")
        return Excerpt(
            name=name,
            start=start,
            stop=start + len(heard) / self._rate,
            seconds=total,
            silent=is_silent(heard),
            notices=tuple(notices),
            features=features,
        )

    def _encode(self, song: Song, tell: Tell) -> tuple[Features, Meter]:
        """The features of all windows of a song, and what was measured of its sound."""
        meters: list[Meter] = []

        def read(tell: Tell) -> Iterator[Block]:
            meters.append(Meter(self._blocks(song, tell)))
            return iter(meters[-1])

        blocks = brought_to(self.features.level, read, tell)
        ((_, features),) = encode(self.mert, [blocks], self.features, self.mesh)
        if isinstance(features, UserError):
            # Of a file, the message names it.
            named = isinstance(song, tuple) or name_of(song) in str(features)
            raise features if named else UserError(f"{name_of(song)}: {features}")
        return features, meters[0]


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` windows, each from the middle of an equal part."""
    most = min(count, most)
    return [(2 * part + 1) * count // (2 * most) for part in range(most)]
