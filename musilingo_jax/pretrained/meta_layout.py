"""A LLaMA as Meta hands it out, read under the names of the transformers library.

    tokenizer.model                 here, or in the folder itself
    7B/params.json                  {"dim": 4096, "n_layers": 32, "n_heads": 32, …}
    7B/consolidated.00.pth          all tensors, or
    7B/consolidated.01.pth …        one slice of each in every file ("model parallel")

A slice is of rows or of columns. Which one follows from the whole shape, which
`params.json` implies, and nothing else:

    whole [8, 4] in two files    [4, 4] rows    [8, 2] columns    [8, 4] a copy in each

The code that these files were written for turns neighbouring rows of a query or key
head by one rotary angle, the transformers library and ours the two halves of a head:
`row_tensors.halved` reorders them. Facts from the published reference code of LLaMA 1
to 3 and the `params.json` of its releases.
"""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.released_config import LARGEST_SIZE, AttributeGuard
from musilingo_jax.pretrained import pytorch_files
from musilingo_jax.pretrained.lazy_tensors import LazyTensor, Tensors, shortened
from musilingo_jax.pretrained.meta_names import EMBEDDING, HEAD, to_transformers
from musilingo_jax.pretrained.row_tensors import RowTensor, joined
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.printable import one_line

PARAMS = "params.json"

_GUARD = AttributeGuard(
    used="""
        dim n_layers n_heads n_kv_heads multiple_of ffn_dim_multiplier norm_eps
        vocab_size rope_theta use_scaled_rope rope_scaling_factor
    """,
    fixed={},
    ignored={"sizes of the cache of keys and values": "max_batch_size max_seq_len"},
    null_is_unset=True,
    file=PARAMS,
)

# Angles, which are computed when the model is loaded.
_IGNORED = re.compile(r"(.+\.)?rope\.freqs")

# `use_scaled_rope` does not say by how much. Width and depth → the factor that the
# releases of this size were trained with: LLaMA 3.1 and 3.3, and 3.2.
_ROPE_FACTORS = {
    **dict.fromkeys([(4096, 32), (8192, 80), (16384, 126)], 8.0),
    **dict.fromkeys([(2048, 16), (3072, 28)], 32.0),
}
_SCALING = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def is_layout(folder: Path) -> bool:
    """Whether a folder has a `params.json` and a first file of weights."""
    return (folder / PARAMS).is_file() and (folder / _shard(0)).is_file()


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` that the transformers library would have for the model.

    Raises:
      UserError: `params.json` lacks a key, or has one that is unknown or impossible, or
        the files of weights cannot be read.
    """
    return _config(folder, _shards(folder))


def open_tensors(folder: Path) -> Tensors:
    """The model's tensors under the transformers library's names, none read yet.

    Raises:
      UserError: as in `read_config`; or the files do not have the tensors that
        `params.json` describes, or slices of them.
    """
    shards = _shards(folder)
    config = LlamaConfig.from_dict(_config(folder, shards))
    shapes = _shapes(config)
    found = {name for shard in shards for name in shard if not _IGNORED.fullmatch(name)}
    tensors, missing, misfits = {}, [], []
    for name, shape in shapes.items():
        if any(name not in shard for shard in shards):
            missing.append(name)
            continue
        parts = [shard[name] for shard in shards]
        whole = _whole(f"{folder}: {one_line(name)}", parts, shape)
        if whole is None:
            differ = len({part.dtype for part in parts}) > 1
            sizes = " and ".join(
                f"{list(part.shape)}{f' {part.dtype}' if differ else ''}"
                for part in parts[:4]
            )
            misfits.append(f"{name} {sizes} for {list(shape)}")
            continue
        tensors[name] = whole
    unused = sorted(found - shapes.keys())
    problems = {"missing": missing, "unused": unused, "shapes": misfits}
    told = [f"{kind}: {shortened(names)}" for kind, names in problems.items() if names]
    if told:
        raise UserError(
            f"{folder}: the tensors of {_shard(0)}"
            + (f" … {_shard(len(shards) - 1)}" if shards[1:] else "")
            + f" do not fit {PARAMS}; {'; '.join(told)}; get all files from one source"
        )
    return to_transformers(tensors, config.head_dim)


def tokenizer_folders(folder: Path) -> tuple[Path, ...]:
    """Where its tokenizer may be; Meta's is beside the folders of the models."""
    return (folder, folder.absolute().parent) if is_layout(folder) else (folder,)


def _shard(number: int) -> str:
    return f"consolidated.{number:02}.pth"


def _shards(folder: Path) -> list[Tensors]:
    """The tensors of each file of weights, in their order."""
    names = sorted(path.name for path in folder.glob("consolidated.*.pth"))
    if names != [_shard(number) for number in range(len(names))]:
        raise UserError(
            f"{folder}: has the files {shortened(names)}, whose numbers leave gaps; "
            "get the files that are missing from the same source"
        )
    return [pytorch_files.open_tensors(folder / name) for name in names]


def _config(folder: Path, shards: Sequence[Tensors]) -> dict[str, Any]:
    path = folder / PARAMS
    given = {k: v for k, v in read_json(path).items() if v is not None}
    try:
        _GUARD.check(given)
        width, depth, heads = (
            _number(given, name, int) for name in ("dim", "n_layers", "n_heads")
        )
        if width % heads:
            raise UserError(
                f"{PARAMS}: dim {width} is not a multiple of n_heads {heads}"
            )
        theta = {"rope_theta": 10_000.0} | given
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": _vocabulary(given, shards, width),
            "hidden_size": width,
            "intermediate_size": _mlp_width(given, width),
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "num_key_value_heads": _number(
                {"n_kv_heads": heads} | given, "n_kv_heads", int
            ),
            "rms_norm_eps": _number(given, "norm_eps", float),
            "rope_theta": _number(theta, "rope_theta", float),
            "rope_scaling": _scaling(given, width, depth),
            "tie_word_embeddings": all(HEAD not in shard for shard in shards),
        }
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    try:
        LlamaConfig.from_dict(config)
    except UserError as error:
        raise UserError(f"{folder}: {PARAMS}, read as a {error}") from error
    return config


def _mlp_width(given: Mapping[str, Any], width: int) -> int:
    """Two thirds of four times the width, times a factor, rounded up to a multiple."""
    hidden = float(int(2 * (4 * width) / 3))
    if "ffn_dim_multiplier" in given:
        hidden *= _number(given, "ffn_dim_multiplier", float)
    multiple = _number(given, "multiple_of", int)
    if 1 <= hidden <= LARGEST_SIZE:
        found = multiple * math.ceil(int(hidden) / multiple)
        if found <= LARGEST_SIZE:
            return found
    raise UserError(
        f"{PARAMS}: dim, ffn_dim_multiplier and multiple_of give a width of the mlp "
        f"that is not from 1 to {LARGEST_SIZE:,}"
    )


def _vocabulary(given: Mapping[str, Any], shards: Sequence[Tensors], width: int) -> int:
    """`vocab_size`; if it is left to the tokenizer, the rows of the embedding."""
    if given.get("vocab_size", -1) != -1:
        return _number(given, "vocab_size", int)
    embedding = shards[0].get(EMBEDDING)
    rows, *columns = (*(embedding.shape if embedding is not None else ()), 0)
    if rows and (len(shards) == 1 or columns[0] * len(shards) == width):
        return rows
    raise UserError(
        f"{PARAMS}: gives no vocab_size, and {EMBEDDING} of {_shard(0)} does not show "
        "it; write it there"
    )


def _scaling(given: Mapping[str, Any], width: int, depth: int) -> dict[str, Any] | None:
    """The scaling of LLaMA 3.1 and later, whose factor depends on the release."""
    scaled = given.get("use_scaled_rope", False)
    if not isinstance(scaled, bool):
        raise UserError(
            f"{PARAMS}: use_scaled_rope is {scaled!r}: must be true or false"
        )
    if not scaled:
        return None
    if "rope_scaling_factor" in given:
        return _SCALING | {"factor": _number(given, "rope_scaling_factor", float)}
    if (width, depth) in _ROPE_FACTORS:
        return _SCALING | {"factor": _ROPE_FACTORS[width, depth]}
    raise UserError(
        f"{PARAMS}: use_scaled_rope does not say by how much, and no release with dim "
        f"{width} and n_layers {depth} is known; write its factor as "
        "rope_scaling_factor (8 in LLaMA 3.1 and 3.3, 32 in 3.2)"
    )


def _number(given: Mapping[str, Any], name: str, kind: type) -> Any:
    """A positive number of `params.json`."""
    value = given.get(name)
    allowed = isinstance(value, int if kind is int else int | float)
    largest = LARGEST_SIZE if kind is int else sys.float_info.max
    if (
        value is None
        or not allowed
        or isinstance(value, bool)
        or not 0 < value <= largest
    ):
        described = "whole number" if kind is int else "number"
        found = "missing" if value is None else repr(value)
        raise UserError(
            f"{PARAMS}: {name} is {found}: it must be a positive {described}"
        )
    return kind(value)


def _shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Meta's name of each tensor → the shape of the whole tensor."""
    width, mlp = config.width, config.mlp_width
    queries, keys = (n * config.head_dim for n in (config.heads, config.key_heads))
    layer = {
        "attention.wq": (queries, width),
        "attention.wk": (keys, width),
        "attention.wv": (keys, width),
        "attention.wo": (width, queries),
        "feed_forward.w1": (mlp, width),
        "feed_forward.w2": (width, mlp),
        "feed_forward.w3": (mlp, width),
        "attention_norm": (width,),
        "ffn_norm": (width,),
    }
    vocabulary = (config.vocab, width)
    shapes = {EMBEDDING: vocabulary}
    for number in range(config.depth):
        shapes |= {f"layers.{number}.{key}.weight": layer[key] for key in layer}
    shapes |= {"norm.weight": (width,)}
    return shapes | ({} if config.tied else {HEAD: vocabulary})


def _whole(
    where: str, parts: Sequence[LazyTensor], shape: tuple[int, ...]
) -> LazyTensor | None:
    """A tensor from its slice in each file; None if they do not make this shape."""
    if len({(tuple(part.shape), part.dtype) for part in parts}) > 1:
        return None
    slices = tuple(parts[0].shape)
    if slices == shape:
        return parts[0] if len(parts) == 1 else _copies(where, parts)
    for axis in range(len(shape)):
        whole = list(slices)
        if len(slices) == len(shape) == 2:
            whole[axis] *= len(parts)
        if tuple(whole) == shape:
            return joined(parts, axis)
    return None


def _copies(where: str, parts: Sequence[LazyTensor]) -> RowTensor:
    """A tensor that every file has whole: a norm."""
    return RowTensor(
        tuple(parts[0].shape), parts[0].dtype, partial(_same, where, parts)
    )


def _same(where: str, parts: Sequence[LazyTensor], rows: range) -> np.ndarray:
    first, *others = (part[rows.start : rows.stop] for part in parts)
    if any(first.tobytes() != other.tobytes() for other in others):
        raise UserError(
            f"{where} is not the same in all files of the model, though each has all "
            "of it; get them from one source"
        )
    return first
