"""Sound files made by hand from others: joined, multiplexed, or with other headers."""

from collections.abc import Callable

import numpy as np
import soundfile

RATE = 24_000


def tone(
    seconds: float, frequency: float = 440.0, amplitude: float = 0.5
) -> np.ndarray:
    """A sine at `RATE`."""
    moments = np.arange(int(seconds * RATE)) / RATE
    return amplitude * np.sin(2 * np.pi * frequency * moments)


def encoded(folder, kind: str, sound: np.ndarray, **options) -> bytes:
    """The bytes of a sound file of a kind that libsndfile writes."""
    path = folder / f"encoded.{kind}"
    soundfile.write(path, sound, options.pop("rate", RATE), format=kind, **options)
    return path.read_bytes()


def pages(content: bytes) -> list[bytes]:
    """The pages of an Ogg file."""
    found, place = [], 0
    while place < len(content):
        body = place + 27 + content[place + 26]
        end = body + sum(content[place + 27 : body])
        found.append(content[place:end])
        place = end
    return found


def page_with(page: bytes, change: Callable[[bytearray], None]) -> bytes:
    """A page with another header, and the checksum that belongs to it."""
    changed = bytearray(page)
    change(changed)
    changed[22:26] = bytes(4)
    changed[22:26] = _checksum(bytes(changed)).to_bytes(4, "little")
    return bytes(changed)


def _checksum(content: bytes) -> int:
    """CRC-32 with the polynomial 04c11db7, not reflected, from 0 (RFC 3533)."""
    value = 0
    for byte in content:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    return value
