"""The `adapter_config.json` of the PEFT library, of which a plain LoRA is read."""

from pathlib import Path
from typing import Any

from musilingo_jax.models.released_config import AttributeGuard
from musilingo_jax.pretrained.foreign_models import LORA_CONFIG
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json

_GUARD = AttributeGuard(
    used="""
        base_model_name_or_path revision r lora_alpha use_rslora rank_pattern
        alpha_pattern target_modules exclude_modules layers_to_transform
        modules_to_save init_lora_weights lora_bias
    """,
    fixed={
        "peft_type": "LORA",
        "fan_in_fan_out": False,
        "bias": "none",
        "use_dora": False,
        "use_qalora": False,
        "use_bdlora": False,
        "layer_replication": None,
        "megatron_config": None,
        "trainable_token_indices": None,
        "target_parameters": None,
        "alora_invocation_tokens": None,
        "arrow_config": None,
        "kasa_config": None,
        "monteclora_config": None,
        "velora_config": None,
    },
    ignored={
        "provenance of the file": "peft_version auto_mapping task_type",
        "training, and the choice of what it trained, which the tensors show": """
            inference_mode lora_dropout layers_pattern megatron_core loftq_config
            eva_config corda_config lora_ga_config qalora_group_size runtime_config
            ensure_weight_tying
        """,
    },
    null_is_unset=True,
    file=LORA_CONFIG,
)

# Other beginnings, such as PiSSA's, change the base when the LoRA is made.
_BEGINNINGS = (None, True, False, "gaussian", "orthogonal", "eva")


def read(folder: Path) -> dict[str, Any]:
    """The configuration of a LoRA, each of its attributes accounted for.

    Raises:
      UserError: there is none, or it describes something else than a plain LoRA.
    """
    if not (folder / LORA_CONFIG).exists():
        raise UserError(
            f"{folder}: has no {LORA_CONFIG}, which a LoRA needs; get it from the "
            "same source"
        )
    config = read_json(folder / LORA_CONFIG)
    if config.get("peft_type") is None:
        raise UserError(f"{folder / LORA_CONFIG}: peft_type is missing")
    try:
        _GUARD.check(config)
    except UserError as error:
        raise UserError(
            f"{folder}: {error}; merge it into its base with the peft library"
        ) from error
    if (start := config.get("init_lora_weights")) not in _BEGINNINGS:
        raise UserError(
            f"{folder / LORA_CONFIG}: init_lora_weights is {start!r}, which may "
            "have changed the base; convert it with the peft library"
        )
    return config
