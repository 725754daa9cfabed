"""Benchmarks beside PyTorch run whole, on small shapes, and print both sides."""

import pytest
from helpers import programs

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

LLAMA = ("--width=64", "--depth=1", "--heads=2", "--mlp=96")


@pytest.mark.parametrize(
    ("script", "arguments", "sides"),
    [
        (
            "encoder",
            ("--width=64", "--depth=1", "--clips=1", "--seconds=1"),
            ("torch float32", "our float32", "our bfloat16"),
        ),
        (
            "adapter_step",
            (*LLAMA, "--updates=1"),
            ("torch float32", "our float32", "our bfloat16"),
        ),
        (
            "decoding",
            (*LLAMA, "--prompt=8", "--tokens=4", "--rows=2"),
            ("torch float32 1", "our int8 1", "our float32 rows"),
        ),
    ],
)
def test_each_side_is_measured(script, arguments, sides):
    done = programs.run_script(f"benchmarks/{script}.py", "--rounds=1", *arguments)
    assert done.returncode == 0, done.stderr
    for side in sides:
        assert f"\n{side} " in done.stdout
