"""The text that each piece of a vocabulary stands for, in UTF-8."""

import re
from collections.abc import Mapping

# How sentencepiece writes a space.
SPACE = "▁"


def sentencepiece_text(piece: str, *, has_bytes: bool) -> bytes:
    """The text of a piece of sentencepiece.

        "▁a"  →  " a"        "<0x0A>"  →  a line feed, if `has_bytes`

    Args:
      piece: as the vocabulary spells it.
      has_bytes: whether a piece such as "<0x0A>" stands for a byte.
    """
    if has_bytes and (byte := re.fullmatch("<0x([0-9A-F]{2})>", piece)):
        return bytes.fromhex(byte[1])
    return piece.replace(SPACE, " ").encode()


def byte_level_texts(tokens: Mapping[str, int]) -> dict[int, bytes]:
    """The texts of a byte-level vocabulary: each letter of a piece is one byte.

    Printable bytes are their own letters, and the others the letters from 256 on, so
    that "Ġ" is the space. From GPT-2 (Radford et al. 2019).

    Args:
      tokens: piece → token.

    Returns:
      token → text.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printable))
    byte_of = {chr(byte): byte for byte in printable}
    byte_of |= {chr(256 + place): byte for place, byte in enumerate(others)}
    return {
        token: bytes(map(byte_of.__getitem__, piece))
        if byte_of.keys() >= set(piece)
        else piece.encode()  # A piece that was added in plain letters.
        for piece, token in tokens.items()
    }
