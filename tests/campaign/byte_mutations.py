"""Damage of bytes, as disks, downloads, editors and their encodings do it."""

import random

from campaign.attempt import Attempt

_BIG = 1 << 16


def flip_bit(rng: random.Random, attempt: Attempt) -> str:
    """One bit."""
    content = bytearray(attempt.path.read_bytes())
    if not content:
        return "nothing: the file is empty"
    # Files that are mostly padding are damaged where they are not, most of the time.
    filled = [at for at, byte in enumerate(content) if byte]
    everywhere = not filled or rng.random() < 0.2
    at = rng.randrange(len(content)) if everywhere else rng.choice(filled)
    bit = rng.randrange(8)
    content[at] ^= 1 << bit
    attempt.path.write_bytes(content)
    return f"bit {bit} of byte {at} flipped"


def damage_bytes(rng: random.Random, attempt: Attempt) -> str:
    """One of many kinds of damage, at a random place."""
    content = bytearray(attempt.path.read_bytes())
    size = len(content)
    at = rng.randrange(size + 1)
    # Often near the beginning, where headers are.
    if rng.random() < 0.4:
        at = min(at, rng.choice((8, 64, 512)))
    length = min(rng.choice((1, 4, 16, 256, 4096, max(1, size // 3))), size - at)
    kind = rng.choice(
        ("flip", "cut", "remove", "insert", "repeat", "zero", "ones", "mark", "append")
    )
    match kind:
        case "flip":
            return flip_bit(rng, attempt)
        case "cut":
            del content[at:]
        case "remove":
            del content[at : at + length]
        case "insert":
            content[at:at] = rng.randbytes(max(1, length))
        case "repeat":
            content[at:at] = content[at : at + length]
        case "zero" | "ones":
            content[at : at + length] = (b"\0" if kind == "zero" else b"\xff") * length
        case "mark":
            at = length = 0
            kind, mark = rng.choice(
                (("UTF-8 mark", b"\xef\xbb\xbf"), ("UTF-16 mark", b"\xff\xfe"))
            )
            content[:0] = mark
        case "append":
            length = rng.choice((1, 64, _BIG))
            content += rng.randbytes(length) if rng.random() < 0.5 else bytes(length)
    attempt.path.write_bytes(content)
    return f"{kind}: {length} bytes at {at} of {size}"


def recode(rng: random.Random, attempt: Attempt) -> str:
    """The same text as other editors save it; nothing, where it is not text."""
    try:
        text = attempt.path.read_bytes().decode()
    except UnicodeDecodeError:
        return damage_bytes(rng, attempt)
    kind = rng.choice(
        ("utf-8-sig", "utf-16", "latin-1", "CRLF", "CR", "no end", "ends")
    )
    # Of a file with CRLF, as csv writes it, another LF would make lines without text.
    text = text.replace("\r\n", "\n")
    match kind:
        case "CRLF" | "CR":
            text = text.replace("\n", "\r\n" if kind == "CRLF" else "\r")
            content = text.encode()
        case "no end":
            content = text.rstrip("\n").encode()
        case "ends":
            content = (text + "\n\n\n").encode()
        case _:
            content = text.encode(kind, "replace")
    attempt.path.write_bytes(content)
    attempt.harmless = kind not in ("utf-16", "latin-1", "CR")
    return f"saved as {kind}"
