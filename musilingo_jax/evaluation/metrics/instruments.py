"""Which instruments an answer names."""

import re
from collections.abc import Collection

from musilingo_jax.evaluation.metrics.naming import named_values

_SENTENCE = re.compile(r"[.!?;\n]+")


def listed(value: str) -> set[str]:
    """The true instruments, from "piano, bass guitar"."""
    return {name.strip().lower() for name in value.split(",")} - {""}


def named(answer: str, classes: Collection[str]) -> set[str]:
    """The instruments that an answer names, without those that it may deny.

    A sentence with the word "no" is ignored. Plurals name their instrument.

        "Two violins and a piano. There are no drums."  → {"violin", "piano"}

    Args:
      answer: the answer.
      classes: all instruments of the corpus, in lower case.
    """
    kept = [s for s in _SENTENCE.split(answer) if " no " not in f" {s.lower()} "]
    return named_values(". ".join(kept), classes, plural=True)


def f1(answered: Collection[str], true: Collection[str]) -> float:
    """F1 of the instruments of one track; 0 if none is right."""
    shared = len(set(answered) & set(true))
    return 2 * shared / (len(answered) + len(true)) if shared else 0.0
