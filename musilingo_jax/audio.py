"""A sound file → a mono waveform at the encoder's sample rate, or a clear refusal."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import audioread
import numpy as np
import soundfile
import soxr
from jaxtyping import Float, Int

from musilingo_jax.errors import UserError

SHORTEST_SECONDS = 0.5
SILENCE_PEAK = 1e-4  # −80 dB below full scale: less than a 14-bit recorder's last bit.
# A header that says something else is damaged, and obeying it could fill the memory.
_RATES = (1_000, 1_000_000)
_BLOCK_FRAMES = 1 << 18
_MOST_THREADS = 16


def load(path: Path | str, *, sample_rate: int) -> Float[np.ndarray, " samples"]:
    """Reads a song whole: the mean of its channels, in float32, resampled.

    The whole file is resampled before anything is cut out of it, so that a second of
    the result is a second of the song whatever the file's own rate. WAV, FLAC, Ogg,
    Opus, MP3 and more are decoded by libsndfile, whatever the file's name ends in;
    AAC/M4A and WMA by ffmpeg, where it is installed.

    Args:
      path: the file.
      sample_rate: samples per second wanted.

    Returns:
      ⌈seconds · sample_rate⌋ samples, full scale = 1.

    Raises:
      UserError: the file is missing, empty, damaged, no sound at all, shorter than half
        a second, holds NaN or infinite samples, or its format tells that it is cut off
        (FLAC does; WAV, Ogg and MP3 files then yield what is there).
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise UserError(f"{path}: the file is empty (0 bytes)")
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    waveform, rate = _decode(path)
    if not _RATES[0] <= rate <= _RATES[1]:
        raise UserError(f"{path}: says that it has {rate} samples per second")
    if not np.isfinite(waveform).all():
        raise UserError(
            f"{path}: holds samples that are NaN or infinite; export it again"
        )
    seconds = len(waveform) / rate
    if seconds < SHORTEST_SECONDS:
        raise UserError(
            f"{path}: only {seconds:.2f} s of sound; at least {SHORTEST_SECONDS} s are "
            "needed"
        )
    return soxr.resample(waveform, rate, sample_rate, quality="HQ")


def load_ahead(
    paths: Iterable[Path], *, sample_rate: int
) -> Iterator[Float[np.ndarray, " samples"] | UserError]:
    """`load` for each path, in order, on threads a few files ahead of the caller.

    Yields:
      The waveform, or what is wrong with the file.
    """

    def attempt(path: Path) -> Float[np.ndarray, " samples"] | UserError:
        try:
            return load(path, sample_rate=sample_rate)
        except UserError as error:
            return error

    threads = min(os.cpu_count() or 1, _MOST_THREADS)
    pool = ThreadPoolExecutor(threads)
    ahead: deque[Future] = deque()
    try:
        for path in paths:
            ahead.append(pool.submit(attempt, path))
            if len(ahead) > 2 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def is_silent(waveform: Float[np.ndarray, " samples"]) -> bool:
    """Whether no sample is louder than −80 dB below full scale.

    Such a clip may be what it says, or two channels that cancel each other out.
    """
    return bool(np.abs(waveform).max(initial=0.0) < SILENCE_PEAK)


def chunks(
    waveform: Float[np.ndarray, " samples"], *, chunk_samples: int, hop_samples: int
) -> tuple[Float[np.ndarray, "chunks chunk_samples"], Int[np.ndarray, " chunks"]]:
    """As few chunks as cover the waveform, each starting `hop_samples` later.

    Chunks of 5 that start 4 apart share a sample, as the encoder's frames do, each of
    which sees a little more than its own stride (`0` is padding):

        waveform     a b c d e f g h i j k
        chunks       a b c d e
                             e f g h i
                                     i j k 0 0        lengths 5 5 3

    Returns:
      The chunks, padded with zeros on the right, and how many samples each one holds.
    """
    count = 1 + max(0, -(-(len(waveform) - chunk_samples) // hop_samples))
    cut = np.zeros((count, chunk_samples), np.float32)
    lengths = np.zeros(count, np.int32)
    for number in range(count):
        piece = waveform[number * hop_samples :][:chunk_samples]
        cut[number, : len(piece)] = piece
        lengths[number] = len(piece)
    return cut, lengths


def _decode(path: Path) -> tuple[Float[np.ndarray, " samples"], int]:
    """The mean of all channels at the file's own rate, and that rate."""
    try:
        file = soundfile.SoundFile(path)
    # A TypeError is the library's way to say that `.raw` files have no header.
    except (soundfile.LibsndfileError, TypeError):
        return _decode_otherwise(path)
    blocks = []
    with file:
        # In blocks, so that a long recording is never held with all its channels.
        try:
            while len(block := file.read(_BLOCK_FRAMES, "float32", always_2d=True)):
                blocks.append(block.mean(axis=1))
        except soundfile.LibsndfileError as error:
            raise UserError(
                f"{path}: damaged after {_seconds(blocks, file.samplerate):.1f} s of "
                f"{file.frames / file.samplerate:.1f} s; get or export it again"
            ) from error
        # An MP3's header may promise a little more than there is, never a lot.
        got, promised = _seconds(blocks, file.samplerate), file.frames / file.samplerate
        if got < 0.98 * promised - 0.1:
            raise UserError(
                f"{path}: cut off after {got:.1f} s of {promised:.1f} s; get or export "
                "it again"
            )
        return _joined(blocks), file.samplerate


def _decode_otherwise(path: Path) -> tuple[Float[np.ndarray, " samples"], int]:
    """As `_decode`, by ffmpeg or what else the system has."""
    try:
        with audioread.audio_open(str(path)) as file:
            rate, channels = file.samplerate, file.channels
            blocks = [
                np.frombuffer(block, "<i2").reshape(-1, channels).mean(axis=1) / 2**15
                for block in file
            ]
    except (audioread.DecodeError, EOFError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be decoded: it is damaged or not sound, or a format (AAC, "
            "M4A, WMA) that needs ffmpeg to be installed"
        ) from error
    return _joined(blocks), rate


def _seconds(blocks: list[np.ndarray], rate: int) -> float:
    return sum(map(len, blocks)) / rate


def _joined(blocks: list[np.ndarray]) -> Float[np.ndarray, " samples"]:
    return np.concatenate([np.zeros(0, np.float32), *blocks]).astype(
        np.float32, copy=False
    )
