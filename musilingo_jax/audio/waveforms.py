"""A sound file → a mono waveform at the encoder's sample rate, or a clear refusal.

Songs stream: about a second of one is in memory at a time, however long it is.
"""

import contextlib
import math
import os
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soxr
from jaxtyping import Float

from musilingo_jax.audio.formats.open_sound import open_sound
from musilingo_jax.audio.formats.sound import Sound
from musilingo_jax.runtime.errors import UserError

SHORTEST_SECONDS = 0.5
# How much earlier than asked a song may end: times in annotations are rounded.
SLACK_SECONDS = 0.5
SILENCE_PEAK = 1e-4  # −80 dB below full scale: less than a 14-bit recorder's last bit.
# Samples that were never scaled to ±1 are allowed; numbers beyond are damage.
_LOUDEST = 1e6
_MOST_THREADS = 16
# Blocks of about a second that wait of each song which is decoded ahead.
_BLOCKS_AHEAD = 30

Block = Float[np.ndarray, " samples"]


def read(
    path: Path | str,
    *,
    sample_rate: int,
    npy_rate: int | None = None,
    start: float | None = None,
    end: float | None = None,
) -> Iterator[Block]:
    """A song in blocks: the mean of its channels, in float32, resampled.

    It is resampled before anything is cut out of it, so that a second of the result is
    a second of the song whatever the file's own rate. What is wrong with a file is
    raised when it is known: of a song that is damaged at its end all else comes first.

    Args:
      path: the file; `sounds.files` says which formats.
      sample_rate: samples per second wanted.
      npy_rate: samples per second of a NumPy file, which does not say them itself.
      start: the first second to hear, from the beginning if None.
      end: where to stop, in seconds; at the end if None.

    Yields:
      Together ⌈seconds · sample_rate⌋ samples, full scale = 1.

    Raises:
      UserError: the file is missing, empty, damaged, no sound, an absurd one, shorter
        than half a second, ends more than half a second before `end`, holds NaN or
        infinite samples, or its format tells that it is cut off (`sounds.truncation`
        says which do).
    """
    try:
        yield from _read(Path(path), sample_rate, npy_rate, start or 0.0, end)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def load(path: Path | str, *, sample_rate: int) -> Block:
    """A song whole: the blocks that `read` yields, joined.

    Raises:
      UserError: as in `read`.
    """
    return np.concatenate(list(read(path, sample_rate=sample_rate)))


class Meter:
    """Blocks on their way past; it knows of those that have passed.

    Attributes:
      samples: how many there were.
      peak: the largest of their absolute values.
    """

    def __init__(self, blocks: Iterable[Block]):
        self._blocks = blocks
        self.samples, self.peak = 0, 0.0

    def __iter__(self) -> Iterator[Block]:
        for block in self._blocks:
            self.samples += len(block)
            self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
            yield block

    @property
    def silent(self) -> bool:
        """Whether no sample is louder than −80 dB below full scale.

        Such a clip may be what it says, or two channels that cancel each other out.
        """
        return self.peak < SILENCE_PEAK


def is_silent(waveform: Float[np.ndarray, " samples"]) -> bool:
    """Whether no sample is louder than −80 dB below full scale, as in `Meter`."""
    return bool(np.abs(waveform).max(initial=0.0) < SILENCE_PEAK)


def cut(
    blocks: Iterable[Block], *, chunk_samples: int, hop_samples: int
) -> Iterator[Float[np.ndarray, " chunk_samples"]]:
    """As few chunks as cover the waveform, each starting `hop_samples` later.

    Chunks of 5 that start 4 apart share a sample, as the encoder's frames do, each of
    which sees a little more than its own stride:

        waveform     a b c d e f g h i j k
        chunks       a b c d e
                             e f g h i
                                     i j k

    Yields:
      Chunks of `chunk_samples`, the last one being what is left; at least one, if only
      of 0 samples. No more of the waveform is held than a chunk and a block.
    """
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        if count <= chunk_samples:
            continue
        joined = np.concatenate(held)
        place = 0
        while count - place > chunk_samples:
            yield joined[place : place + chunk_samples]
            place += hop_samples
        held, count = [joined[place:]], count - place
    yield np.concatenate([np.zeros(0, np.float32), *held])


def read_ahead(songs: Iterable[Iterator[Block] | None]) -> Iterator[Iterator | None]:
    """The same songs, decoded on threads before they are asked for.

    Each thread is at one song; a few songs are begun ahead, and of each half a minute
    is kept, so that memory depends neither on their number nor on their length.

    Args:
      songs: generators, such as `read` makes; None is passed on as it is.

    Yields:
      An iterator over each song's blocks, which raises what its generator raised. It is
      to be used up before the next one is asked for.
    """
    threads = _threads()
    stopped = threading.Event()
    ahead: deque[_Waiting | None] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decoding")

    def hand_out(waiting: _Waiting | None) -> Iterator[Block] | None:
        return None if waiting is None else waiting.blocks()

    try:
        for song in songs:
            waiting = None if song is None else _Waiting(song, stopped)
            if waiting is not None:
                pool.submit(waiting.fill)
            ahead.append(waiting)
            if len(ahead) > 2 * threads:
                yield hand_out(ahead.popleft())
        while ahead:
            yield hand_out(ahead.popleft())
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _threads() -> int:
    return min(os.cpu_count() or 1, _MOST_THREADS)


class _Waiting:
    """A song between the thread that decodes it and the one that hears it."""

    def __init__(self, song: Iterator[Block], stopped: threading.Event):
        self._song, self._stopped = song, stopped
        self._done = threading.Event()
        # Blocks, then None at the end of the song or the exception that ended it.
        self._queue: queue.Queue[Block | None | Exception] = queue.Queue(_BLOCKS_AHEAD)

    def fill(self) -> None:
        end = None
        try:
            for block in self._song:
                if not self._put(block):
                    return
        # Whatever it is, it belongs to whoever asked for the song.
        except Exception as error:
            end = error
        finally:
            if hasattr(self._song, "close"):
                self._song.close()
        self._put(end)

    def _put(self, item: Block | None | Exception) -> bool:
        """Waits for room, but not for somebody who has gone."""
        while not (self._stopped.is_set() or self._done.is_set()):
            try:
                self._queue.put(item, timeout=0.05)
                return True
            except queue.Full:
                continue
        return False

    def blocks(self) -> Iterator[Block]:
        try:
            while isinstance(item := self._get(), np.ndarray):
                yield item
            if item is not None:
                raise item
        finally:
            self._done.set()

    def _get(self) -> Block | None | Exception:
        while True:
            try:
                return self._queue.get(timeout=1.0)
            except queue.Empty:
                if self._stopped.is_set():
                    raise RuntimeError("this song was left for the next one") from None


def _read(
    path: Path,
    sample_rate: int,
    npy_rate: int | None,
    start: float,
    end: float | None,
) -> Iterator[Block]:
    # Seeking to a whole second keeps the moments at which the resampler's output lies;
    # what it hears before the excerpt, at least a second, fills its filter.
    skip = max(0, math.floor(start) - 1)
    sound = open_sound(path, npy_rate=npy_rate, skip=skip)
    first = round(start * sample_rate) - skip * sample_rate
    last = None if end is None else round(end * sample_rate) - skip * sample_rate
    place = heard = 0
    with contextlib.closing(sound.blocks):
        for block in _resampled(_checked(path, sound), sound.rate, sample_rate):
            piece = block[max(0, first - place) : last and max(0, last - place)]
            place += len(block)
            heard += len(piece)
            if len(piece):
                yield piece
            if last is not None and place >= last:
                break
    if heard < SHORTEST_SECONDS * sample_rate:
        part = " in the part to be heard" if start or end is not None else ""
        raise UserError(
            f"{path}: only {heard / sample_rate:.2f} s of sound{part}; at least "
            f"{SHORTEST_SECONDS} s are needed"
        )
    if last is not None and place < last - SLACK_SECONDS * sample_rate:
        raise UserError(
            f"{path}: shorter than asked: it lasts {skip + place / sample_rate:.2f} s, "
            f"and its part up to {end:g} s is to be heard; correct `end`, or get the "
            "whole file"
        )


def _checked(path: Path, sound: Sound) -> Iterator[Block]:
    """Refuses numbers that are no sound."""
    for block in sound.blocks:
        peak = np.abs(block).max(initial=0.0)
        if not np.isfinite(peak):
            raise UserError(
                f"{path}: holds samples that are NaN or infinite; export it again"
            )
        if peak > _LOUDEST:
            raise UserError(
                f"{path}: holds samples of {peak:.0e} times full scale; it is damaged, "
                "or was never scaled to ±1"
            )
        yield block


def _resampled(blocks: Iterable[Block], rate: int, sample_rate: int) -> Iterator[Block]:
    if rate == sample_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
