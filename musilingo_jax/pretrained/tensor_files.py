"""The tensors in the weight files of a folder, read lazily.

Models are released as one `model.safetensors`, or as several files and an index that
says which tensor is in which file; older ones as PyTorch's files.
`pretrained/tensor_map.py` knows what the tensors mean.
"""

import functools
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path

import jax
import numpy as np

from musilingo_jax.pretrained import foreign_models, meta_layout, pytorch_files
from musilingo_jax.pretrained.lazy_tensors import (
    LazyTensor,
    Tensors,
    open_index,
    shard_names,
    shortened,
)
from musilingo_jax.pretrained.pytorch_files import BIN, BIN_INDEX
from musilingo_jax.pretrained.safetensors_file import open_file
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_SHARD = re.compile(r".+-(\d{5})-of-(\d{5})\.(safetensors|bin)")
# How far apart two roundings of a number may be, as a part of it.
_ROUNDING = {"BF16": 2.0**-7, "F16": 2.0**-10, "F32": 2.0**-22}
_SMALLEST = 1e-7  # Smaller numbers are 0 in float16.


def open_tensors(folder: Path, *, lora: bool = False) -> Tensors:
    """All tensors of a folder by name, none of them read yet.

    Opens `model.safetensors`, else the files that its index names, else PyTorch's files
    as `pytorch_files.open_tensors` does, or Meta's as `meta_layout.open_tensors` does.

    Args:
      folder: of a model.
      lora: whether a LoRA may be beside them, because it will be added to them.

    Raises:
      UserError: there are no weights, some files are missing, or one is broken; another
        set of files beside these holds other weights; or a LoRA is beside them.
    """
    if not lora:
        foreign_models.check_no_lora(folder)
    chosen, opened = None, None
    for name, opener in _SETS.items():
        # Not `is_file`, so that a named pipe is not taken for absent.
        if not (folder / name).exists() or (folder / name).is_dir():
            continue
        if opened is None:
            chosen, opened = name, opener(folder / name)
        elif name in (BIN, BIN_INDEX) and _is_complete(folder, name):
            _check_same(folder, str(chosen), opened, name, opener)
    if opened is not None:
        return opened
    if meta_layout.is_layout(folder):
        if (folder / CONFIG).exists():
            raise UserError(
                f"{folder}: has weights in Meta's layout, which {meta_layout.PARAMS} "
                f"describes, but also a {CONFIG}; move away the one that is not meant"
            )
        return meta_layout.open_tensors(folder)
    others = sorted(p.name for p in folder.glob("*.safetensors") if p.is_file())
    known = foreign_models.recognised(folder)
    # Beside other safetensors, files such as training_args.bin are not the weights.
    if not others and known is None and pytorch_files.files_in(folder):
        return pytorch_files.open_tensors(folder)
    if known is not None:
        raise UserError(f"{folder}: {known}")
    if len(others) > 1 or any(map(_SHARD.fullmatch, others)):
        raise UserError(
            f"{folder}: has the files {shortened(others)}, but not the {INDEX} that "
            "says which tensor is in which; get it from the same source, and the "
            "files that are missing"
        )
    if others:
        raise UserError(
            f"{folder}: has {others[0]}, but weights in one file must be called "
            f"{WEIGHTS}; rename it if it is the model"
        )
    raise UserError(
        f"{folder}: not a model folder, because it has neither {WEIGHTS} nor {INDEX} "
        f"nor {BIN}"
    )


@functools.lru_cache(maxsize=64)  # The parts of a release are in one folder.
def report_unread(folder: Path) -> None:
    """Says on stderr which files of a folder may be weights, but are not read."""
    present = [name for name in _SETS if (folder / name).is_file()]
    if not present and meta_layout.is_layout(folder):
        present = sorted(path.name for path in folder.glob("consolidated.*.pth"))
    if not present:  # One file of PyTorch under another name.
        return
    read = {present[0]} if present[0] in _SETS else set(present)
    if present[0] in (INDEX, BIN_INDEX):
        read |= set(shard_names(folder / present[0]))
    names = foreign_models.unread(folder, read.__contains__)
    if names and jax.process_index() == 0:
        only = present[0] + (" …" if len(read) > 1 and present[0] not in _SETS else "")
        print_note(f"{folder}: not read, only {only} is: {shortened(names)}")


def has_weights(names: Collection[str]) -> bool:
    """Whether a folder with files of these names has weights of its own.

    A LoRA is none, nor is a file of PyTorch with a name of its own.
    """
    return any(name in names for name in (*_SETS, meta_layout.PARAMS))


_SETS: dict[str, Callable[[Path], Tensors]] = {
    WEIGHTS: open_file,
    INDEX: lambda index: open_index(index, open_file),
    BIN: pytorch_files.open_tensors,
    BIN_INDEX: lambda index: open_index(index, pytorch_files.open_tensors),
}
"""The file that shows that a folder has weights of a kind → how all are opened."""


def _is_complete(folder: Path, name: str) -> bool:
    """Whether all files of a set are there, of which some may not be downloaded."""
    if name not in (INDEX, BIN_INDEX):
        return True
    try:
        return all(
            os.path.isfile(folder / shard) for shard in shard_names(folder / name)
        )
    except UserError:
        return False


def _check_same(
    folder: Path,
    chosen: str,
    tensors: Tensors,
    name: str,
    opener: Callable[[Path], Tensors],
) -> None:
    """Checks that files of PyTorch hold the same model, by the first row of a tensor.

    Some programs save a model that was trained on as files of PyTorch beside the
    safetensors of the old one. Which of the two is meant, cannot be known.

    Raises:
      UserError: it holds another one.
    """
    try:
        others = opener(folder / name)
    except UserError:
        return  # It could not be meant.
    for tensor in tensors.keys() & others.keys():
        if not _begin_alike(tensors[tensor], others[tensor]):
            raise UserError(
                f"{folder}: {chosen} and {name} hold different models ({tensor} is not "
                "the same in both); move away the one that is not meant"
            )


def _begin_alike(one: LazyTensor, other: LazyTensor) -> bool:
    """Whether two tensors have one shape, and the same first row up to rounding."""
    if tuple(one.shape) != tuple(other.shape):
        return False
    rows = [_first_row(tensor).astype(np.float32) for tensor in (one, other)]
    if one.dtype == other.dtype:
        return np.array_equal(*rows, equal_nan=True)
    coarser = max(_ROUNDING.get(tensor.dtype, 0.0) for tensor in (one, other))
    return np.allclose(*rows, rtol=coarser, atol=_SMALLEST, equal_nan=True)


def _first_row(tensor: LazyTensor) -> np.ndarray:
    unchecked = getattr(tensor, "unchecked", None)  # Without reading all of the file.
    tensor = tensor if unchecked is None else unchecked()
    return tensor[0:1] if tensor.shape else tensor[...]
