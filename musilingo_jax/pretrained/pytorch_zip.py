"""PyTorch's file format since version 1.6: a zip with a pickle and the tensors' values.

    archive/data.pkl     a pickle: {"norm": tensor of data/0, …}
    archive/data/0       the values of a storage, which one tensor or several view
    archive/data/1
    archive/byteorder    "little"

Nothing in a zip is compressed, so the values are read from their place in the file, as
those of safetensors are. A zip has a checksum (CRC-32) of each of its files. That of a
storage is compared when its first value is read; the pages are then in memory, so the
disk is read once.
"""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from musilingo_jax.pretrained import pickle_programs
from musilingo_jax.pretrained.pytorch_functions import FUNCTIONS
from musilingo_jax.pretrained.pytorch_tensors import (
    META,
    Special,
    Storage,
    StorageType,
    width,
)
from musilingo_jax.pretrained.safetensors_file import LocalFile, Tensor
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import one_line

# PyTorch's pickles of the largest models are below 10 MB.
_LARGEST_PROGRAM = 100_000_000
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # …, length of the name, length of the rest


def read(path: Path) -> Any:
    """What was saved in a zip of PyTorch, with tensors as `StoredTensor` or `Special`.

    Raises:
      UserError: it is a program, or code would have to be run to read it.
      OSError: it cannot be read.
      ValueError, TypeError, LookupError, zipfile.BadZipFile and others: it is broken.
    """
    file = LocalFile(path)
    with file.handle() as opened, zipfile.ZipFile(opened) as archive:
        listed = archive.infolist()
    entries = {entry.filename: entry for entry in listed}
    programs = [name for name in entries if name.endswith("/data.pkl")]
    if len(programs) != 1 or len(entries) != len(listed):
        raise ValueError("it does not have one data.pkl")
    root = programs[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise UserError(
            f"{path}: is a TorchScript program, which is never run; get the "
            "weights as safetensors, or save the tensors alone"
        )

    def contents(name: str, largest: int) -> bytes:
        start, size = _place(file, entries[name])
        if size > largest:
            raise ValueError(f"its {name} has {size:,} bytes")
        content = Tensor(file, start, (size,), "U8", size)[...].tobytes()
        if zlib.crc32(content) != entries[name].CRC:
            raise ValueError(f"its {name} does not match its checksum")
        return content

    if f"{root}byteorder" in entries and contents(f"{root}byteorder", 10) != b"little":
        raise ValueError("its numbers are those of a big-endian machine")
    storages: dict[str, Storage] = {}

    def storage(reference: Any) -> Storage | Special:
        kind, stored, key, location, count = reference
        known = isinstance(stored, StorageType) and isinstance(key, str)
        if kind != "storage" or not known or not isinstance(count, int):
            raise ValueError("it refers to something that is not a storage")
        if location == "meta":
            return META
        name = f"{root}data/{key}"
        if name not in storages:
            start, size = _place(file, entries[name])
            if size < count * width(stored.dtype):
                raise ValueError(f"{name} has fewer values than the file states")
            crc = entries[name].CRC
            storages[name] = Storage(file, name, stored.dtype, start, size, crc)
        return storages[name]

    try:
        program = contents(programs[0], _LARGEST_PROGRAM)
        return pickle_programs.run(program, FUNCTIONS, storage)
    except pickle_programs.UnknownGlobal as error:
        raise refusal(path, str(error)) from error


def refusal(path: Path, name: str) -> UserError:
    """The message for a file whose program names a function or class."""
    return UserError(
        f"{path}: contains an object of type {one_line(name)}, and making it would "
        "run the file's code; this was refused and nothing was run: get the weights as "
        "safetensors, or save the tensors alone"
    )


def _place(file: LocalFile, entry: zipfile.ZipInfo) -> tuple[int, int]:
    """Where the contents of a file in a zip begin, and their size."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise ValueError(f"its {entry.filename} is compressed or encrypted")
    header = bytearray(_LOCAL_HEADER.size)
    file.read(memoryview(header), entry.header_offset)
    signature, name, extra = _LOCAL_HEADER.unpack(header)
    start = entry.header_offset + len(header) + name + extra
    if signature != b"PK\x03\x04" or start + entry.file_size > file.size:
        raise ValueError(f"its {entry.filename} is not where the zip says")
    return start, entry.file_size
