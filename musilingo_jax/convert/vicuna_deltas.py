"""Language models that were published as their difference to another one.

Vicuna's authors might not give away LLaMA, of which it was made, so that they gave the
difference: whoever has the one adds the other.
"""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped

from musilingo_jax.convert.write_folders import FolderPart, Output, small_files
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.pretrained import sources, tensor_map
from musilingo_jax.pretrained.lazy_tensors import LazyTensor
from musilingo_jax.pretrained.safetensors_file import TYPES
from musilingo_jax.pretrained.weights import blueprint
from musilingo_jax.runtime.errors import UserError

_BLOCK = 2**20  # Numbers that are added at once: few enough to stay in the cache.


def merge(base: str, delta: str) -> list[Output]:
    """A language model from its difference to another one: base + delta.

    Rows of the vocabulary past the base's are the delta's alone, as the authors of the
    Vicuna deltas added them to zeros. The sum of two float16 numbers in float32,
    rounded to float16, is their float16 sum: these are the authors' weights to the bit.

    Nothing in the files tells one base from another of the same shape and configuration
    (LLaMA-1 from a model that was fine-tuned of it, say): the sum with a wrong one is
    written without complaint. Only what the merged model says shows it.

    Raises:
      UserError: the two do not belong together, or one is not what it is said to be.
    """
    below = sources.find(base, "language_model")
    above = sources.find(delta, "language_model")
    if below.folder.resolve() == above.folder.resolve():
        raise UserError(f"{base}: is given as base and as delta; name two models")
    plans = blueprint(below), blueprint(above)
    if differences := _differences(*(plan.module.config for plan in plans)):
        raise UserError(
            f"{base} and {delta} do not belong together: they have "
            f"{', '.join(differences)}; take the base that the delta was made of"
        )
    bases, deltas = below.tensors(), above.tensors()
    for plan, part, content in zip(plans, (below, above), (bases, deltas), strict=True):
        tensor_map.check(*plan, content, source=str(part.folder))
    if sources.is_delta(bases):
        raise UserError(f"{base}: is a delta itself; give the model that it is one to")
    if not sources.is_delta(deltas):
        raise UserError(
            f"{delta}: is no delta but a model (its norms do not scale by nearly 0); "
            "use it as it is, or name the delta"
        )
    pieces = {
        name: FolderPart(
            tuple(tensor.shape),
            TYPES[tensor.dtype],
            partial(_add, name, bases[name], tensor),
        )
        # Without buffers that are computed anew, for a delta's are differences, too;
        # and without the copy of a tied head, which only one of the two may have.
        for name, tensor in tensor_map.without(deltas, plans[1].ignored).items()
    }
    return [Output(pieces, above.config, small_files(above.folder))]


def _differences(base: LlamaConfig, delta: LlamaConfig) -> list[str]:
    """In what the configurations of a base and a delta of it must not differ."""
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
    """base + delta, in the delta's type; rows past the base's are the delta's alone.

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
                f"{name}: the sum is too large for {total.dtype}; the base is not that "
                "of the delta"
            )
    for start in range(base.shape[0], len(total), rows):
        total[start : start + rows] = delta[start : start + rows]
    return total


@jax.jit
def _sum(
    base: Shaped[Array, "*shape"], delta: Shaped[Array, "*shape"]
) -> tuple[Shaped[Array, "*shape"], Bool[Array, ""]]:
    """The sum in float32, then in the delta's type; and whether it does not fit.

    Compiled, because numpy converts float16 five times as slowly.
    """
    total = base.astype(jnp.float32) + delta.astype(jnp.float32)
    stored = total.astype(delta.dtype)
    return stored, jnp.any(jnp.isfinite(total) & ~jnp.isfinite(stored))
