"""The tempo of a chart: a Standard MIDI File whose beats are those of a recording."""

import struct
from collections.abc import Iterator
from pathlib import Path

from musilingo_jax.runtime.errors import UserError

_DEFAULT = 500_000  # Microseconds of a quarter, where a file says nothing.
_META, _SET_TEMPO = 0xFF, 0x51
# Data bytes of a channel message, by the upper half of its status.
_DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}


def bpm_of(chart: Path) -> float:
    """Quarters per minute: those of the tempo that the chart keeps for longest.

    Raises:
      UserError: the file is no MIDI file, or cannot be read.
    """
    try:
        changes, end = _tempo_changes(chart.read_bytes())
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise UserError(f"{chart}: is not a MIDI file that can be read") from error
    kept: dict[int, float] = {}
    begins = [0, *(tick for tick, _ in changes)]
    tempi = [_DEFAULT, *(tempo for _, tempo in changes)]
    for begin, following, tempo in zip(begins, [*begins[1:], end], tempi, strict=True):
        kept[tempo] = kept.get(tempo, 0.0) + (following - begin) * tempo
    return 60e6 / max(kept, key=lambda tempo: kept[tempo])


def _tempo_changes(content: bytes) -> tuple[list[tuple[int, int]], int]:
    """(tick, microseconds of a quarter) of each change in order, and the last tick."""
    name, size, _, _, division = struct.unpack(">4sIHHh", content[:14])
    if name != b"MThd" or division <= 0:
        raise ValueError("no ticks of a quarter")
    changes, end, place = [], 0, 8 + size
    while place + 8 <= len(content):
        name, size = struct.unpack(">4sI", content[place : place + 8])
        if name == b"MTrk":
            track = content[place + 8 : place + 8 + size]
            for tick, tempo in _events(track):
                end = max(end, tick)
                if tempo:
                    changes.append((tick, tempo))
        place += 8 + size
    return sorted(changes), end


def _events(track: bytes) -> Iterator[tuple[int, int]]:
    """The tick of each event of a track, and its tempo if it sets one, else 0."""
    place = tick = status = 0
    while place < len(track):
        waited, place = _number(track, place)
        tick += waited
        if track[place] & 0x80:
            status, place = track[place], place + 1
        tempo = 0
        if status == _META:
            kind = track[place]
            size, place = _number(track, place + 1)
            if kind == _SET_TEMPO:
                tempo = int.from_bytes(track[place : place + size], "big")
            place += size
        elif status in (0xF0, 0xF7):
            size, place = _number(track, place)
            place += size
        else:
            place += _DATA_BYTES.get(status >> 4, 0)
        yield tick, tempo


def _number(track: bytes, place: int) -> tuple[int, int]:
    """A number of variable length, seven bits a byte, and the place after it."""
    value = 0
    while True:
        byte = track[place]
        place += 1
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, place
