"""The section `model` of a config: which parts make up the model.

    config.model.pretrained = "musilingo-tiny"      a whole model, or "" …
    config.model.encoder = ""                       … and a part that replaces its own
    config.model.language_model = "lmsys/vicuna-7b-v1.5"
    config.model.adapter = "random"
    config.model.dtype = "bfloat16"     or "auto": number_type.py
    config.model.quantization = ""

`pretrained/sources.py` resolves these names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from musilingo_jax.models import int8
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import read_section, setting

KINDS = ("encoder", "language_model", "adapter")
"""The three parts of a model."""
DTYPES = ("float32", "bfloat16", "float16")
"""Types that the frozen parts may have in memory."""


@dataclass(frozen=True)
class ModelConfig:
    """The section `model` of a config, with the source of each part filled in.

    Attributes:
      encoder: source of the music encoder.
      language_model: source of the language model.
      adapter: source of the adapter that training starts from, or "random".
      dtype: type of the frozen parts in memory; "auto" has been replaced.
      quantization: "int8" to keep the language model's matrices in 8 bits, "" to keep
        them in `dtype`.
    """

    encoder: str
    language_model: str
    adapter: str
    dtype: str = setting(choices=DTYPES)
    quantization: str = setting(choices=int8.CHOICES, before="")

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | ConfigDict) -> "ModelConfig":
        """Reads the section.

        Raises:
          UserError: a part has no source, or a key is missing, unknown or out of
            bounds.
        """
        section = dict(config["model"])
        section.pop("pretrained", None)
        parts = {kind: named(config, kind) for kind in KINDS}
        return read_section(cls, section | parts, "config.model")


def named(config: Mapping[str, Any] | ConfigDict, kind: str) -> str:
    """The source of one part: its own key, else `config.model.pretrained`.

    Raises:
      UserError: both keys are empty, or are not text.
    """
    model = config["model"]
    source = model.get(kind) or model.get("pretrained")
    if not source:
        raise UserError(
            f"config.model.{kind} is empty: name a model there, or a whole model in "
            "config.model.pretrained"
        )
    if not isinstance(source, str):
        raise UserError(f"config.model.{kind} is {source!r}: it must be text")
    return source
