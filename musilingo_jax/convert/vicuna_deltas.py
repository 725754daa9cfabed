"""Merges language models that were published as their difference to another one.

Vicuna's authors were not allowed to publish LLaMA, from which it was made. So they
published the difference, which those who have LLaMA add to it.
"""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped

from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.pretrained import sources, tensor_map
from musilingo_jax.pretrained.finite_tensors import finite
from musilingo_jax.pretrained.lazy_tensors import LazyTensor
from musilingo_jax.pretrained.safetensors_file import TYPES
from musilingo_jax.pretrained.weights import blueprint, is_delta
from musilingo_jax.pretrained.write_folders import FolderPart, Output, small_files
from musilingo_jax.runtime.errors import UserError

_BLOCK = 2**20  # Numbers that are added at once; they stay in the processor's cache.


def merge(base: str, delta: str) -> list[Output]:
    """A language model from its difference to another one: base + delta.

    Rows of the vocabulary beyond the base's are those of the delta, because the authors
    of the Vicuna deltas added them to zeros. The sum of two float16 numbers in float32,
    rounded to float16, is their float16 sum: these are the authors' weights to the bit.

    The files do not distinguish bases of the same shape and configuration, such as
    LLaMA-1 and a model that was fine-tuned from it. The sum with a wrong base is
    written without an error; only the answers of the merged model show it.

    Raises:
      UserError: the two do not belong together, the base is a delta, or the delta is
        not one.
    """
    below = sources.find(base, "language_model")
    above = sources.find(delta, "language_model")
    if below.folder.resolve() == above.folder.resolve():
        raise UserError(f"{base}: is both base and delta; name two models")
    plans = blueprint(below), blueprint(above)
    if differences := _differences(*(plan.module.config for plan in plans)):
        raise UserError(
            f"{base} and {delta} do not belong together: they have "
            f"{', '.join(differences)}; use the base that the delta was made from"
        )
    bases, deltas = (
        finite(part.tensors(), str(part.folder)) for part in (below, above)
    )
    for plan, part, content in zip(plans, (below, above), (bases, deltas), strict=True):
        tensor_map.check(*plan, content, source=str(part.folder))
    if is_delta(bases):
        raise UserError(f"{base}: is a delta itself; name the model it was made from")
    if not is_delta(deltas):
        raise UserError(
            f"{delta}: is not a delta but a model (its norms do not scale by nearly "
            "0); use it as it is, or name the delta"
        )
    pieces = {
        name: FolderPart(
            tuple(tensor.shape),
            TYPES[tensor.dtype],
            partial(_add, name, bases[name], tensor),
        )
        # Buffers are left out: they are computed when the model is loaded, and a
        # delta's are differences, too. So is the copy of a tied head, which only one
        # of the two may have.
        for name, tensor in tensor_map.without(deltas, plans[1].ignored).items()
    }
    return [Output(pieces, above.config, small_files(above.folder))]


def _differences(base: LlamaConfig, delta: LlamaConfig) -> list[str]:
    """The fields in which the configurations differ, but must not."""
    found = [
        f"{field.name} {getattr(base, field.name)} and {getattr(delta, field.name)}"
        for field in dataclasses.fields(base)
        if field.name != "vocab"
        and getattr(base, field.name) != getattr(delta, field.name)
    ]
    if base.vocab > delta.vocab:
        found.append(f"vocab {base.vocab} and only {delta.vocab}")
    return found


def _add(name: str, base: LazyTensor, delta: LazyTensor) -> np.ndarray:
    """base + delta, in the delta's type; rows beyond the base's are the delta's.

    With a base of 3 rows and a delta of 5:

        base    a   b   c
        delta   u   v   w   x   y      →      a+u  b+v  c+w  x  y
    """
    total = np.empty(delta.shape, TYPES[delta.dtype])
    rows = max(1, _BLOCK // math.prod(delta.shape[1:]))
    for start in range(0, base.shape[0], rows):
        block = slice(start, min(start + rows, base.shape[0]))
        total[block], overflow = _sum(base[block], delta[block])
        if overflow:
            raise UserError(
                f"{name}: the sum is too large for {total.dtype}; the delta was not "
                "made from this base"
            )
    for start in range(base.shape[0], len(total), rows):
        total[start : start + rows] = delta[start : start + rows]
    return total


@jax.jit
def _sum(
    base: Shaped[Array, "*shape"], delta: Shaped[Array, "*shape"]
) -> tuple[Shaped[Array, "*shape"], Bool[Array, ""]]:
    """The sum in float32, cast to the delta's type, and whether that overflowed.

    Compiled, because numpy takes five times as long to convert float16.
    """
    total = base.astype(jnp.float32) + delta.astype(jnp.float32)
    stored = total.astype(delta.dtype)
    return stored, jnp.any(jnp.isfinite(total) & ~jnp.isfinite(stored))
