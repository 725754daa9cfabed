"""What the functions and classes in PyTorch's pickles stand for.

No function of PyTorch is called: `torch._utils._rebuild_tensor_v2` in a pickle makes a
`StoredTensor`, and `torch.FloatStorage` is a type of values. A name that is not listed
here is refused.
"""

from collections.abc import Callable, Mapping
from typing import Any

from musilingo_jax.pretrained import pickle_programs
from musilingo_jax.pretrained.pytorch_tensors import (
    META,
    SPELLINGS,
    STORAGES,
    Dtype,
    Special,
    Storage,
    StorageType,
    StoredTensor,
    extent,
)
from musilingo_jax.pretrained.safetensors_file import TYPES

_OTHER_TYPES = ("complex32", "complex64", "complex128", "quint8", "qint8", "qint32")


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
    layout = layout if isinstance(layout, str) else "sparse"
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


FUNCTIONS: Mapping[str, Any] = {
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": lambda factory=None, pairs=(): _dict(pairs),
    # The values of these are not weights, so that they need not be made.
    **{f"{module}.{name}": _nothing for module in _BUILTINS for name in _PLAIN},
    "_codecs.encode": _nothing,
    # The flags that a trainer was started with.
    "argparse.Namespace": lambda *arguments: pickle_programs.Attributes(),
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.device": _nothing,
    "torch.serialization._get_layout": lambda name: name,
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
