"""The `gguf` library's reader, which believes no count of a file before it is checked.

The library reads beyond the end of a damaged file as if it had no more bytes there. So
a count with one wrong bit makes it loop for hours, and two tensors may share bytes:

    4 GGUF | 4 version | 8 tensors | 8 fields | fields … | tensors … | values …

Only `gguf_file.py` imports this module, when a file is opened, because the library is
an extra.
"""

from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np

_MOST_FIELDS, _MOST_TENSORS = 10_000, 100_000
# Of all lists together; the largest vocabularies have half a million merges.
_MOST_ENTRIES = 4_000_000

# Types whose values are kept as they are: type → as numpy and as safetensors call it.
_PLAIN = {
    "F32": (np.dtype(np.float32), "F32"),
    "F16": (np.dtype(np.float16), "F16"),
    "BF16": (np.dtype(ml_dtypes.bfloat16), "BF16"),
}


class CheckedReader(gguf.GGUFReader):
    """The fields and tensors of a file, each within the file.

    Raises:
      ValueError: the file is damaged.
    """

    def __init__(self, path: Path):
        self._entries = 0
        with np.errstate(over="ignore"):  # A place beyond the end is found below.
            super().__init__(path)
        if self.byte_order == "S":
            raise ValueError("its numbers have the byte order of other processors")
        self._check_places()

    def _get(self, offset: int, dtype: Any, count: int = 1, *rest: Any, **options: Any):
        size = int(offset) + np.dtype(dtype).itemsize * int(count)
        if size > len(self.data):
            raise ValueError(f"it ends after {len(self.data):,} bytes, not {size:,}")
        return super()._get(offset, dtype, count, *rest, **options)

    def _get_field_parts(self, orig_offs: int, raw_type: int):
        if raw_type == gguf.GGUFValueType.ARRAY:
            inner = int(self._get(orig_offs, np.uint32)[0])
            self._entries += int(self._get(orig_offs + 4, np.uint64)[0])
            if inner == gguf.GGUFValueType.ARRAY or self._entries > _MOST_ENTRIES:
                raise ValueError("it has lists that no model has")
        return super()._get_field_parts(orig_offs, raw_type)

    def _build_fields(self, offs: int, count: int) -> int:
        if count > _MOST_FIELDS:
            raise ValueError(f"it says that it has {count:,} fields")
        return super()._build_fields(offs, count)

    def _build_tensor_info(self, offs: int, count: int):
        if count > _MOST_TENSORS:
            raise ValueError(f"it says that it has {count:,} tensors")
        return super()._build_tensor_info(offs, count)

    def _check_places(self) -> None:
        """Checks that each tensor begins where the one before it ends, as llama.cpp."""
        expected, alignment = int(self.data_offset), int(self.alignment)
        for tensor in self.tensors:
            if tensor.data_offset != expected:
                raise ValueError(f"{tensor.name} does not follow the tensor before it")
            expected += -(-tensor.n_bytes // alignment) * alignment


def fields(reader: CheckedReader) -> dict[str, Any]:
    """Key → value: a number, a text, a truth value, or a list of these."""
    return {name: field.contents() for name, field in reader.fields.items()}


def stored_type(kind: gguf.GGMLQuantizationType) -> str:
    """What the values of a type are read as, as safetensors spells it.

    Raises:
      ValueError: the library cannot read this type.
    """
    if kind.name in _PLAIN:
        return _PLAIN[kind.name][1]
    if not _is_readable(kind):
        known = [each.name for each in gguf.GGMLQuantizationType if _is_readable(each)]
        raise ValueError(
            f"its values are of type {kind.name}, which cannot be read; get the file "
            f"in one of the types {', '.join(known)}"
        )
    return "F32"


def values(tensor: gguf.ReaderTensor) -> np.ndarray:
    """All values of a tensor; those of a few bits become float32."""
    name = tensor.tensor_type.name
    if name in _PLAIN:
        dtype, shape = _PLAIN[name][0], tuple(int(n) for n in tensor.shape[::-1])
        return np.array(tensor.data).view(dtype).reshape(shape)
    # Numbers that overflow are found when the result is checked.
    with np.errstate(all="ignore"):
        return gguf.dequantize(np.array(tensor.data), tensor.tensor_type)


def _is_readable(kind: gguf.GGMLQuantizationType) -> bool:
    """Whether the library can read a type."""
    block = np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)
    try:
        gguf.dequantize(block, kind)
    except NotImplementedError:
        return False
    return True
