"""What `config.model.dtype = "auto"` means on the machine at hand.

    TPU, GPU, processor with bfloat16 units    bfloat16
    another processor, memory for float32      float32, which is faster there
    another processor, less memory             bfloat16, and a sentence
    a processor of which nothing is known      as one without units, and a sentence

No room sees "auto". A program that makes something to be kept (a run, a cache, answers)
replaces it once, at its beginning, and the type itself is recorded; see
`audio/cache/recorded_type.py`. Programs that keep nothing choose for themselves.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from musilingo_jax.models.int8 import quantize_language_model
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.runtime import processor
from musilingo_jax.runtime.printable import print_note

AUTO = "auto"

# Of the available memory, what weights may take: songs, activations and the cache of
# keys and values need the rest.
_SHARE = 0.8


def of_this_machine(parts: Mapping[str, str], quantization: str) -> str:
    """The type for models that run here.

    Must be called after `platforms.start`.

    Args:
      parts: kind → source, of the frozen parts that are held in memory.
      quantization: of the language model; "" for none.

    Raises:
      UserError: a part's configuration cannot be found.
    """
    units = processor.has_bfloat16_units()
    if jax.default_backend() != "cpu" or units:
        return "bfloat16"
    if problem := too_large(parts, quantization):
        _tell(f"bfloat16, though float32 is faster on {processor.name()}: {problem}")
        return "bfloat16"
    if units is None:
        _tell(
            f"float32: this system does not say whether {processor.name()} has "
            "bfloat16 units, and without them bfloat16 is slower"
        )
    return "float32"


def too_large(parts: Mapping[str, str], quantization: str) -> str | None:
    """Why the parts cannot be held in float32; None if they can.

    Raises:
      UserError: as in `of_this_machine`.
    """
    needed = sum(_bytes(kind, source, quantization) for kind, source in parts.items())
    available = processor.available_memory()
    if needed <= _SHARE * available:
        return None
    return (
        f"its weights take {needed / 1e9:.1f} GB, of {available / 1e9:.1f} GB of "
        "memory that is available"
    )


def _bytes(kind: str, source: str, quantization: str) -> int:
    """Bytes of a part in float32, but for kernels that are in 8 bits."""
    part = sources.find(source, kind, weights=False)
    module = weights.blueprint(part).module
    if kind == "language_model" and quantization:
        module = jax.eval_shape(quantize_language_model, module)
    return sum(
        leaf.size * (1 if leaf.dtype == jnp.int8 else 4)
        for leaf in jax.tree.leaves(module)
    )


def _tell(sentence: str) -> None:
    print_note(f'note: the dtype "{AUTO}" is {sentence}')
