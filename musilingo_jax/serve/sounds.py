"""The songs of a request → bytes → what the model hears."""

import base64
import binascii
import contextlib
import hashlib
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

from musilingo_jax.audio.formats.open_sound import open_sound
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.serve import addresses
from musilingo_jax.serve.conversations import Placed
from musilingo_jax.serve.errors import Refusal
from musilingo_jax.serve.kinds import KINDS, kind_of
from musilingo_jax.serve.limits import Limits
from musilingo_jax.serve.protocol import InputAudioPart

# Seconds that another host has to send a song.
_FETCH_SECONDS = 20.0


def content(placed: Placed, *, allowed_hosts: Collection[str], limits: Limits) -> bytes:
    """The bytes of a song, wherever the request has it.

    Raises:
      Refusal: they are not there, or are no sound of a kind that is taken.
    """
    part = placed.part
    if isinstance(part, InputAudioPart):
        sound = _decoded(part.input_audio.data, f"{placed.param}.input_audio.data")
    else:
        param, url = f"{placed.param}.audio_url.url", part.audio_url.url
        if url[:5].lower() == "data:":
            sound = _of_data_url(url, param)
        else:
            sound = addresses.fetch(
                url,
                allowed=allowed_hosts,
                most_bytes=limits.body_bytes,
                seconds=_FETCH_SECONDS,
                param=param,
            )
    if not sound:
        raise _refusal(placed, "is empty")
    if kind_of(sound) is None:
        raise _refusal(placed, f"is not {KINDS}, by its content")
    return sound


def digest(sound: bytes) -> bytes:
    """What tells songs apart."""
    return hashlib.sha256(sound).digest()


@contextlib.contextmanager
def as_file(sound: bytes, placed: Placed, limits: Limits) -> Iterator[Path]:
    """A song as a file of its own, which is removed afterwards.

    The folder is readable for this user only, and its name says nothing of the client.
    What is wrong with the song, within the block too, is said of its place in the
    request.

    Raises:
      Refusal: it cannot be decoded, or is too long.
    """
    with tempfile.TemporaryDirectory(prefix="musilingo-") as folder:
        path = Path(folder) / "song"
        path.write_bytes(sound)
        try:
            _check_length(path, limits.song_seconds)
            yield path
        except UserError as error:
            reason = str(error).replace(f"{path}: ", "")
            raise _refusal(placed, f"cannot be heard: {reason}") from error


def _check_length(path: Path, most_seconds: float) -> None:
    """Decodes a file until it is too long: its header may say what it likes.

    Raises:
      UserError: it is, or cannot be decoded.
    """
    sound = open_sound(path, npy_rate=None, skip=0)
    with contextlib.closing(sound.blocks) as blocks:
        frames = 0
        for block in blocks:
            frames += len(block)
            if frames > most_seconds * sound.rate:
                raise UserError(
                    f"it lasts longer than the {most_seconds:g} s that this server "
                    "takes: send a part of it"
                )


def _of_data_url(url: str, param: str) -> bytes:
    """The content of a `data:` URL; its media type decides nothing.

    Raises:
      Refusal: it is malformed.
    """
    head, comma, data = url.partition(",")
    if not comma:
        raise Refusal(
            400,
            f"{param} is no data: URL: a comma goes before the data",
            param=param,
            code="invalid_url",
        )
    if head.lower().endswith(";base64"):
        return _decoded(data, param)
    return unquote_to_bytes(data)


def _decoded(text: str, param: str) -> bytes:
    """Base64 → bytes; line ends within it are allowed, as many tools write them.

    Raises:
      Refusal: it is something else.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(
            400,
            f"{param} is not base64: {error}",
            param=param,
            code="invalid_base64",
        ) from error


def _refusal(placed: Placed, what: str) -> Refusal:
    return Refusal(
        400, f"the song {placed.param} {what}", param=placed.param, code="invalid_song"
    )
