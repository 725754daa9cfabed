"""The three parts of a model, from wherever they lie into modules, and back.

A part is a `config.json` and safetensors, of our own or of the `transformers` library:
what one writes the other reads. `pretrained/sources.py` says what may be named.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from musilingo_jax.models import adapter as adapters
from musilingo_jax.models import int8 as quantizations
from musilingo_jax.models import llama as llamas
from musilingo_jax.models import mert as merts
from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.int8 import quantize_language_model
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.models.names import Names
from musilingo_jax.pretrained import digests, sources, tokenizer
from musilingo_jax.pretrained.lazy_tensors import LazyTensor
from musilingo_jax.pretrained.sources import TOKENIZER_FILES, Part
from musilingo_jax.pretrained.tensor_map import abstract, load, save
from musilingo_jax.pretrained.tokenizer import Tokenizer
from musilingo_jax.runtime.errors import UserError

_ADAPTER_CONFIG = ("encoder_width", "language_model_width", "window_frames")
# One file as long as it is convenient to copy, else shards of this size.
SHARD_BYTES = 5 * 10**9


class Blueprint(NamedTuple):
    """What a configuration describes, before there are any numbers.

    Attributes:
      module: abstract, as under `jax.eval_shape`.
      names: our parameter path → released name.
      ignored: patterns of released tensors that have no use here.
    """

    module: Any
    names: Names
    ignored: tuple[str, ...]


def encoder_blueprint(config: Mapping[str, Any]) -> Blueprint:
    """A MERT; raises what `MertConfig.from_dict` does."""
    said = MertConfig.from_dict(config)
    module = jax.eval_shape(lambda: Mert(said, rngs=nnx.Rngs(0)))
    return Blueprint(module, merts.NAMES, merts.IGNORED)


def language_model_blueprint(config: Mapping[str, Any]) -> Blueprint:
    """A LLaMA; raises what `LlamaConfig.from_dict` does."""
    said = LlamaConfig.from_dict(config)
    module = jax.eval_shape(lambda: Llama(said, rngs=nnx.Rngs(0)))
    # Some files whose head is the embedding carry a copy of it all the same.
    copies = (r"lm_head\.weight",) if said.tied else ()
    return Blueprint(module, llamas.NAMES, (*llamas.IGNORED, *copies))


def adapter_blueprint(config: Mapping[str, Any]) -> Blueprint:
    """An adapter.

    Raises:
      UserError: a width is missing.
    """
    widths = [config.get(key) for key in _ADAPTER_CONFIG[:2]]
    if not all(isinstance(width, int) and width > 0 for width in widths):
        raise UserError(
            "an adapter's config.json needs encoder_width and language_model_width, "
            "both positive whole numbers"
        )
    module = jax.eval_shape(lambda: Adapter(*widths, rngs=nnx.Rngs(0)))
    return Blueprint(module, adapters.NAMES, ())


def blueprint(part: Part) -> Blueprint:
    """What a part's configuration describes.

    Raises:
      UserError: it cannot be used; the message begins with where it is.
    """
    describe = {
        "encoder": encoder_blueprint,
        "language_model": language_model_blueprint,
        "adapter": adapter_blueprint,
    }[part.kind]
    try:
        return describe(part.config)
    except UserError as error:
        raise UserError(f"{part.folder}: {error}") from error


def load_encoder(source: str | Path, *, dtype: DTypeLike, mesh: Mesh | None) -> Mert:
    """A MERT; arguments and errors as in `sources.find` and `tensors.load`."""
    part = sources.find(source, "encoder")
    return _load(part, blueprint(part), dtype, mesh)


def load_language_model(
    source: str | Path, *, dtype: DTypeLike, quantization: str, mesh: Mesh | None
) -> Llama:
    """A LLaMA; arguments and errors as in `sources.find` and `tensors.load`.

    Args:
      source: what holds it.
      dtype: of what is not quantised.
      quantization: "int8" to store the kernels of linear layers in 8 bits, or "".
      mesh: where the arrays go.

    Raises:
      UserError: besides, the files are only a difference to another model, or there is
        no such quantization.
    """
    quantizations.check(quantization)
    part = sources.find(source, "language_model")
    if sources.is_delta(part.tensors()):
        raise UserError(
            f"{part.folder}: these are only differences to another model (its norms "
            "scale by nearly 0), which speak no language; merge them with `python -m "
            f"musilingo_jax.convert merge --base=… --delta={part.source} --out=…`"
        )
    described = blueprint(part)
    if quantization:
        module = jax.eval_shape(quantize_language_model, described.module)
        described = described._replace(module=module)
    return _load(part, described, dtype, mesh)


def abstract_language_model(
    config: LlamaConfig, *, dtype: DTypeLike, quantization: str, mesh: Mesh
) -> Llama:
    """What `load_language_model` would give, as shapes, types and placements alone.

    Programs are compiled with it, for machines and models that are not there.

    Raises:
      UserError: there is no such quantization.
    """
    quantizations.check(quantization)
    module = jax.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0)))
    if quantization:
        module = jax.eval_shape(quantize_language_model, module)
    return abstract(module, llamas.NAMES, dtype=dtype, mesh=mesh)


def load_adapter(source: str | Path, *, mesh: Mesh | None) -> Adapter:
    """An adapter, in float32 because it learns; errors as in `load_encoder`."""
    part = sources.find(source, "adapter")
    return _load(part, blueprint(part), np.float32, mesh)


def _load(part: Part, described: Blueprint, dtype: DTypeLike, mesh: Mesh | None) -> Any:
    return load(
        *described,
        part.tensors(),
        source=str(part.folder),
        dtype=dtype,
        mesh=mesh,
    )


def save_encoder(mert: Mert, folder: Path, *, dtype: DTypeLike) -> None:
    """Writes what `load_encoder` and transformers' `HubertModel` read."""
    # Without masking in training, HubertModel misses no vector for masked frames.
    unmasked = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    config = mert.config.to_dict() | unmasked
    save(
        mert,
        merts.NAMES,
        folder,
        dtype=dtype,
        config=config,
        metadata={},
        shard_bytes=SHARD_BYTES,
    )


def save_language_model(llama: Llama, folder: Path, *, dtype: DTypeLike) -> None:
    """Writes what `load_language_model` and transformers' `LlamaForCausalLM` read."""
    config = llama.config.to_dict()
    save(
        llama,
        llamas.NAMES,
        folder,
        dtype=dtype,
        config=config,
        metadata={},
        shard_bytes=SHARD_BYTES,
    )


def save_adapter(
    adapter: Adapter, folder: Path, *, dtype: DTypeLike, window_frames: int
) -> None:
    """Writes what `load_adapter` reads.

    Args:
      adapter: the two arrays.
      folder: as in `tensors.save`.
      dtype: as stored.
      window_frames: encoder frames per vector that the adapter was trained on, told to
        whoever makes features for it.
    """
    width_in, width_out = adapter.projection.kernel.shape
    config = {
        "encoder_width": width_in,
        "language_model_width": width_out,
        "window_frames": window_frames,
    }
    save(
        adapter,
        adapters.NAMES,
        folder,
        dtype=dtype,
        config=config,
        metadata={},
        shard_bytes=SHARD_BYTES,
    )


def load_tokenizer(source: str | Path) -> Tokenizer:
    """The tokenizer of a language model; no code of its folder is run.

    Raises:
      UserError: there is none, it cannot be read, or it has tokens that the language
        model has no embedding for.
    """
    part = sources.find(source, "language_model")
    if part.tokenizer is None:
        raise UserError(
            f"{part.folder}: has no tokenizer; copy the "
            f"{' or '.join(TOKENIZER_FILES[:2])} that belongs to the language model "
            "there"
        )
    found = tokenizer.load(part.tokenizer)
    rows = blueprint(part).module.config.vocab
    if found.size > rows:
        raise UserError(
            f"{part.tokenizer}: the tokenizer has {found.size} tokens but the language "
            f"model embeds only {rows}; copy the tokenizer that belongs to it there"
        )
    return found


def digest(source: str | Path, kind: str) -> str:
    """A fingerprint of a part: of what it computes, not of how it is stored.

    sha256 over the numbers that its module has, the names, types and contents of the
    tensors that it uses, and its tokenizer. The same part has the same digest alone,
    in a whole model, in a release, in one file or in many.

    Raises:
      UserError: as in `sources.find` and `open_tensors`.
    """
    part = sources.find(source, kind)
    tensors = part.tensors()  # Which downloads them, if they are not there.
    folders = {part.folder, part.tokenizer or part.folder}
    files = [path for folder in folders for path in folder.iterdir() if path.is_file()]
    said = (kind, part.prefix, repr(sorted(part.config.items())))
    return digests.remembered(said, files, lambda: _digest(part, tensors))


def _digest(part: Part, tensors: Mapping[str, LazyTensor]) -> str:
    """As `digest`, from all of the numbers."""
    kind = part.kind
    module, _, ignored = blueprint(part)
    useless = re.compile("|".join(f"(?:{pattern})" for pattern in ignored) or r"(?!)")
    tensors = {
        name: tensor
        for name, tensor in sorted(tensors.items())
        if not useless.fullmatch(name)
    }

    def content(tensor: LazyTensor) -> str:
        # As bytes, because a buffer knows no bfloat16.
        return hashlib.sha256(tensor[...].reshape(-1).view(np.uint8)).hexdigest()

    said = {key: part.config.get(key) for key in _ADAPTER_CONFIG}
    described = said if kind == "adapter" else module.config
    total = hashlib.sha256(f"{kind} {described}\n".encode())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        contents = pool.map(content, tensors.values())
        for (name, tensor), found in zip(tensors.items(), contents, strict=True):
            total.update(f"{name} {tensor.dtype} {tensor.shape} {found}\n".encode())
    for name in TOKENIZER_FILES if part.tokenizer else ():
        if (part.tokenizer / name).is_file():
            with (part.tokenizer / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{name} {found}\n".encode())
    return total.hexdigest()
