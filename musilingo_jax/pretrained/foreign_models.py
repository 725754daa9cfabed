"""Recognises model folders that other programs wrote, and says how to go on from them.

Folders of the transformers library, of Meta and our own are read. People also have:

    adapter_config.json, adapter_model.safetensors   a LoRA where none can be added
    params.json, consolidated.safetensors            a model as Mistral hands it out
    model-q4_0.gguf                                  llama.cpp
    zero_to_fp32.py, global_step500/                 DeepSpeed, in the midst of training
"""

import os
from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.printable import printable

LORA_CONFIG = "adapter_config.json"
LORA_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

# Files that trainers leave beside weights, and that hold none; and those of a LoRA,
# which is added or refused.
_NO_WEIGHTS = (
    *LORA_WEIGHTS,
    "training_args.bin",
    "optimizer*",
    "scheduler*",
    "scaler*",
    "rng_state*",
    "random_states*",
)
_ENDINGS = (
    *(".safetensors", ".bin", ".pth", ".pt", ".ckpt"),
    *(".gguf", ".h5", ".msgpack", ".onnx", ".npz", ".distcp"),
)

_OTHER_LIBRARY = (
    "get the safetensors of the same model, or load it with the transformers library "
    "({how}) and write it with `save_pretrained`"
)

# What a folder holds, of which one pattern of names is enough → what it is, and the way
# on. The first that fits counts.
_KINDS: Sequence[tuple[tuple[str, ...], str]] = (
    (
        ("_CHECKPOINT_METADATA",),
        "is a checkpoint, from which training resumes; name the folder of the run, "
        "which holds the trained adapter when training is done",
    ),
    (
        ("consolidated*.safetensors",),
        "is in the layout of Mistral's own code, which is not read; get the model in "
        "the layout of the transformers library",
    ),
    (
        ("consolidated*.pth", "params.json"),
        "is in the layout of Meta's own code, of which params.json, "
        "consolidated.00.pth and all files that follow it must be in one folder on "
        "this machine; get those that are missing, and name that folder",
    ),
    (
        ("zero_to_fp32.py", "global_step*", "*_model_states.pt"),
        "is a checkpoint of DeepSpeed, whose parts have to be joined first: `python "
        "{folder}/zero_to_fp32.py {folder} …`; then put the model's config.json and "
        "tokenizer beside the result",
    ),
    (
        ("*.distcp",),
        "is a distributed checkpoint of PyTorch, whose parts have to be joined first: "
        "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} "
        "pytorch_model.bin`",
    ),
    (
        ("*.gguf", "*ggml*.bin"),
        "holds a GGUF file of llama.cpp, whose weights are mostly rounded to a few "
        "bits; get the safetensors that it was made from, or convert it: `python -m "
        "musilingo_jax.convert gguf FILE --out=…`",
    ),
    (
        ("quantize_config.json", "quant_config.json", "gptq_model*", "*gptq*bit*"),
        "holds weights rounded by GPTQ or AWQ, which are not read; get the safetensors "
        "that it was made from, and use config.model.quantization = 'int8' if memory "
        "is short",
    ),
    (
        ("weights*.npz",),
        "holds weights of MLX, which are not read; get the safetensors of the same "
        "model",
    ),
    (
        ("tf_model*.h5", "*.h5"),
        "holds weights of TensorFlow, which are not read; "
        + _OTHER_LIBRARY.format(how="version 4, `from_tf=True`"),
    ),
    (
        ("flax_model*.msgpack", "*.msgpack"),
        "holds weights of Flax in the transformers library's names, which are not "
        "read; " + _OTHER_LIBRARY.format(how="version 4, `from_flax=True`"),
    ),
    (
        ("*.onnx", "onnx"),
        "holds a program in ONNX, which is not read; get the safetensors of the same "
        "model",
    ),
    (
        ("*.ckpt",),
        "holds a .ckpt file; if it is one of PyTorch, rename it to pytorch_model.bin",
    ),
)


def recognised(folder: Path, names: Collection[str] | None = None) -> str | None:
    """What a folder without a usable model is, and what to do; None if not known.

    Args:
      folder: on this machine.
      names: the names of its files, if more are known than are on this machine.

    Returns:
      The rest of a sentence that begins with the folder: "is a LoRA …".
    """
    here = {path.name for path in folder.glob("*")}
    here |= {PurePosixPath(name).parts[0] for name in names or ()}
    if here & {LORA_CONFIG, *LORA_WEIGHTS}:
        kind = _peft_kind(folder)
        return f"is {kind} of {_base(folder)}, not a model by itself; {_merge(folder)}"
    for patterns, sentence in _KINDS:
        if any(fnmatch(name, pattern) for name in here for pattern in patterns):
            return sentence.format(folder=folder)
    if "snapshots" in here and "refs" in here:
        inside = folder / "snapshots"
        return f"is the hub's cache of a model; name a folder in {inside}"
    models = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if models:
        shown = ", ".join(models[:5]) + (" …" if len(models) > 5 else "")
        return f"is not a model, but holds folders that may be: {shown}; name one"
    return None


def check_no_lora(folder: Path) -> None:
    """Checks that no LoRA is beside tensors to which it would not be added.

    The transformers library adds it, so without it the answers are those of another
    model. `sources.find` adds it to a language model, if it has its configuration.

    Raises:
      UserError: there is one.
    """
    # A link to a file that is gone is one that was to be there, too.
    files = [
        name for name in (LORA_CONFIG, *LORA_WEIGHTS) if os.path.lexists(folder / name)
    ]
    if files:
        kind = _peft_kind(folder)
        raise UserError(
            f"{folder}: has {kind} in it ({', '.join(files)}), which would not be "
            f"added here; {_merge(folder)}; or move these files away to use the model "
            "without it"
        )


def unread(folder: Path, is_read: Callable[[str], bool]) -> list[str]:
    """The files of a folder that may be weights, and that nothing reads.

    Args:
      folder: of a model.
      is_read: whether a file with this name is read.
    """
    return sorted(
        path.name
        for path in folder.glob("*")
        if path.suffix in _ENDINGS
        and not any(fnmatch(path.name, pattern) for pattern in _NO_WEIGHTS)
        and not is_read(path.name)
    )


def _peft_kind(folder: Path) -> str:
    kind = _setting(folder, "peft_type")
    return "a LoRA" if kind in (None, "LORA") else f"a small model of kind {kind}"


def _base(folder: Path) -> str:
    return _setting(folder, "base_model_name_or_path") or "another model"


def _merge(folder: Path) -> str:
    return (
        "merge it into its base first: `python -m musilingo_jax.convert merge "
        f"--lora={folder} --out=…`"
    )


def _setting(folder: Path, key: str) -> str | None:
    """A text in the configuration of a LoRA; None if it cannot be read."""
    try:
        value = read_json(folder / LORA_CONFIG).get(key)
    except UserError:
        return None
    return printable(value[:200]) if isinstance(value, str) and value else None
