"""The reader of compiled programs, on small programs whose costs are known."""

import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from plan import recorded_programs

from musilingo_jax.plan import program_costs
from musilingo_jax.plan.collectives import Exchange, exchanges, group_size
from musilingo_jax.plan.hlo import Program
from musilingo_jax.plan.hlo_text import Instruction
from musilingo_jax.plan.memory_traffic import traffic
from musilingo_jax.plan.program_costs import ProgramCosts, costs_of
from musilingo_jax.runtime.sharding import make_mesh

ROOT = Path(__file__).parents[2]


def program(function, *shapes: jax.ShapeDtypeStruct, **options) -> Program:
    compiled = jax.jit(function, **options).lower(*shapes).compile()
    return Program(compiled.as_text())


def array(*shape: int, sharding: NamedSharding | None = None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)


def test_a_product():
    found = program(jnp.matmul, array(8, 16), array(16, 32))
    assert program_costs.flops(found) == 2 * 8 * 16 * 32


def test_a_product_with_one_row_is_a_multiplication_and_its_sums():
    # As the TPU's compiler writes it.
    text = """HloModule m

%product (x: f32[16], kernel: bf16[16,32]) -> f32[32] {
  %x = f32[16]{0} parameter(0)
  %spread = f32[16,32]{1,0} broadcast(%x), dimensions={0}, metadata={op_name="jit(f)/dot_general"}
  %kernel = bf16[16,32]{1,0} parameter(1)
  %wide = f32[16,32]{1,0} convert(%kernel)
  %pairs = f32[16,32]{1,0} multiply(%spread, %wide), metadata={op_name="multiply.1"}
  %zero = f32[] constant(0)
  ROOT %sums = f32[32]{0} reduce(%pairs, %zero), dimensions={0}, to_apply=%add, metadata={op_name="jit(f)/dot_general" stack_frame_id=3}
}

ENTRY %main (a: f32[16], b: bf16[16,32]) -> f32[32] {
  %a = f32[16]{0} parameter(0)
  %b = bf16[16,32]{1,0} parameter(1)
  ROOT %fused = f32[32]{0} fusion(%a, %b), kind=kLoop, calls=%product
}
"""  # noqa: E501
    assert program_costs.flops(Program(text)) == 2 * 16 * 32
    # Other sums, such as those of a norm, are not products.
    others = text.replace("jit(f)/dot_general", "jit(f)/reduce_sum")
    assert program_costs.flops(Program(others)) == 0


def test_a_batch_of_products():
    multiply = functools.partial(jnp.einsum, "bij,bjk->bik")
    found = program(multiply, array(3, 8, 16), array(3, 16, 32))
    assert program_costs.flops(found) == 3 * 2 * 8 * 16 * 32


def test_loops_are_multiplied_out():
    def layers(x, weights):
        def step(x, weight):
            twice = jax.lax.scan(lambda x, _: (x @ weight, None), x, None, length=2)
            return jnp.tanh(twice[0]), None

        return jax.lax.scan(step, x, weights)[0]

    x, weights = array(8, 16), array(5, 16, 16)
    found = program(layers, x, weights)
    assert not found.unknown_loops
    assert program_costs.flops(found) == 5 * 2 * 2 * 8 * 16 * 16
    # This is why there is a reader at all.
    once = jax.jit(layers).lower(x, weights).compile().cost_analysis()["flops"]
    assert once < program_costs.flops(found) / 2


def test_trips_are_found_without_a_note():
    # The TPU's compiler leaves none: first value, step and bound are in the text.
    text = """HloModule m, num_partitions=1

%body (x: (s32[], f32[4,4])) -> (s32[], f32[4,4]) {
  %x = (s32[]{:T(128)}, f32[4,4]{1,0:T(4,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%x), index=0
  %a = f32[4,4]{1,0:T(4,128)} get-tuple-element(%x), index=1
  %step = s32[]{:T(128)} constant(3)
  %next = s32[]{:T(128)} add(%i, %step)
  %product = f32[4,4]{1,0:T(4,128)} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %both = (s32[]{:T(128)}, f32[4,4]{1,0:T(4,128)}) tuple(%next, %product)
}

%condition (y: (s32[], f32[4,4])) -> pred[] {
  %y = (s32[]{:T(128)}, f32[4,4]{1,0:T(4,128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%y), index=0
  %bound = s32[]{:T(128)} constant(12)
  ROOT %less = pred[]{:T(512)} compare(%i.1, %bound), direction=LT
}

ENTRY %main (p: f32[4,4]) -> f32[4,4] {
  %p = f32[4,4]{1,0:T(4,128)} parameter(0)
  %first = s32[]{:T(128)} constant(2)
  %start = (s32[]{:T(128)}, f32[4,4]{1,0:T(4,128)}) tuple(%first, %p)
  %loop = (s32[]{:T(128)}, f32[4,4]{1,0:T(4,128)}) while(%start), condition=%condition, body=%body
  ROOT %end = f32[4,4]{1,0:T(4,128)} get-tuple-element(%loop), index=1
}
"""  # noqa: E501
    # 2, 5, 8, 11
    assert program_costs.flops(Program(text)) == 4 * 2 * 4 * 4 * 4
    unknown = Program(text.replace("direction=LT", "direction=NE"))
    assert program_costs.flops(unknown) == 2 * 4 * 4 * 4
    assert unknown.unknown_loops == ["loop"]


@pytest.mark.parametrize(
    ("left", "right", "made", "attributes", "expected"),
    [
        # [8, 16] · [16, 32]
        (
            (8, 16),
            (16, 32),
            (8, 32),
            "dim_labels=bf_io->bf",
            2 * 8 * 16 * 32,
        ),
        # Attention's scores as a TPU writes them: 2 rows × 16 heads of [512, 128] by
        # [512, 128], a convolution over rows and heads dilated so that they never mix.
        (
            (2, 16, 512, 128),
            (2, 512, 16, 128),
            (2, 16, 512, 512),
            "window={size=2x16 stride=1x15 lhs_dilate=2x16}, "
            "dim_labels=01bf_0o1i->01bf",
            2 * 2 * 16 * 512 * 512 * 128,
        ),
        # A product whose outcome is 16 heads: the window slides over the kernel.
        (
            (1, 512, 1024, 1),
            (16, 128, 1024, 1),
            (1, 512, 16, 128),
            "window={size=1x16 pad=0_0x15_15 rhs_reversal=0x1}, "
            "dim_labels=0bf1_1oi0->0b1f",
            2 * 512 * 1024 * 16 * 128,
        ),
        # A real one: 10 samples, 3 taps, padded by 1, from 4 channels to 6.
        (
            (1, 10, 4),
            (3, 4, 6),
            (1, 10, 6),
            "window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f",
            2 * (10 * 3 - 2) * 4 * 6,
        ),
    ],
)
def test_convolutions(left, right, made, attributes, expected):
    instruction = Instruction("c", "convolution", (), (), "", attributes, {}, False)
    counted = program_costs._convolution_flops(instruction, left, right, made)
    assert counted == expected


def test_convolution_of_this_machine_agrees_with_xla():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )

    shapes = array(2, 33, 4), array(5, 4, 8)
    compiled = jax.jit(convolve).lower(*shapes).compile()
    found = program_costs.flops(Program(compiled.as_text()))
    assert found == pytest.approx(compiled.cost_analysis()["flops"], rel=0.02)


def test_exchanges_of_a_sharded_program():
    mesh = make_mesh(data=2, fsdp=1, tensor=4)

    def place(*axes: str | None) -> NamedSharding:
        return NamedSharding(mesh, P(*axes))

    def layers(x, weights):
        def step(x, weight):
            # Summed over a dimension that 4 devices share: an all-reduce each time.
            y = jax.lax.with_sharding_constraint(x @ weight, place("data"))
            return jax.lax.with_sharding_constraint(y, place("data", "tensor")), None

        return jax.lax.scan(step, x, weights)[0]

    found = program(
        layers,
        array(8, 64, sharding=place("data", "tensor")),
        array(5, 64, 64, sharding=place(None, "tensor", None)),
        out_shardings=place("data", "tensor"),
    )
    assert found.partitions == 8
    # [4, 64] float32 on each device, 2 · 3/4 of it sent, 5 times.
    sent = 5 * 2 * 3 / 4 * (4 * 64 * 4)
    assert exchanges(found) == (Exchange("all-reduce", 5, sent),)


def test_gathering():
    mesh = make_mesh(data=1, fsdp=8, tensor=1)
    split, whole = NamedSharding(mesh, P("fsdp")), NamedSharding(mesh, P())
    found = program(lambda x: x, array(64, 4, sharding=split), out_shardings=whole)
    # Each device begins with an eighth, and passes on seven eighths.
    (exchange,) = exchanges(found)
    assert exchange == Exchange("all-gather", 1, 7 / 8 * 64 * 4 * 4)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("replica_groups={{0,2},{1,3}}", 2),
        ("replica_groups=[4,2]<=[8]", 2),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", 4),
        ("replica_groups=mesh['a'=4,'b'=2] {'a'}", 4),
        ("replica_groups=mesh['a'=4,'b'=2] {'a','b'}", 8),
        ("replica_groups=mesh['a'=4,'b'=2] {'a':(2)2}", 2),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", 4),
        ("replica_groups={}", 16),
    ],
)
def test_groups(attributes, expected):
    instruction = Instruction("c", "all-reduce", (), (), "", attributes, {}, False)
    assert group_size(instruction, 16) == expected


def test_a_collective_in_three_fusions_is_one():
    text = """HloModule m, num_partitions=8

%begin (a: f32[4,8]) -> f32[8,8] {
  %a = f32[4,8]{1,0} parameter(0)
  %gather = f32[8,8]{1,0} all-gather(%a), channel_id=1, replica_groups=[4,2]<=[8], dimensions={0}, frontend_attributes={chain_id="3"}
  ROOT %started = f32[8,8]{1,0} custom-call(%gather), custom_call_target="AsyncCollectiveStart"
}

%finish (b: f32[4,8]) -> f32[8,8] {
  %b = f32[4,8]{1,0} parameter(0)
  %gather.1 = f32[8,8]{1,0} all-gather(%b), channel_id=1, replica_groups=[4,2]<=[8], dimensions={0}, frontend_attributes={chain_id="3"}
  ROOT %done = f32[8,8]{1,0} custom-call(%gather.1), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.1 (d: f32[8,8]) -> f32[1,8] {
  %d = f32[8,8]{1,0} parameter(0)
  %sum = f32[8,8]{1,0} all-reduce(%d), channel_id=2, replica_groups=[1,8]<=[8], to_apply=%add
  %zero = s32[] constant(0)
  ROOT %kept = f32[1,8]{1,0} dynamic-slice(%sum, %zero, %zero), dynamic_slice_sizes={1,8}
}

ENTRY %main (c: f32[4,8]) -> f32[1,8] {
  %c = f32[4,8]{1,0} parameter(0)
  %one = f32[8,8]{1,0} fusion(%c), kind=kCustom, calls=%begin
  %two = f32[8,8]{1,0} fusion(%c), kind=kCustom, calls=%finish
  ROOT %three = f32[1,8]{1,0} fusion(%two), kind=kCustom, calls=%all-reduce-scatter.1
}
"""  # noqa: E501
    assert exchanges(Program(text)) == (
        Exchange("all-gather", 1, 4 * 8 * 4),
        Exchange("reduce-scatter", 1, 7 / 8 * 8 * 8 * 4),
    )


def test_a_collective_on_another_core_counts():
    text = """HloModule m, num_partitions=4

%elsewhere (a: f32[8,128], b: token[]) -> f32[8,128] {
  %a = f32[8,128]{1,0} parameter(0)
  %b = token[] parameter(1)
  ROOT %sum = f32[8,128]{1,0} all-reduce(%a), channel_id=1, replica_groups=[1,4]<=[4], to_apply=%add
}

ENTRY %main (c: f32[8,128]) -> f32[8,128] {
  %c = f32[8,128]{1,0} parameter(0)
  %ready = token[] custom-call(), custom_call_target="PrepareAsyncCallDone"
  %started = ((f32[8,128]{1,0}, token[]), f32[8,128]{1,0}) call-start(%c, %ready), async_execution_thread="sparsecore", to_apply=%elsewhere
  ROOT %done = f32[8,128]{1,0} call-done(%started)
}
"""  # noqa: E501
    found = Program(text)
    sent = 2 * 3 / 4 * 4 * 8 * 128
    assert exchanges(found) == (Exchange("all-reduce", 1, sent),)
    # Read and written there, and not once more where it starts and ends.
    assert traffic(found) == 2 * 4 * 8 * 128


def test_traffic_of_a_slice_is_the_slice():
    text = """HloModule m

%one_layer (stack: bf16[32,64,64], i: s32[], x: f32[8,64]) -> f32[8,64] {
  %stack = bf16[32,64,64]{2,1,0} parameter(0)
  %copied = bf16[32,64,64]{2,1,0} copy(%stack)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %layer = bf16[1,64,64]{2,1,0} dynamic-slice(%copied, %i, %zero, %zero), dynamic_slice_sizes={1,64,64}
  %kernel = bf16[64,64]{1,0} bitcast(%layer)
  %x = f32[8,64]{1,0} parameter(2)
  ROOT %y = f32[8,64]{1,0:T(8,128)S(1)} dot(%x, %kernel), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (weights: bf16[32,64,64], layer: s32[], rows: f32[8,64]) -> f32[8,64] {
  %weights = bf16[32,64,64]{2,1,0} parameter(0)
  %layer.1 = s32[]{:S(6)} parameter(1)
  %rows = f32[8,64]{1,0} parameter(2)
  ROOT %fused = f32[8,64]{1,0:T(8,128)S(1)} fusion(%weights, %layer.1, %rows), kind=kOutput, calls=%one_layer
}
"""  # noqa: E501
    # One layer of 32, the rows, and nothing written: that stays on the core.
    assert traffic(Program(text)) == 64 * 64 * 2 + 8 * 64 * 4


def test_traffic_of_a_scatter_is_what_it_changes():
    text = """HloModule m

%write (cache: bf16[64,4,1280,128], places: s32[64], rows: bf16[64,4,128]) -> bf16[64,4,1280,128] {
  %cache = bf16[64,4,1280,128]{3,1,2,0} parameter(0)
  %places = s32[64]{0} parameter(1)
  %rows = bf16[64,4,128]{2,1,0} parameter(2)
  ROOT %scattered = bf16[64,4,1280,128]{3,1,2,0} scatter(%cache, %places, %rows), update_window_dims={1,2}, to_apply=%last
}

ENTRY %main (a: bf16[64,4,1280,128], b: s32[64], c: bf16[64,4,128]) -> bf16[64,4,1280,128] {
  %a = bf16[64,4,1280,128]{3,1,2,0} parameter(0)
  %b = s32[64]{0} parameter(1)
  %c = bf16[64,4,128]{2,1,0} parameter(2)
  ROOT %fused = bf16[64,4,1280,128]{3,1,2,0} fusion(%a, %b, %c), kind=kCustom, calls=%write, backend_config={"aliasing_operands":{"lists":[{"indices":["0","3"]}]}}
}
"""  # noqa: E501
    rows, whole = 2 * 64 * 4 * 128, 2 * 64 * 4 * 1280 * 128
    # The new rows, and the places that they go to, read and written.
    assert traffic(Program(text)) == 3 * rows + 4 * 64
    # If the result has memory of its own, all is read and written.
    apart = text.replace('{"indices":["0","3"]}', "")
    assert traffic(Program(apart)) == 2 * whole + rows + 4 * 64


def costs_by_hand(name):
    """Of the recorded layers: flops and exchanges per chip."""
    mesh = recorded_programs.SLICES[name]
    depth, rows, width, inner = (
        recorded_programs.DEPTH,
        recorded_programs.ROWS // (mesh["data"] * mesh["fsdp"]),
        recorded_programs.WIDTH,
        recorded_programs.INNER // mesh["tensor"],
    )
    # Two products forward, the first of them again, and two backward.
    operations = depth * 5 * 2 * rows * width * inner
    # Both kernels are gathered forward and backward, from the other half.
    gathered = depth * 4 * (2 * width * inner / mesh["fsdp"])
    # The residual stream is summed forward, and its gradient backward.
    summed = depth * 2 * 4 * rows * width
    return operations, (
        Exchange("all-gather", depth * 4, gathered),
        Exchange("all-reduce", depth * 2, summed),
    )


@pytest.mark.parametrize("name", recorded_programs.SLICES)
def test_costs_of_recorded_programs_are_those_counted_by_hand(name):
    costs = costs_of(recorded_programs.read(name))
    assert isinstance(costs, ProgramCosts)
    assert (costs.flops, costs.exchanges) == costs_by_hand(name)
    assert not costs.unknown_loops
    # At least the kernels are read, forward and backward, and not many times.
    kernels = 2 * 2 * math.prod((3, 256, 1024 // 2)) / 2
    assert kernels < costs.traffic < 4 * kernels


def test_the_installed_compiler_still_writes_what_is_read():
    pytest.importorskip("libtpu")
    code = (
        "from musilingo_jax.plan import tpu_slices; tpu_slices.prepare()\n"
        "import json, recorded_programs, dataclasses\n"
        "from musilingo_jax.plan.program_costs import costs_of\n"
        "costs = costs_of(recorded_programs.compiled('v5e-8'))\n"
        "print(costs if isinstance(costs, str) else"
        " json.dumps(dataclasses.asdict(costs)))"
    )
    folders = [str(ROOT), str(ROOT / "tests/plan"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    costs = json.loads(done.stdout)
    operations, found = costs_by_hand("v5e-8")
    assert costs["flops"] == operations
    assert [Exchange(**exchange) for exchange in costs["exchanges"]] == list(found)


DAMAGES = {
    "another file": lambda text: "nothing of the kind",
    "no text": lambda text: "",
    "cut off": lambda text: text[: len(text) // 2],
    "another sign for operands": lambda text: text.replace("(%", "<%"),
    "another word for contracted axes": lambda text: text.replace(
        "dim_labels", "dimension_labels"
    ),
    "another word for bodies": lambda text: text.replace("body=", "loop_body="),
    "names without their mark": lambda text: text.replace("%", "@"),
    "a line in between": lambda text: text.replace(
        "\n  ROOT", "\n  # the root follows\n  ROOT"
    ),
    "another word for products": lambda text: text.replace(
        " convolution(", " tensor_product("
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_text_of_another_kind_has_unknown_costs_and_a_reason(damage):
    text = DAMAGES[damage](recorded_programs.read("v5e-8"))
    reason = costs_of(text)
    assert isinstance(reason, str)
    assert reason.startswith("this version of XLA writes its programs differently: ")


def test_a_text_that_is_not_a_program():
    with pytest.raises(ValueError, match="compiled program"):
        Program("nothing of the kind")
