"""Splash attention over a mesh, differentiated, as the TPU's compiler has written it.

    python tests/plan/recorded_kernels.py        (with the `plan` extra)

writes tests/plan/recorded/kernels.hlo.gz again; jax 0.10.2 and libtpu 0.0.42.1 wrote
the one that is there. Tables of source lines and the kernels' own code are left out.
"""

import gzip
import re
from pathlib import Path

FILE = Path(__file__).parent / "recorded" / "kernels.hlo.gz"
DATA, TENSOR = 2, 4
DEPTH, ROWS, HEADS, LENGTH, HEAD_DIM, BLOCK = 3, 4, 8, 1280, 128, 256
ESTIMATE = {"flops": 12_345, "bytes_accessed": 678, "transcendentals": 9}


def read():
    """The text of the program."""
    with gzip.open(FILE, "rt", encoding="utf-8") as file:
        return file.read()


def compiled():
    """The same from the compiler that is installed."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import pallas as pl
    from jax.experimental.pallas.ops.tpu import splash_attention as splash
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from musilingo_jax.plan import compile
    from musilingo_jax.plan.tpu_slices import Topology
    from musilingo_jax.runtime.sharding import make_mesh

    devices = Topology.parse("v5e-8").devices()
    mesh = make_mesh(data=DATA, fsdp=1, tensor=TENSOR, devices=devices)
    sides = ("block_q", "block_kv", "block_kv_compute")
    names = [side + phase for side in sides for phase in ("", "_dkv")]
    names += ["block_q_dq", "block_kv_dq"]
    names = [re.sub(r"compute_dkv", "dkv_compute", name) for name in names]
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([splash.CausalMask((LENGTH, LENGTH))] * HEADS),
        block_sizes=splash.BlockSizes(**dict.fromkeys(names, BLOCK)),
        head_shards=TENSOR,
        q_seq_shards=1,
    )
    masks = kernel.manual_sharding_spec(NamedSharding(mesh, P("tensor", None)))
    heads, rows = P("data", "tensor", None, None), P("data", None)

    def place(dtype, shape, spec):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    def attend(kernel, query, key, value, segments):
        def of_row(q, k, v, s):
            return kernel(q, k, v, segment_ids=splash.SegmentIds(s, s))

        return jax.vmap(of_row)(query, key, value, segments)

    def double(x):
        def body(x, y):
            y[...] = 2 * x[...]

        estimate = pl.CostEstimate(**ESTIMATE)
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        call = pl.pallas_call(body, like, cost_estimate=estimate, name="double")
        return jax.shard_map(
            call, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False
        )(x)

    spread = jax.shard_map(
        attend,
        mesh=mesh,
        in_specs=(masks, heads, heads, heads, rows),
        out_specs=heads,
        check_vma=False,
    )

    def loss(x, layers, segments):
        def step(x, layer):
            return x + spread(kernel, x * layer, x, x, segments), None

        x, _ = jax.lax.scan(jax.checkpoint(step), x, layers)
        return jnp.sum(x.astype(jnp.float32))

    def update(x, layers, segments):
        return jax.grad(loss)(x, double(layers), segments)

    shape = (ROWS, HEADS, LENGTH, HEAD_DIM)
    lowered = jax.jit(update).lower(
        place(jnp.bfloat16, shape, heads),
        place(jnp.bfloat16, (DEPTH, HEAD_DIM), P()),
        place(jnp.int32, (ROWS, LENGTH), rows),
    )
    text = compile.text_of(lowered.compile())
    text = re.sub(r'"body":"[^"]*"', '"body":""', text)
    return re.sub(r"\nFileNames\n.*?\n\n\n", "\n\n", text, flags=re.DOTALL)


if __name__ == "__main__":
    from musilingo_jax.plan import tpu_slices

    tpu_slices.prepare()
    FILE.write_bytes(gzip.compress(compiled().encode(), mtime=0))
