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

import math
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from musilingo_jax.pretrained import pickle_programs
from musilingo_jax.pretrained.safetensors_file import TYPES, LocalFile, Tensor
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import printable

SPELLINGS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
"""PyTorch's name of a type → safetensors' name."""

STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "QInt8": "qint8",
    "QInt32": "qint32",
    "QUInt8": "quint8",
}
"""torch.FloatStorage → the type of its values."""

_OTHER_TYPES = ("complex32", "complex64", "complex128", "quint8", "qint8", "qint32")
# PyTorch's pickles of the largest models are below 10 MB.
_LARGEST_PROGRAM = 100_000_000
_BLOCK = 2**22
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # …, length of the name, length of the rest


class Dtype(NamedTuple):
    """A type of values, as PyTorch calls it: "float32"."""

    name: str


class Special(NamedTuple):
    """A tensor that cannot be read, and why: "is a torch.sparse_coo tensor …"."""

    reason: str


@dataclass(frozen=True)
class StorageType:
    """torch.FloatStorage and its like; the dtype is None for untyped bytes."""

    dtype: str | None


class Storage:
    """The values that some tensors view, and their checksum.

    Attributes:
      file: the zip.
      key: its name in the zip: "archive/data/0".
      dtype: the type of its values; None for bytes.
      start: the byte of the zip at which they begin.
      size: the number of bytes.
    """

    def __init__(
        self,
        file: LocalFile,
        key: str,
        dtype: str | None,
        start: int,
        size: int,
        crc: int | None,
    ):
        """Keeps where the values are, and their checksum; None if it is not needed."""
        self.file, self.key, self.dtype = file, key, dtype
        self.start, self.size = start, size
        self._crc, self._checked = crc, crc is None
        self._lock = threading.Lock()

    def check(self) -> None:
        """Compares the checksum, the first time that it is called.

        Raises:
          UserError: the values are not those that were saved, or cannot be read.
        """
        with self._lock:
            if self._checked:
                return
            whole = Tensor(self.file, self.start, (self.size,), "U8", self.size)
            crc = 0
            for first in range(0, self.size, _BLOCK):
                crc = zlib.crc32(whole[first : first + _BLOCK].data, crc)
            if crc != self._crc:
                raise UserError(
                    f"{self.file.path}: the values of {printable(self.key)} in this "
                    "zip do not match their checksum, so they are damaged; get the "
                    "file from its source again"
                )
            self._checked = True


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a zip; `tensor[index]` reads that part of it.

    Attributes:
      storage: where its values are.
      dtype: its type as safetensors spells it.
      offset: its first value, counted in values.
      shape: its sizes.
      strides: how many values apart neighbours along each axis are.
    """

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The size of all of its values."""
        return math.prod(self.shape) * TYPES[self.dtype].itemsize

    def __getitem__(self, index: Any) -> np.ndarray:
        """A part of the tensor, in memory of its own.

        Raises:
          UserError: the file is damaged or cannot be read.
        """
        self.storage.check()
        width = TYPES[self.dtype].itemsize
        start = self.storage.start + self.offset * width
        if self._is_contiguous():
            stored = Tensor(
                self.storage.file, start, self.shape, self.dtype, self.nbytes
            )
            return stored[index]
        # A transposed or expanded tensor: its values are somewhere in a stretch.
        count = extent(self.shape, self.strides)
        stretch = Tensor(self.storage.file, start, (count,), self.dtype, count * width)
        strides = tuple(stride * width for stride in self.strides)
        view = np.lib.stride_tricks.as_strided(stretch[...], self.shape, strides)
        return np.array(view[index])

    def unchecked(self) -> "StoredTensor":
        """The same without comparing the checksum, for which all values are read."""
        own = self.storage
        storage = Storage(own.file, own.key, own.dtype, own.start, own.size, None)
        return replace(self, storage=storage)

    def _is_contiguous(self) -> bool:
        expected = 1
        for size, stride in zip(self.shape[::-1], self.strides[::-1], strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True


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
        if kind != "storage" or not isinstance(stored, StorageType):
            raise ValueError("it refers to something that is not a storage")
        if location == "meta":
            return META
        name = f"{root}data/{key}"
        if name not in storages:
            start, size = _place(file, entries[name])
            if size < count * _width(stored.dtype):
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
        f"{path}: contains an object of type {printable(name)}, and making it would "
        "run the file's code; this was refused and nothing was run: get the weights as "
        "safetensors, or save the tensors alone"
    )


def extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """How many values apart the first and the last value of a tensor are, plus one."""
    if 0 in shape:
        return 0
    pairs = zip(shape, strides, strict=True)
    return 1 + sum((size - 1) * stride for size, stride in pairs)


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


def _width(dtype: str | None) -> int:
    return TYPES[SPELLINGS[dtype]].itemsize if dtype in SPELLINGS else 1


def _tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    gradient: Any = False,
    hooks: Any = None,
    metadata: Any = None,
) -> StoredTensor | Special:
    """torch._utils._rebuild_tensor, and _v2 with a few more arguments."""
    if metadata:  # Bits that say that all values are to be negated or conjugated.
        return Special(_plain("is a negated or conjugated view of a tensor"))
    return _view(storage, offset, shape, strides, None)


def _tensor_v3(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    gradient: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> StoredTensor | Special:
    """The same for types that have no storage of their own."""
    if metadata:
        return Special(_plain("is a negated or conjugated view of a tensor"))
    return _view(storage, offset, shape, strides, dtype)


def _view(
    storage: Any, offset: Any, shape: Any, strides: Any, dtype: Dtype | None
) -> StoredTensor | Special:
    if isinstance(storage, Special):
        return storage
    name = storage.dtype if dtype is None else dtype.name
    if not isinstance(storage, Storage) or name is None:
        raise ValueError("a tensor has no storage, or no type")
    if name not in SPELLINGS:
        return Special(_plain(f"is a torch.strided tensor of type {name}"))
    numbers = (offset, *shape, *strides)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("a tensor has an impossible shape")
    found = StoredTensor(storage, SPELLINGS[name], offset, tuple(shape), tuple(strides))
    width = TYPES[found.dtype].itemsize
    if (offset + extent(found.shape, found.strides)) * width > storage.size:
        raise ValueError("a tensor has more values than its storage")
    return found


def _plain(what: str) -> str:
    return f"{what}, which cannot be read; save it as plain floating-point numbers"


def _special(what: str) -> Callable[..., Special]:
    return lambda *arguments: Special(_plain(what))


def _sparse(layout: Any, data: Any) -> Special:
    values = data[1] if isinstance(data, tuple) and len(data) > 1 else None
    dtype = getattr(values, "dtype", "")
    names = {spelling: name for name, spelling in SPELLINGS.items()}
    kind = f" of type {names[dtype]}" if dtype in names else ""
    return Special(_plain(f"is a {layout} tensor{kind}"))


def _dict(pairs: Any = ()) -> dict[Any, Any]:
    return pickle_programs.mapping(pairs.items() if isinstance(pairs, dict) else pairs)


_QUANTISATIONS = (
    "per_tensor_affine",
    "per_tensor_symmetric",
    "per_channel_affine",
    "per_channel_symmetric",
    "per_channel_affine_float_qparams",
)
_BUILTINS = ("builtins", "__builtin__")
_PLAIN = ("set", "frozenset", "list", "dict", "complex", "bytearray", "bytes")


def _nothing(*arguments: Any) -> None:
    """Stands for a value that is not needed."""


META = Special(
    "has a shape but no values (it is on PyTorch's device meta); save the model after "
    "its weights were loaded"
)

FUNCTIONS: Mapping[str, Any] = {
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": lambda factory=None, pairs=(): _dict(pairs),
    # The values of these are not weights, so that they need not be made.
    **{f"{module}.{name}": _nothing for module in _BUILTINS for name in _PLAIN},
    "_codecs.encode": _nothing,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.device": lambda *names: ":".join(map(str, names)),
    "torch.serialization._get_layout": str,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": lambda data, *others: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *others: data,
    "torch._tensor._rebuild_from_type_v2": lambda make, kind, arguments, *_: make(
        *arguments
    ),
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_sparse_csr_tensor": _sparse,
    "torch._utils._rebuild_qtensor": _special("is a quantised tensor"),
    "torch._utils._rebuild_nested_tensor": _special("is a nested tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": lambda *arguments: META,
    "torch.nn.parameter.Parameter": lambda data, *others: data,
    "torch.Tensor": None,
    **{f"torch.{scheme}": scheme for scheme in _QUANTISATIONS},
    "torch.storage.UntypedStorage": StorageType(None),
    **{f"torch.{name}Storage": StorageType(dtype) for name, dtype in STORAGES.items()},
    **{f"torch.{name}": Dtype(name) for name in (*SPELLINGS, *_OTHER_TYPES)},
}
"""What the names in PyTorch's pickles stand for. No other name is accepted."""
