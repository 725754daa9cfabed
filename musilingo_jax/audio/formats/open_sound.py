"""A sound file of any format → blocks of mono samples, as they are decoded.

The format is recognised by the first bytes of a file, not by its name. libsndfile
decodes WAV, AIFF, AU, FLAC, Ogg Vorbis, Opus, MP3 and more; ffmpeg, if it is installed,
decodes AAC/M4A, WMA and Matroska. NumPy arrays are read as they are; they do not store
their sample rate, so it has to be given.
"""

from pathlib import Path

from musilingo_jax.audio.formats import ffmpeg, libsndfile, numpy_arrays, pieces
from musilingo_jax.audio.formats.sound import Sound
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import open_regular_file, stat_regular_file

_CONVERT = "convert it to FLAC, as by `ffmpeg -i … song.flac`"
_RENDER = "render it to FLAC"
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
# Place and first bytes → what the file is. The place is 8 for what begins like a WAV.
_NOT_SOUND = (
    (0, b"\x89PNG", "a picture"),
    (0, b"\xff\xd8\xff", "a picture"),
    (0, b"GIF8", "a picture"),
    (8, b"WEBP", "a picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive; unpack it"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it"),
    (0, b"BZh", "a bzip2 archive; unpack it"),
    (0, b"\xfd7zXZ", "an xz archive; unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (0, b"Rar!", "a RAR archive; unpack it"),
    (0, b"MThd", f"MIDI: notes, not sound; {_RENDER}"),
    (8, b"RMID", f"MIDI: notes, not sound; {_RENDER}"),
    (8, b"sfbk", "a soundfont: instruments, not a song"),
    (0, b"Extended Module:", f"a tracker module: notes and instruments; {_RENDER}"),
    (0, b"IMPM", f"a tracker module: notes and instruments; {_RENDER}"),
    (44, b"SCRM", f"a tracker module: notes and instruments; {_RENDER}"),
    (1080, b"M.K.", f"a tracker module: notes and instruments; {_RENDER}"),
    (0, b"wvpk", f"WavPack, which is not read; {_CONVERT}"),
    (0, b"MAC ", f"Monkey's Audio, which is not read; {_CONVERT}"),
    (0, b"MPCK", f"Musepack, which is not read; {_CONVERT}"),
    (0, b"MP+", f"Musepack, which is not read; {_CONVERT}"),
    (0, b"TTA1", f"True Audio, which is not read; {_CONVERT}"),
    (0, b"tBaK", f"TAK, which is not read; {_CONVERT}"),
    (0, b"DSD ", f"DSD, which is not read; {_CONVERT}"),
    (0, b"FRM8", f"DSD, which is not read; {_CONVERT}"),
    (0, b"#!AMR", f"AMR, which is not read; {_CONVERT}"),
    (0, b"\x0b\x77", f"AC-3, which is not read; {_CONVERT}"),
    (0, b".RMF", f"RealMedia, which is not read; {_CONVERT}"),
    (0, b"FLV", f"a Flash video, which is not read; {_CONVERT}"),
    (8, b"AVI ", f"an AVI video, which is not read; {_CONVERT}"),
    (0, b"\x00\x00\x01\xba", f"an MPEG video, which is not read; {_CONVERT}"),
    (28, b"Speex   ", f"Speex, which is not read; {_CONVERT}"),
    (28, b"\x80theora", f"an Ogg video, whose sound is not read; {_CONVERT}"),
    (0, b"#EXTM3U", "a playlist, which only names songs"),
    (0, b"[playlist]", "a playlist, which only names songs"),
    (0, b"version https://git-lfs", "a Git LFS pointer; fetch the file with `git lfs`"),
    (0, b"<!doctype html", "a web page; the download went wrong"),
    (0, b"<html", "a web page; the download went wrong"),
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
    head = beginning(path)
    if head.startswith(numpy_arrays.MAGIC):
        return numpy_arrays.open_array(path, npy_rate, skip)
    if kind := _ffmpeg_kind(path, head):
        return ffmpeg.open_pipe(path, kind, skip)
    try:
        return libsndfile.open_file(path, skip)
    except libsndfile.Unreadable as error:
        what = _what_else(head) or error.reason or "damaged or not sound"
        raise UserError(f"{path}: cannot be decoded: it is {what}") from error


def beginning(path: Path) -> bytes:
    """The first bytes of a file.

    Raises:
      UserError: it has none, or cannot be read.
    """
    try:
        stat_regular_file(path)
        with open_regular_file(path) as file:
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
    for place, signature, name in _NOT_SOUND:
        found = head[place:] if place else head.lstrip(b"\xef\xbb\xbf \t\r\n")
        if found[: len(signature)].lower() == signature.lower():
            return name
    if not any(head):
        return "nothing but zeros, like a download that never finished"
    text = head.decode("utf-8-sig", "ignore")
    printable = all(letter.isprintable() or letter.isspace() for letter in text)
    return "text" if printable and len(text.encode()) > 0.95 * len(head) else None


def _ffmpeg_kind(path: Path, head: bytes) -> str | None:
    """ffmpeg's name for the format, if only ffmpeg decodes it."""
    if head.startswith(b"ID3"):  # This tag may precede AAC as well as MP3.
        with open_regular_file(path) as file:
            file.seek(pieces.after_id3(head))
            head = file.read(16)
    for place, signature, name in _FFMPEG_KINDS:
        if head[place:].startswith(signature):
            return name
    return None
