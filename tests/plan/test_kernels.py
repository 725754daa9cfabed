"""What kernels cost that XLA did not write, and that no cost is left out."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from plan import recorded_kernels as recorded

from musilingo_jax.plan import kernels, program_costs
from musilingo_jax.plan.hlo import Program
from musilingo_jax.plan.memory_traffic import traffic
from musilingo_jax.plan.program_costs import ProgramCosts, costs_of

ROOT = Path(__file__).parents[2]


def splash(phase):
    residuals = "_residuals" if phase == "fwd" else "_no_residuals"
    return f"splash_mha_{phase}_segmented{residuals}"


def operations_by_hand(side=recorded.LENGTH // recorded.BLOCK):
    """Kernel → calls and operations per chip, with `side` · (side + 1) / 2 blocks."""
    blocks = side * (side + 1) // 2
    rows = recorded.ROWS // recorded.DATA * (recorded.HEADS // recorded.TENSOR)
    product = 2 * rows * blocks * recorded.BLOCK**2 * recorded.HEAD_DIM
    depth = recorded.DEPTH
    return {
        # Forward, and again in the backward pass.
        splash("fwd"): (2 * depth, 2 * depth * 2 * product),
        splash("dkv"): (depth, depth * 4 * product),
        splash("dq"): (depth, depth * 3 * product),
        "double": (1, recorded.ESTIMATE["flops"]),
    }


def found_in(costs):
    assert isinstance(costs, ProgramCosts), costs
    return {kernel.name: (kernel.times, kernel.flops) for kernel in costs.kernels}


def test_recorded_kernels_cost_what_is_counted_by_hand():
    costs = costs_of(recorded.read())
    assert found_in(costs) == operations_by_hand()
    # The one other product, in the backward pass, is of outputs and their gradients.
    elements = recorded.ROWS * recorded.HEADS * recorded.LENGTH * recorded.HEAD_DIM
    other = recorded.DEPTH * 2 * elements / (recorded.DATA * recorded.TENSOR)
    inside = sum(flops for _, flops in operations_by_hand().values())
    assert costs.flops == inside + other
    moved = {kernel.name: kernel.bytes for kernel in costs.kernels}
    assert moved["double"] == recorded.ESTIMATE["bytes_accessed"]
    # The residuals of a layer, float32[2, 2, 1280, 128], do not fit on the core.
    least = recorded.DEPTH * 2 * 2 * recorded.LENGTH * 128 * 4
    assert least <= moved[splash("fwd")] <= 10 * least
    assert costs.traffic > sum(moved.values())


def test_where_the_skipped_blocks_are_not_told_all_count():
    text = re.sub(r"( = s8\[\S+ constant)\(\{ .*\}\)", r"\1({...})", recorded.read())
    found = found_in(costs_of(text))
    side = recorded.LENGTH // recorded.BLOCK
    for name, (times, operations) in operations_by_hand().items():
        more = 1 if name == "double" else side**2 / (side * (side + 1) / 2)
        assert found[name] == (times, pytest.approx(operations * more))


def test_the_installed_compiler_still_writes_kernels_so():
    pytest.importorskip("libtpu")
    code = (
        "from musilingo_jax.plan import tpu_slices; tpu_slices.prepare()\n"
        "import json, recorded_kernels, dataclasses\n"
        "from musilingo_jax.plan.program_costs import costs_of\n"
        "costs = costs_of(recorded_kernels.compiled())\n"
        "print(costs if isinstance(costs, str) else"
        " json.dumps([dataclasses.asdict(kernel) for kernel in costs.kernels]))"
    )
    folders = [str(ROOT), str(ROOT / "tests/plan"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = {
        row["name"]: (row["times"], row["flops"]) for row in json.loads(done.stdout)
    }
    assert found == operations_by_hand()


def program(call):
    """A product of [8, 8] by [8, 128], whose outcome a custom call reads."""
    return f"""HloModule m, num_partitions=1

ENTRY %main (a: f32[8,8], b: f32[8,128]) -> f32[8,128] {{
  %a = f32[8,8]{{1,0}} parameter(0)
  %b = f32[8,128]{{1,0}} parameter(1)
  %product = f32[8,128]{{1,0}} dot(%a, %b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT %called = f32[8,128]{{1,0}} custom-call(%product, %b), {call}
}}
"""  # noqa: E501


PRODUCT = 2 * 8 * 8 * 128
ARRAY = 4 * 8 * 128


def test_a_kernel_without_a_formula_makes_all_costs_unknown():
    call = (
        'custom_call_target="tpu_custom_call", '
        'metadata={op_name="jit(f)/jit(g)/mine/pallas_call"}, backend_config={}'
    )
    reason = costs_of(program(call))
    assert reason == (
        "no formula tells what the kernel mine computes (plan/kernels.py)"
    )


def test_a_custom_call_that_is_not_known_makes_all_costs_unknown():
    reason = costs_of(program('custom_call_target="__cublas$gemm"'))
    assert "the custom call __cublas$gemm" in reason


def test_what_an_author_estimates_is_believed():
    call = (
        'custom_call_target="tpu_custom_call", backend_config={"custom_call_config":'
        '{"body":"","cost_estimate":{"flops":"40","bytes_accessed":"0"}}}'
    )
    costs = costs_of(program(call))
    (kernel,) = costs.kernels
    # Bytes were not estimated: two operands and the result.
    assert dataclasses.astuple(kernel) == ("called", 1, 40, 3 * ARRAY)
    assert costs.flops == PRODUCT + 40


@pytest.mark.parametrize(
    ("target", "bytes_moved"), [("ConcatBitcast", 0), ("TopK", 3 * ARRAY)]
)
def test_custom_calls_of_the_compiler_itself_compute_nothing(target, bytes_moved):
    found = Program(program(f'custom_call_target="{target}"'))
    assert not kernels.unknown(found) and not kernels.kernels(found)
    assert program_costs.flops(found) == PRODUCT
    assert traffic(found) == 4 * 8 * 8 + 2 * ARRAY + bytes_moved


def test_an_instruction_in_several_lines():
    call = (
        'custom_call_target="TopK", frontend_attributes={kernel_metadata={\n'
        '"xprof_metadata":"{\\"block_q\\": 256}"\n}}, metadata={op_name="f"}'
    )
    found = Program(program(call)).computations["main"]
    assert list(found) == ["a", "b", "product", "called"]
    assert found["called"].attribute(r'op_name="(\w+)"') == "f"
    with pytest.raises(ValueError, match="a brace is not closed"):
        Program(program(call.replace("}}, metadata", ", metadata")))


def test_pages_of_ragged_attention_are_an_upper_bound():
    text = """HloModule m, num_partitions=1

ENTRY %main (q: bf16[6,8,128], pages: bf16[20,16,8,128], lens: s32[4], table: s32[4,5]) -> bf16[6,8,128] {
  %q = bf16[6,8,128]{2,1,0} parameter(0)
  %pages = bf16[20,16,8,128]{3,2,1,0} parameter(1)
  %lens = s32[4]{0} parameter(2)
  %table = s32[4,5]{1,0} parameter(3)
  ROOT %ragged_paged_attention_kernel.3 = bf16[6,8,128]{2,1,0} custom-call(%lens, %table, %q, %pages), custom_call_target="tpu_custom_call"
}
"""  # noqa: E501
    (kernel,) = kernels.kernels(Program(text))
    # Two products of 6 queries by 5 pages of 16 keys.
    assert kernel.flops == 2 * 2 * 8 * 128 * 6 * (5 * 16)
    assert kernel.bytes == 2 * (2 * 6 * 8 * 128 + 20 * 16 * 8 * 128) + 4 * (4 + 20)
