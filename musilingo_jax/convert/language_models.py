"""Writes language models that are put together while they are read.

Meta's files            →  the transformers library's layout    `safetensors`
a base and a LoRA       →  a model without a LoRA               `merge --lora`
"""

from musilingo_jax.pretrained import model_folder, sources, tensor_map
from musilingo_jax.pretrained.peft_lora import Lora
from musilingo_jax.pretrained.sources import Part
from musilingo_jax.pretrained.weights import blueprint, is_delta
from musilingo_jax.pretrained.write_folders import Output, copies, small_files
from musilingo_jax.runtime.errors import UserError


def merge_lora(base: str | None, lora: str) -> list[Output]:
    """A language model with a LoRA added to it, each sum rounded to the base's type.

    Args:
      base: the language model; None for the one that the LoRA names, or the one in its
        folder.
      lora: a folder or a name.

    Raises:
      UserError: the two do not fit together, or one cannot be read.
    """
    if base is None:
        part = sources.find(lora, "language_model")
        if part.lora is None:
            raise UserError(f"{lora}: has no LoRA; name the folder of one as --lora")
    else:
        opened = Lora.open(model_folder.resolve(lora, weights=False))
        below = sources.find(base, "language_model")
        part = sources.add_lora(opened, below, lora)
    return written(part)


def written(part: Part) -> list[Output]:
    """A language model as a folder of its own.

    Raises:
      UserError: it is incomplete, or only a delta.
    """
    content = part.tensors()
    tensor_map.check(*blueprint(part), content, source=str(part.folder))
    if is_delta(content):
        raise UserError(f"{part.folder}: is only a delta; merge it first")
    beside = small_files(part.tokenizer) if part.tokenizer else []
    return [Output(copies(content, part.folder), part.config, beside)]
