"""Which instruments an answer says are there."""

import re
from collections.abc import Collection

from musilingo_jax.evaluation.metrics.naming import named_values

_SENTENCE = re.compile(r"[.!?;\n]+")


def listed(value: str) -> set[str]:
    """The true instruments, from "piano, bass guitar"."""
    return {name.strip().lower() for name in value.split(",")} - {""}


def heard(answer: str, classes: Collection[str]) -> set[str]:
    """The instruments that an answer names, but for sentences that deny something.

    A sentence with the word "no" is dropped whole. Plurals name their instrument.

        "Two violins and a piano. There are no drums."  → {"violin", "piano"}

    Args:
      answer: what was said.
      classes: all instruments that any clip of the corpus has, in lower case.
    """
    said = [s for s in _SENTENCE.split(answer) if " no " not in f" {s.lower()} "]
    return named_values(". ".join(said), classes, plural=True)


def f1(said: Collection[str], true: Collection[str]) -> float:
    """F1 of the instruments of one track; 0 if none is named."""
    shared = len(set(said) & set(true))
    return 2 * shared / (len(said) + len(true)) if shared else 0.0
