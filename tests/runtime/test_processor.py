"""What is known of the processor and of the memory that is free."""

import re
from pathlib import Path

import pytest
from helpers import processors

from musilingo_jax.runtime import processor


@pytest.mark.parametrize(
    ("text", "units", "described"),
    [
        (processors.AVX2, False, "AMD EPYC 7B13, without bfloat16 units"),
        (processors.AVX512_BF16, True, "AMD EPYC 9B14, with bfloat16 units"),
        (processors.AMX, True, "Platinum 8481C, with bfloat16 units"),
        (processors.ARM_BF16, True, "with bfloat16 units"),
        (processors.ARM, False, "without bfloat16 units"),
        (processors.UNKNOWN, None, "bfloat16 units unknown"),
    ],
)
def test_the_units_are_those_that_linux_lists(monkeypatch, text, units, described):
    monkeypatch.setattr(processor, "cpuinfo", lambda: text)
    assert processor.has_bfloat16_units() is units
    assert processor.described().endswith(described)
    assert processor.name()


def test_this_machine_says_what_it_is():
    text = Path("/proc/cpuinfo").read_text()
    listed = set(re.findall(r"\w+", text))
    expected = bool(listed & {"avx512_bf16", "amx_bf16"}) or (
        "Features" in text and "bf16" in listed
    )
    assert processor.has_bfloat16_units() is expected


def test_memory_is_what_is_available_within_the_limits(monkeypatch, tmp_path):
    free = processor.available_memory()
    assert 0 < free < 2**50
    monkeypatch.setattr(processor, "_limits", lambda: [2**60, 1000])
    assert processor.available_memory() == 1000
    monkeypatch.setattr(processor, "_limits", list)
    assert processor.available_memory() > 1000


def test_limits_are_those_of_the_group_and_of_the_groups_around_it(
    monkeypatch, tmp_path
):
    own = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    folder = tmp_path / (own[1] if own else "")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text("max\n")
    monkeypatch.setattr(processor, "_CGROUPS", tmp_path)
    assert processor._limits() == []
    (tmp_path / "memory.max").write_text("4096\n")
    assert processor._limits() == [4096]
