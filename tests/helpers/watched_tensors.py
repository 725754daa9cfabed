"""Tensors that notice what is read of them."""

from musilingo_jax.pretrained import tensor_files


class Watched:
    """A tensor that notes what is read of it."""

    def __init__(self, inner, asked):
        self.inner, self.asked = inner, asked
        self.shape, self.dtype, self.nbytes = inner.shape, inner.dtype, inner.nbytes

    def __getitem__(self, index):
        part = self.inner[index]
        self.asked.append(part.nbytes)
        return part


def watch(folder):
    """The folder's tensors, and for each the sizes of the parts that were read."""
    opened = tensor_files.open_tensors(folder)
    asked = {name: [] for name in opened}
    return {name: Watched(opened[name], asked[name]) for name in opened}, asked
