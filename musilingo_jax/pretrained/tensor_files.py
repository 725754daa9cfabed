"""The tensors in the files of a folder, read lazily.

Models are released as one `model.safetensors`, or as several files and an index, which
says which tensor is in which. What the tensors mean is not known here; that is said in
`pretrained/tensor_map.py`.
"""

from pathlib import Path

from musilingo_jax.pretrained import pytorch_files
from musilingo_jax.pretrained.lazy_tensors import LazyTensor, few, open_index
from musilingo_jax.pretrained.safetensors_file import open_file
from musilingo_jax.runtime.errors import UserError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def open_tensors(folder: Path) -> dict[str, LazyTensor]:
    """All tensors of a folder by name, none of them read yet.

    Taken are `model.safetensors`, else the files that its index names, else PyTorch's
    files, as `pickles.open_tensors` reads them.

    Raises:
      UserError: there are no weights, some files are missing, or one is broken.
    """
    if (folder / WEIGHTS).is_file():
        return open_file(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return open_index(folder / INDEX, open_file)
    others = sorted(p.name for p in folder.glob("*.safetensors") if p.is_file())
    ends = () if others else ("*.bin", "*.pth", "*.pt")
    if any(path for pattern in (*_PICKLES, *ends) for path in folder.glob(pattern)):
        return pytorch_files.open_tensors(folder)
    if len(others) > 1:
        raise UserError(
            f"{folder}: has the files {few(others)}, but not the {INDEX} that says "
            "what is in which; download it, too"
        )
    if others:
        raise UserError(
            f"{folder}: has {others[0]}, but weights in one file are called {WEIGHTS}; "
            "rename it if it is the model"
        )
    raise UserError(
        f"{folder}: not a model folder, for it has neither {WEIGHTS} nor {INDEX} nor "
        "pytorch_model.bin"
    )
