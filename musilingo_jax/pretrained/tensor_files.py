"""The tensors in the weight files of a folder, read lazily.

Models are released as one `model.safetensors`, or as several files and an index that
says which tensor is in which file; older ones as PyTorch's files.
`pretrained/tensor_map.py` knows what the tensors mean.
"""

from pathlib import Path

from musilingo_jax.pretrained import pytorch_files
from musilingo_jax.pretrained.lazy_tensors import Tensors, open_index, shortened
from musilingo_jax.pretrained.safetensors_file import open_file
from musilingo_jax.runtime.errors import UserError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def open_tensors(folder: Path) -> Tensors:
    """All tensors of a folder by name, none of them read yet.

    Opens `model.safetensors`, else the files that its index names, else PyTorch's files
    as `pytorch_files.open_tensors` does.

    Raises:
      UserError: there are no weights, some files are missing, or one is broken.
    """
    if (folder / WEIGHTS).is_file():
        return open_file(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return open_index(folder / INDEX, open_file)
    others = sorted(p.name for p in folder.glob("*.safetensors") if p.is_file())
    named = (folder / pytorch_files.BIN, folder / pytorch_files.BIN_INDEX)
    # Beside other safetensors, files such as training_args.bin are not the weights.
    if any(path.exists() for path in named) or (
        not others and pytorch_files.files_in(folder)
    ):
        return pytorch_files.open_tensors(folder)
    if len(others) > 1:
        raise UserError(
            f"{folder}: has the files {shortened(others)}, but not the {INDEX} that "
            "says which tensor is in which; download it, too"
        )
    if others:
        raise UserError(
            f"{folder}: has {others[0]}, but weights in one file must be called "
            f"{WEIGHTS}; rename it if it is the model"
        )
    raise UserError(
        f"{folder}: not a model folder, because it has neither {WEIGHTS} nor {INDEX} "
        f"nor {pytorch_files.BIN}"
    )
