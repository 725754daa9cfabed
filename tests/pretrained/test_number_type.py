"""What "auto" means on a machine, by its processor and its memory."""

import jax
import pytest
from helpers import processors

from musilingo_jax.pretrained import number_type
from musilingo_jax.pretrained.number_type import of_this_machine
from musilingo_jax.runtime import processor

TINY = {"encoder": "musilingo-tiny", "language_model": "musilingo-tiny"}


@pytest.fixture
def machine(monkeypatch):
    """Makes this machine pass for another."""

    def machine(cpuinfo, memory=2**40, platform="cpu"):
        monkeypatch.setattr(processor, "cpuinfo", lambda: cpuinfo)
        monkeypatch.setattr(processor, "available_memory", lambda: memory)
        monkeypatch.setattr(jax, "default_backend", lambda: platform)

    return machine


@pytest.mark.parametrize(
    ("cpuinfo", "platform", "expected"),
    [
        (processors.AVX2, "tpu", "bfloat16"),
        (processors.AVX2, "gpu", "bfloat16"),
        (processors.AVX512_BF16, "cpu", "bfloat16"),
        (processors.AMX, "cpu", "bfloat16"),
        (processors.ARM_BF16, "cpu", "bfloat16"),
        (processors.AVX2, "cpu", "float32"),
        (processors.ARM, "cpu", "float32"),
    ],
)
def test_bfloat16_where_there_are_units(machine, capsys, cpuinfo, platform, expected):
    machine(cpuinfo, platform=platform)
    assert of_this_machine(TINY, "") == expected
    assert capsys.readouterr().err == ""


def test_a_processor_of_which_nothing_is_known_counts_as_one_without(machine, capsys):
    machine(processors.UNKNOWN)
    assert of_this_machine(TINY, "") == "float32"
    assert "does not say whether" in capsys.readouterr().err


def test_less_memory_than_float32_takes_means_bfloat16_and_a_sentence(machine, capsys):
    needed = sum(number_type._bytes(kind, source, "") for kind, source in TINY.items())
    machine(processors.AVX2, memory=needed)
    assert of_this_machine(TINY, "") == "bfloat16"
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "bfloat16, though float32 is faster on AMD EPYC 7B13: its weights take" in (
        told
    )
    machine(processors.AVX2, memory=2 * needed)
    assert of_this_machine(TINY, "") == "float32"


def test_an_int8_model_needs_less():
    """All but the embedding, the head and the norms in 8 bits."""
    whole = number_type._bytes("language_model", "musilingo-tiny", "")
    small = number_type._bytes("language_model", "musilingo-tiny", "int8")
    assert 0.25 < small / whole < 0.9
