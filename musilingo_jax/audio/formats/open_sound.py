"""A sound file of any format → blocks of mono samples, as they are decoded.

The format is recognised by the first bytes of a file, not by its name. libsndfile
decodes WAV, AIFF, AU, FLAC, Ogg Vorbis, Opus, MP3 and more; ffmpeg, if it is installed,
decodes AAC/M4A, WMA and Matroska. NumPy arrays are read as they are; they do not store
their sample rate, so it has to be given.
"""

from pathlib import Path

from musilingo_jax.audio.formats import ffmpeg, libsndfile, numpy_arrays, truncation
from musilingo_jax.audio.formats.sound import Sound
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import stat_regular_file

_FFMPEG_KINDS = (
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (0, b"\xff\xf1", "aac"),
    (0, b"\xff\xf9", "aac"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
)
_NOT_SOUND = (
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive; unpack it"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"MThd", "MIDI: notes, not sound; render it"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file with `git lfs`"),
    (b"<!doctype html", "a web page; the download went wrong"),
    (b"<html", "a web page; the download went wrong"),
)


def open_sound(path: Path, *, npy_rate: int | None, skip: int) -> Sound:
    """Opens a file, without decoding any of it yet.

    Args:
      path: the file.
      npy_rate: samples per second if it is a NumPy array; unused otherwise.
      skip: seconds at the beginning to leave out.

    Raises:
      UserError: the file does not exist, is empty, damaged, cut off or not sound, or
        its header has impossible values. While `blocks` are read: it is damaged or ends
        too early.
    """
    head = _head(path)
    if head.startswith(numpy_arrays.MAGIC):
        return numpy_arrays.open_array(path, npy_rate, skip)
    if kind := _ffmpeg_kind(path, head):
        return ffmpeg.open_pipe(path, kind, skip)
    try:
        return libsndfile.open_file(path, skip)
    except libsndfile.Unreadable as error:
        what = _what_else(head) or error.reason or "damaged or not sound"
        raise UserError(f"{path}: cannot be decoded: it is {what}") from error


def _head(path: Path) -> bytes:
    """The first bytes of a file.

    Raises:
      UserError: it has none, or cannot be read.
    """
    try:
        stat_regular_file(path)
        with path.open("rb") as file:
            head = file.read(4096)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path}: there is no such file") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {reason}") from error
    if not head:
        raise UserError(f"{path}: the file is empty (0 bytes)")
    return head


def _what_else(head: bytes) -> str | None:
    """What a file is that is not sound, as far as its first bytes tell."""
    for signature, name in _NOT_SOUND:
        if head.lower().lstrip().startswith(signature.lower()):
            return name
    if not any(head):
        return "nothing but zeros, like a download that never finished"
    text = head.decode("utf-8-sig", "ignore")
    printable = all(letter.isprintable() or letter.isspace() for letter in text)
    return "text" if printable and len(text.encode()) > 0.95 * len(head) else None


def _ffmpeg_kind(path: Path, head: bytes) -> str | None:
    """ffmpeg's name for the format, if only ffmpeg decodes it."""
    if head.startswith(b"ID3"):  # This tag may precede AAC as well as MP3.
        with path.open("rb") as file:
            file.seek(truncation.after_id3(head))
            head = file.read(16)
    for place, signature, name in _FFMPEG_KINDS:
        if head[place:].startswith(signature):
            return name
    return None
