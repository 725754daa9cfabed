"""Damage of the structure of JSON, as other programs and hands edit it.

Objects are lists of pairs here, so that a key may stand twice, and values may be `Raw`:
text that is written as it is.
"""

import json
import random
import struct
from collections.abc import Iterator
from typing import Any

from campaign import byte_mutations
from campaign.attempt import Attempt

ESCAPE = "\x1b]0;campaign\x07\x1b[31m"


class Pairs(list):
    """The (key, value) pairs of an object."""


class Raw(str):
    """Text that stands for a value."""


Slot = tuple[list, int, str]
"""A container, the index of a value in it, and the path of the value."""


_OTHERS = (
    None,
    True,
    False,
    0,
    -1,
    3,
    0.5,
    "",
    "x",
    "3",
    [],
    [None],
    [[]],
    Pairs(),
    Pairs([("x", 1)]),
)
_NUMBERS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-0",
    "1e308",
    "1e-320",
    "1" + "0" * 400,
    "1" + "0" * 5000,
    str(2**31),
    str(2**63),
    str(2**64),
    "-1",
    "0.1",
    "1e29",
)
_TEXTS = (
    '"\\ud800"',
    '"\\udcff.wav"',
    '"a\\u0000"',
    json.dumps(ESCAPE),
    '"\\u202eab"',
    '"line\\nerror: line"',
    '"../../../../proc/version"',
    '"/dev/zero"',
    '"gs://nowhere/x"',
    '"{0.__class__} %s %n {}"',
    '"\u00e9"',
    '"e\u0301"',
    '"' + "x" * 100_000 + '"',
)
_KINDS = ("kind", "number", "text", "remove", "repeat", "rename", "nest", "swap", "add")


def parse(text: str) -> Any:
    """JSON with objects as `Pairs`."""
    return json.loads(text, object_pairs_hook=Pairs)


def write(value: Any) -> str:
    """JSON of a value with `Pairs` and `Raw`; deeper nesting is only in `Raw`."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        pairs = (f"{write(key)}: {write(item)}" for key, item in value)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write, value)) + "]"
    return json.dumps(value)


def mutate(rng: random.Random, value: Any) -> tuple[str, Any]:
    """How a value was damaged, and what it became; `value` is changed."""
    holder = [value]
    slots: list[Slot] = list(_slots(holder, "$"))
    kind = rng.choice(_KINDS)
    if kind in ("remove", "repeat", "rename"):
        inner = [slot for slot in slots if slot[0] is not holder]
        if not inner:  # A file of a single value, which has no part to take away.
            kind = "kind"
        slots = inner or slots
    parent, index, path = rng.choice(slots)
    key, old = _entry(parent, index)
    match kind:
        case "kind":
            _put(parent, index, rng.choice(_OTHERS))
        case "number":
            numbers = [
                s for s in slots if isinstance(_entry(s[0], s[1])[1], int | float)
            ]
            if numbers and rng.random() < 0.8:
                parent, index, path = rng.choice(numbers)
            _put(parent, index, Raw(rng.choice(_NUMBERS)))
        case "text":
            texts = [s for s in slots if isinstance(_entry(s[0], s[1])[1], str)]
            if texts and rng.random() < 0.8:
                parent, index, path = rng.choice(texts)
            _put(parent, index, Raw(rng.choice(_TEXTS)))
        case "remove":
            del parent[index]
        case "repeat":
            other = rng.choice((old, *_OTHERS))
            parent.insert(index, (key, other) if isinstance(parent, Pairs) else other)
        case "rename":
            if isinstance(parent, Pairs):
                name = rng.choice((Raw(rng.choice(_TEXTS)), f"{key}s", ""))
                parent[index] = (name, old)
            else:
                _put(parent, index, [old])
        case "nest":
            depth = rng.choice((50, 1100, 100_000))
            bracket = rng.choice(("[", '{"x":'))
            close = "]" if bracket == "[" else "}"
            _put(parent, index, Raw(bracket * depth + "0" + close * depth))
            kind = f"nest {depth}"
        case "swap":
            other, at, _ = rng.choice(slots)
            if other is not holder and parent is not holder and other is parent:
                _put(parent, index, _entry(other, at)[1])
                _put(other, at, old)
        case "add":
            extra = rng.choice(_OTHERS)
            if isinstance(old, Pairs):
                old.append((rng.choice(("new", ESCAPE, "a\0")), extra))
            elif isinstance(old, list):
                old.append(extra)
    return f"{kind} at {path[:80]}", holder[0]


def damage_json(rng: random.Random, attempt: Attempt) -> str:
    """A value somewhere in a JSON file."""
    text = attempt.path.read_text("utf-8")
    how, value = mutate(rng, parse(text))
    attempt.path.write_text(write(value), "utf-8")
    return how


def damage_line(rng: random.Random, attempt: Attempt) -> str:
    """A value in a line of JSON lines, or the lines themselves."""
    lines = attempt.path.read_text("utf-8").rstrip("\n").split("\n")
    if not lines[-1]:
        return byte_mutations.damage_bytes(rng, attempt)
    at = rng.randrange(len(lines))
    kind = rng.choice(
        ("value",) * 6 + ("remove", "repeat", "swap", "cut", "join", "array", "indent")
    )
    match kind:
        case "value":
            kind, value = mutate(rng, parse(lines[at]))
            lines[at] = write(value)
        case "remove":
            del lines[at]
        case "repeat":
            lines.insert(at, lines[at])
        case "swap":
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        case "cut":
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
        case "join":
            lines[at : at + 2] = ["".join(lines[at : at + 2])]
        case "array":
            lines = ["[" + ",\n".join(lines) + "]"]
        case "indent":
            lines[at] = json.dumps(json.loads(lines[at]), indent=1)
    attempt.path.write_text("\n".join(lines) + "\n", "utf-8")
    return f"line {at + 1}: {kind}"


def damage_header(rng: random.Random, attempt: Attempt) -> str:
    """A value in the header of a safetensors file."""
    content = attempt.path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    how, value = mutate(rng, parse(content[8 : 8 + size].decode()))
    header = write(value).encode("utf-8", "surrogatepass")
    header += b" " * (-len(header) % 8)
    attempt.path.write_bytes(
        struct.pack("<Q", len(header)) + header + content[8 + size :]
    )
    return f"header: {how}"


def _slots(parent: list, path: str) -> Iterator[Slot]:
    """(container, index, path) of each value below a container."""
    for index in range(len(parent)):
        key, value = _entry(parent, index)
        here = (
            path if path == "$" and not isinstance(parent, Pairs) else f"{path}.{key}"
        )
        yield parent, index, here
        if isinstance(value, list):
            yield from _slots(value, here + " ")


def _entry(parent: list, index: int) -> tuple[Any, Any]:
    if isinstance(parent, Pairs):
        return parent[index]
    return index, parent[index]


def _put(parent: list, index: int, value: Any) -> None:
    if isinstance(parent, Pairs):
        parent[index] = (parent[index][0], value)
    else:
        parent[index] = value
