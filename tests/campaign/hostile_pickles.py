"""Files of PyTorch that do more than hold tensors, or claim more than they hold.

A `.pth` is a zip with a pickle in it, and a pickle is a program. Each hostile program
here would make a file called `canary` if it were executed.
"""

import io
import os
import pickle
import pickletools
import random
import struct
import warnings
import zipfile
import zlib

from campaign.attempt import Attempt
from campaign.outcomes import CANARY

_BOMB_BYTES = 3 * 2**30
_BOMB_CRC = 0x480BBE37


class _Executes:
    def __init__(self, call: tuple):
        self.call = call

    def __reduce__(self):
        return self.call


_CALLS = (
    (os.system, (f"touch {CANARY}",)),
    (eval, (f"open({CANARY!r}, 'w')",)),
    (exec, (f"open({CANARY!r}, 'w')",)),
    (open, (CANARY, "w")),
    (os.mkdir, (CANARY,)),
)


def hostile_program(rng: random.Random, attempt: Attempt) -> str:
    """The pickle of the file is replaced by one that executes something."""
    call = rng.choice(_CALLS)
    protocol = rng.choice((0, 2, 4))
    program = pickle.dumps(
        rng.choice(
            (_Executes(call), {"model": _Executes(call)}, [_Executes(call)] * 2)
        ),
        protocol,
    )
    if rng.random() < 0.3:  # As torch.save did before version 1.6.
        attempt.path.write_bytes(program)
        return f"{call[0].__name__}, protocol {protocol}, without a zip"
    _rewrite(attempt, {"data.pkl": program})
    return f"{call[0].__name__}, protocol {protocol}"


def damaged_program(rng: random.Random, attempt: Attempt) -> str:
    """Opcodes of the pickle are removed, repeated, swapped or changed."""
    program = _read(attempt, "data.pkl")
    places = [place for _, _, place in pickletools.genops(program)] + [len(program)]
    pieces = [program[a:b] for a, b in zip(places, places[1:], strict=False)]
    at = rng.randrange(len(pieces))
    kind = rng.choice(("remove", "repeat", "swap", "other", "global"))
    match kind:
        case "remove":
            del pieces[at]
        case "repeat":
            pieces[at:at] = [pieces[at]] * rng.choice((1, 1000))
        case "swap":
            other = rng.randrange(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        case "other":
            code = rng.choice(pickletools.opcodes).code.encode("latin-1")
            pieces[at] = code + pieces[at][1:]
        case "global":
            pieces[at:at] = [b"cos\nsystem\n(X\x0c\0\0\0touch canaryt", b"R0"]
    _rewrite(attempt, {"data.pkl": b"".join(pieces)})
    return f"opcode {at}: {kind}"


def damaged_zip(rng: random.Random, attempt: Attempt) -> str:
    """The zip around the tensors."""
    kind = rng.choice(
        ("bits of a tensor", "bomb", "deflated", "without", "sizes", "names", "twice")
    )
    content = bytearray(attempt.path.read_bytes())
    with zipfile.ZipFile(attempt.path) as file:
        entries = file.infolist()
    entry = rng.choice(entries)
    match kind:
        case "bits of a tensor":
            data = [e for e in entries if "/data/" in e.filename and e.file_size]
            entry = rng.choice(data)
            name, extra = struct.unpack_from("<HH", content, entry.header_offset + 26)
            at = (
                entry.header_offset + 30 + name + extra + rng.randrange(entry.file_size)
            )
            content[at] ^= 1 << rng.randrange(8)
            attempt.path.write_bytes(content)
        case "bomb":
            attempt.path.write_bytes(bomb(entries[0].filename.split("/")[0]))
        case "deflated":
            _rewrite(attempt, {}, compression=zipfile.ZIP_DEFLATED)
        case "without":
            _rewrite(attempt, {entry.filename.split("/", 1)[1]: None})
        case "sizes":
            at = content.rfind(b"PK\x01\x02")
            field = rng.choice((16, 20, 24, 28, 42))
            content[at + field : at + field + 2] = rng.randbytes(2)
            attempt.path.write_bytes(content)
        case "names":
            _rewrite(attempt, {}, prefix="../" * rng.choice((0, 3)) + "\x1b[31m/")
        case "twice":
            _rewrite(attempt, {}, again=entry.filename.split("/", 1)[1])
    return f"{kind}: {entry.filename}"


MUTATORS = (hostile_program, damaged_program, damaged_zip)


def _read(attempt: Attempt, name: str) -> bytes:
    with zipfile.ZipFile(attempt.path) as file:
        found = next(n for n in file.namelist() if n.endswith(f"/{name}"))
        return file.read(found)


def _rewrite(
    attempt: Attempt,
    changes: dict[str, bytes | None],
    *,
    compression: int = zipfile.ZIP_STORED,
    prefix: str = "",
    again: str = "",
) -> None:
    """Writes the zip again with other contents; None leaves one out."""
    made = io.BytesIO()
    with (
        zipfile.ZipFile(attempt.path) as old,
        zipfile.ZipFile(made, "w", compression) as new,
    ):
        for name in old.namelist():
            folder, _, short = name.partition("/")
            content = changes.get(short, old.read(name))
            if content is not None:
                _write(new, f"{prefix or folder + '/'}{short}", content)
            if short == again:
                _write(new, f"{folder}/{short}", bytes(len(content or b"")))
    attempt.path.write_bytes(made.getvalue())


def _write(file: zipfile.ZipFile, name: str, content: bytes) -> None:
    # Always at the same date, so that a seed gives the same bytes.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicate name", UserWarning)
        file.writestr(zipfile.ZipInfo(name), content, file.compression)


def bomb(folder: str) -> bytes:
    """A zip of a few megabytes whose pickle is gigabytes of zeros.

    Its compressed blocks are repeated: compressing all of it would take seconds.
    """
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = deflate.compress(bytes(2**24)) + deflate.flush(zlib.Z_FULL_FLUSH)
    body = block * (_BOMB_BYTES // 2**24) + deflate.flush()
    name = f"{folder}/data.pkl".encode()
    sizes = struct.pack("<III", _BOMB_CRC, len(body), _BOMB_BYTES)
    fields = struct.pack("<HHHHH", 20, 0, zipfile.ZIP_DEFLATED, 0, 33) + sizes
    head = b"PK\x03\x04" + fields + struct.pack("<HH", len(name), 0) + name
    entry = b"PK\x01\x02" + struct.pack("<H", 20) + fields
    entry += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name
    at = len(head) + len(body)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), at, 0)
    return head + body + entry + end
