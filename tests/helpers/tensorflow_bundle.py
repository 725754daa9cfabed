"""Writes checkpoints of TensorFlow, as its own writer does, without it."""

import struct

import numpy as np

TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}


def varint(number):
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number, value):
    """A field of a protocol buffer: a number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(entries):
    """Names share their beginnings, but for those at the two restarts."""
    out, last, restarts = b"", b"", []
    for index, (name, value) in enumerate(entries):
        shared = 0
        if index % 4:
            while shared < min(len(last), len(name)) and last[shared] == name[shared]:
                shared += 1
        else:
            restarts.append(len(out))
        out += varint(shared) + varint(len(name) - shared) + varint(len(value))
        out += name[shared:] + value
        last = name
    return out + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def write(folder, arrays, name=""):
    """Writes both files; two blocks of names."""
    data, entries = b"", [(b"", field(1, 1))]
    for key in sorted(arrays):
        array = np.asarray(arrays[key])
        shape = b"".join(field(2, field(1, int(size))) for size in array.shape)
        value = field(1, TYPES[array.dtype.name]) + field(2, shape)
        value += field(4, len(data)) + field(5, array.nbytes)
        value += varint(6 << 3 | 5) + b"\1\2\3\4"  # A checksum.
        entries.append((key.encode(), value))
        data += array.tobytes()
    middle = len(entries) // 2
    table, places = b"", []
    for part in (entries[:middle], entries[middle:]):
        content = block(part)
        places.append((part[-1][0], varint(len(table)) + varint(len(content))))
        table += content + b"\0" + b"\1\2\3\4"
    index = block(places)
    footer = varint(0) + varint(0) + varint(len(table)) + varint(len(index))
    table += index + b"\0" + b"\1\2\3\4"
    table += footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    (folder / f"{name}.index").write_bytes(table)
    (folder / f"{name}.data-00000-of-00001").write_bytes(data)
