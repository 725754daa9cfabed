"""A sound file → a mono waveform at the encoder's sample rate, or a clear error.

Songs are streamed: about a second of each is in memory at a time, however long it is.
"""

import contextlib
import math
import os
import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soxr
from jaxtyping import Float

from musilingo_jax.audio.formats.open_sound import open_sound
from musilingo_jax.audio.formats.sound import Sound
from musilingo_jax.audio.level import Block, Tell
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note
from musilingo_jax.runtime.threads import MOST_THREADS

SHORTEST_SECONDS = 0.5
# How much earlier than `end` a song may end: times in annotations are rounded.
SLACK_SECONDS = 0.5
_TOLD_SECONDS = 0.1  # More of that is told.
# Samples need not be scaled to ±1, but values beyond this are damage.
_LOUDEST = 1e6
# Above any mix, 24 dB over full scale: whole numbers that were written as fractions.
_NEVER_SCALED = 16.0
# Blocks, of about a second, that are queued of each song that is decoded ahead.
_BLOCKS_AHEAD = 30


def read(
    path: Path | str,
    *,
    sample_rate: int,
    npy_rate: int | None = None,
    start: float | None = None,
    end: float | None = None,
    tell: Tell | None = None,
) -> Generator[Block, None, None]:
    """A song in blocks: the mean of its channels, in float32, resampled.

    The song is resampled before it is cropped, so that a second of the result is a
    second of the song whatever the sample rate of the file. An error is raised when it
    is found: of a file that is damaged at its end, all blocks before the damage come
    first.

    Args:
      path: the file; `formats.open_sound` lists the formats.
      sample_rate: samples per second of the result.
      npy_rate: samples per second of a NumPy file, which does not store its own.
      start: where to begin, in seconds; at the beginning if None.
      end: where to stop, in seconds; at the end if None.
      tell: called at the end with each notice: sound that is missing, that is in the
        file and not heard, or that is clipped. None to print them to stderr.

    Yields:
      Blocks that together have round(seconds · sample_rate) samples, full scale = 1.

    Raises:
      UserError: the file is missing, empty, damaged or not sound; its rate or its
        number of channels is impossible; what is asked for is shorter than half a
        second; it ends more than half a second before `end`; it has samples that are
        NaN or infinite; it holds several streams of sound at once; or it is cut off,
        as far as its format tells (`formats.pieces` says which do).
    """

    def tell_stderr(notice: str) -> None:
        print_note(f"note: {path}: {notice}")

    tell = tell or tell_stderr
    try:
        yield from _read(Path(path), sample_rate, npy_rate, start or 0.0, end, tell)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def load(path: Path | str, *, sample_rate: int, tell: Tell | None = None) -> Block:
    """A whole song: the blocks that `read` yields, joined; arguments as there.

    Raises:
      UserError: as in `read`.
    """
    return np.concatenate(list(read(path, sample_rate=sample_rate, tell=tell)))


def cut(
    blocks: Iterable[Block], *, chunk_samples: int, hop_samples: int
) -> Iterator[Float[np.ndarray, " chunk_samples"]]:
    """The fewest chunks that cover the waveform, one every `hop_samples`.

    Chunks of 5 with a hop of 4 overlap by one sample. So do the encoder's frames, each
    of which sees a little more than its own stride:

        waveform     a b c d e f g h i j k
        chunks       a b c d e
                             e f g h i
                                     i j k

    Yields:
      Chunks of `chunk_samples`, then one of what is left. There is at least one, which
      may have 0 samples. In memory are no more than a chunk and a block.
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


def read_ahead(
    songs: Iterable[Iterator[Block] | None],
) -> Generator[Iterator[Block] | None, None, None]:
    """The same songs, decoded by threads before they are asked for.

    Each thread decodes one song at a time. A few songs are started ahead, and half a
    minute of each is kept, so that memory depends neither on the number of songs nor
    on their length.

    Args:
      songs: generators, such as `read` returns; None is passed on.

    Yields:
      An iterator over each song's blocks, which raises what its generator raised. It
      must be consumed before the next song is asked for.
    """
    threads = _threads()
    stopped = threading.Event()
    ahead: deque[_Decoding | None] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decoding")

    def next_song() -> Iterator[Block] | None:
        decoding = ahead.popleft()
        return None if decoding is None else decoding.blocks()

    try:
        for song in songs:
            decoding = None if song is None else _Decoding(song, stopped)
            if decoding is not None:
                pool.submit(decoding.fill)
            ahead.append(decoding)
            if len(ahead) > 2 * threads:
                yield next_song()
        while ahead:
            yield next_song()
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _threads() -> int:
    return min(os.cpu_count() or 1, MOST_THREADS)


class _Decoding:
    """A song on its way from the thread that decodes it to the thread that reads it."""

    def __init__(self, song: Iterator[Block], stopped: threading.Event):
        self._song, self._stopped = song, stopped
        self._done = threading.Event()
        # Blocks, and then None at the end of the song or the exception that ended it.
        self._queue: queue.Queue[Block | None | Exception] = queue.Queue(_BLOCKS_AHEAD)

    def fill(self) -> None:
        end = None
        try:
            for block in self._song:
                if not self._put(block):
                    return
        # Whatever it is, it is raised again in the thread that reads the song.
        except Exception as error:
            end = error
        finally:
            # A generator may hold a file open; other iterators have nothing to close.
            if isinstance(self._song, Generator):
                self._song.close()
        self._put(end)

    def _put(self, item: Block | None | Exception) -> bool:
        """Waits for room in the queue; False if the reader is gone."""
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
                    raise RuntimeError(
                        "decoding was stopped before the end of this song"
                    ) from None


def _read(
    path: Path,
    sample_rate: int,
    npy_rate: int | None,
    start: float,
    end: float | None,
    tell: Tell,
) -> Iterator[Block]:
    # Skipping whole seconds keeps the resampler's output at the same moments. At least
    # a second before the excerpt is resampled too, to fill the resampler's filter.
    skip = max(0, math.floor(start) - 1)
    sound = open_sound(path, npy_rate=npy_rate, skip=skip)
    first = round(start * sample_rate) - skip * sample_rate
    last = None if end is None else round(end * sample_rate) - skip * sample_rate
    place = yielded = 0
    with (
        contextlib.closing(sound.blocks),
        contextlib.closing(_checked(path, sound)) as checked,
    ):
        for block in _resampled(checked, sound.rate, sample_rate):
            piece = block[max(0, first - place) : last and max(0, last - place)]
            place += len(block)
            yielded += len(piece)
            if len(piece):
                yield piece
            if last is not None and place >= last:
                break
    if yielded < SHORTEST_SECONDS * sample_rate:
        part = " in the part that was asked for" if start or end is not None else ""
        raise UserError(
            f"{path}: only {yielded / sample_rate:.2f} s of sound{part}; at least "
            f"{SHORTEST_SECONDS} s are needed"
        )
    if last is not None and place < last - SLACK_SECONDS * sample_rate:
        raise UserError(
            f"{path}: too short: it lasts {skip + place / sample_rate:.2f} s, but its "
            f"part up to {end:g} s was asked for; correct `end`, or get the whole file"
        )
    if last is not None and place < last - _TOLD_SECONDS * sample_rate:
        tell(
            f"ends {(last - place) / sample_rate:.1f} s before its part up to {end:g} "
            "s does, which was asked for"
        )
    for notice in sound.notices:
        tell(notice)


def _checked(path: Path, sound: Sound) -> Generator[Block, None, None]:
    """The blocks of a file, none of which holds impossible samples."""
    highest = 0.0
    try:
        for block in sound.blocks:
            peak = np.abs(block).max(initial=0.0)
            if not np.isfinite(peak):
                raise UserError(
                    f"{path}: contains samples that are NaN or infinite; export it "
                    "again"
                )
            if peak > _LOUDEST:
                raise UserError(
                    f"{path}: contains samples of {peak:.0e} times full scale; it is "
                    "damaged, or was never scaled to ±1"
                )
            highest = max(highest, float(peak))
            yield block
    finally:
        if highest > _NEVER_SCALED:
            sound.notices.append(
                f"reaches {highest:,.0f} times full scale, as whole numbers do that "
                "were never scaled to ±1"
            )


def _resampled(blocks: Iterable[Block], rate: int, sample_rate: int) -> Iterator[Block]:
    if rate == sample_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
