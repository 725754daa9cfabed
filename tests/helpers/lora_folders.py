"""LoRAs in the layout of the PEFT library, for the models of `model_folders`."""

import json

import torch
from safetensors.torch import save_file

SETTINGS = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 3,
    "lora_alpha": 5,
    "target_modules": ["q_proj", "down_proj"],
    "bias": "none",
    "lora_dropout": 0.1,
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "peft_version": "0.17.0",
}
Q, DOWN = "self_attn.q_proj", "mlp.down_proj"
SHAPES = {Q: (8, 8), DOWN: (8, 12)}


def factors(ranks=None, modules=(Q, DOWN)):
    """The two factors of modules of both layers, in float32."""
    generator = torch.Generator().manual_seed(2)
    tensors = {}
    for layer in range(2):
        for module in modules:
            rows, columns = SHAPES[module]
            rank = (ranks or {}).get(f"{layer}.{module}", 3)
            name = f"base_model.model.model.layers.{layer}.{module}"
            for letter, shape in ("A", (rank, columns)), ("B", (rows, rank)):
                values = torch.randn(shape, generator=generator)
                tensors[f"{name}.lora_{letter}.weight"] = values
    return tensors


def write_lora(folder, tensors, **changes):
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(SETTINGS | changes))
    return folder
