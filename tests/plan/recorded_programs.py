"""Three layers, differentiated, as the TPU's compiler has written them.

    python tests/plan/recorded_programs.py        (with the `plan` extra)

writes the files in tests/plan/recorded/ again; jax 0.10.2 and libtpu 0.0.42.1 wrote
those that are there. The tables of source lines are left out.
"""

import gzip
import re
from pathlib import Path

FOLDER = Path(__file__).parent / "recorded"
SLICES = {
    "v5e-8": {"data": 2, "fsdp": 2, "tensor": 2},
    "v4-8": {"data": 1, "fsdp": 2, "tensor": 2},
}
DEPTH, ROWS, WIDTH, INNER = 3, 512, 256, 1024


def read(name):
    """The text of the program for a slice."""
    with gzip.open(FOLDER / f"{name}.hlo.gz", "rt", encoding="utf-8") as file:
        return file.read()


def compiled(name):
    """The same from the compiler that is installed."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from musilingo_jax.plan.tpu_slices import Topology
    from musilingo_jax.runtime.sharding import make_mesh

    mesh = make_mesh(**SLICES[name], devices=Topology.parse(name).devices())
    rows = ("data", "fsdp")

    def place(*axes):
        return NamedSharding(mesh, PartitionSpec(*axes))

    def product(x, kernel, *axes):
        y = jnp.matmul(
            x.astype(jnp.bfloat16), kernel, preferred_element_type=jnp.float32
        )
        return jax.lax.with_sharding_constraint(y, place(*axes))

    def step(x, layer):
        up, down = layer
        inner = jnp.tanh(product(x, up, rows, "tensor"))
        return x + product(inner, down, rows, None), None

    def loss(x, layers):
        step_again = jax.checkpoint(step, prevent_cse=False)
        return jnp.sum(jnp.square(jax.lax.scan(step_again, x, layers)[0]))

    def array(dtype, shape, *axes):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place(*axes))

    layers = (
        array(jnp.bfloat16, (DEPTH, WIDTH, INNER), None, "fsdp", "tensor"),
        array(jnp.bfloat16, (DEPTH, INNER, WIDTH), None, "tensor", "fsdp"),
    )
    x = array(jnp.float32, (ROWS, WIDTH), rows, None)
    text = jax.jit(jax.grad(loss)).lower(x, layers).compile().as_text()
    return re.sub(r"\nFileNames\n.*?\n\n\n", "\n\n", text, flags=re.DOTALL)


if __name__ == "__main__":
    from musilingo_jax.plan import tpu_slices

    tpu_slices.prepare()
    FOLDER.mkdir(exist_ok=True)
    for slice_name in SLICES:
        file = FOLDER / f"{slice_name}.hlo.gz"
        file.write_bytes(gzip.compress(compiled(slice_name).encode(), mtime=0))
