"""Which instruments an answer names."""

import re
from collections.abc import Collection

from musilingo_jax.corpora.statements import values
from musilingo_jax.evaluation.metrics.naming import named_values

_SENTENCE = re.compile(r"[.!?;\n]+")
_LISTED = re.compile(r"[,;|/+&\n]|\band\b", re.IGNORECASE)
_AROUND = " \t[]()\"'.“”‘’"


def listed(value: str) -> set[str]:
    """The true instruments, from "piano, bass guitar" or "Piano and bass guitar"."""
    names = (name.strip(_AROUND).lower() for name in _LISTED.split(value))
    return set(names) - {""}


def keys_of(instruments: Collection[str]) -> set[str]:
    """What `named` returns for these instruments."""
    return {values.key_of(name, plural=True) for name in instruments}


def named(answer: str, classes: Collection[str]) -> set[str]:
    """The instruments that an answer names and does not deny.

    Singular and plural, and spellings with and without spaces, are the same.

        "Two violins and a piano, but no drums."  → {"violin", "piano"}

    Args:
      answer: the answer.
      classes: all instruments of the corpus.

    Returns:
      Their keys, as `keys_of` makes them of classes.
    """
    return {found.key for found in values.stated(answer, classes, plural=True)}


def published_named(answer: str, classes: Collection[str]) -> set[str]:
    """The instruments in all sentences without the word "no", the published rule.

        "Two violins and a piano. There are no drums."  → {"violin", "piano"}
        "Two violins, but no drums."                    → nothing

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
