"""Several corpora at once: which records there are, and how often each is drawn.

    config.corpus.path = ""
    config.corpus.mixture = {
        "instruct": {"path": "corpora/music_instruct", "weight": 0.6},
        "qa": {"path": "corpora/music_qa", "weight": 0.4},
    }

Weights are shares of the examples drawn, whatever the sizes of the corpora: with 0.6
and 0.4, of any ten examples in a row six come from the first, and a small corpus is
gone through more often. Weights equal to the numbers of records make it as if all
corpora were one. Each corpus must have records in the split that is learnt from. A
stage that learns from only some of the corpora keeps the ratios among those, and says
which the others are.
"""

import dataclasses
import math
import sys
import zlib
from collections.abc import Mapping, Sequence

import grain
from ml_collections import ConfigDict

from musilingo_jax.corpora import corpus
from musilingo_jax.corpora.records import Record
from musilingo_jax.runtime.errors import UserError


def load(config: ConfigDict) -> list[Record]:
    """All records of `config.corpus`: of its `path`, or of its `mixture`.

    Those of a mixture come corpus after corpus, each with its name in `corpus`.

    Raises:
      UserError: both or neither are given, or one of them cannot be read.
    """
    members = _members(config)
    if not members:
        return corpus.load(config.path)
    return [
        dataclasses.replace(record, corpus=name)
        for name, member in members.items()
        for record in corpus.load(member["path"])
    ]


def split(config: ConfigDict, name: str, *, answered: bool) -> list[Record]:
    """The records of one split.

    Args:
      config: the section `corpus`.
      name: of the split.
      answered: whether all of them must have an answer, to learn or to compare with.

    Raises:
      UserError: as in `load`, or there is no such split, or answers are lacking, or it
        is the split to learn from and a corpus of the mixture has nothing in it.
    """
    records = load(config)
    chosen = [record for record in records if record.split == name]
    if not chosen:
        found = ", ".join(sorted({repr(record.split) for record in records}))
        raise UserError(
            f"{title(config)} has no records in the split {name!r}: choose one of "
            f"{found} (config.corpus.train_split, .validation_split, .test_split)"
        )
    there = {record.corpus for record in chosen}
    for member in [name for name in _members(config) if name not in there]:
        said = (
            f"config.corpus.mixture.{member}: {config.mixture[member].path} has no "
            f"records in the split {name!r}"
        )
        if name == config.get("train_split"):
            raise UserError(
                f"{said}, so that it would never be drawn: leave it out of the mixture,"
                " or choose another config.corpus.train_split"
            )
        print(said, file=sys.stderr)
    lacking = [record for record in chosen if not record.answer]
    if answered and lacking:
        raise UserError(
            f"{title(config)}: {len(lacking)} of {len(chosen)} records in the split "
            f"{name!r} have no answer, as that of {lacking[0].audio}: write what should"
            " be said (`musilingo_jax.generate` only asks, and needs none)"
        )
    return chosen


def weights(config: ConfigDict) -> dict[str, float]:
    """The weight of each corpus of a mixture, by name; empty if there is only one.

    Raises:
      UserError: as in `load`.
    """
    return {name: member["weight"] for name, member in _members(config).items()}


def title(config: ConfigDict) -> str:
    """What to call it: the path, or the paths of the mixture."""
    members = _members(config)
    return " + ".join(member["path"] for member in members.values()) or config.path


def order(
    names: Sequence[str], weights: Mapping[str, float], seed: int
) -> grain.MapDataset:
    """The endless order in which examples are drawn, as places in `names`.

    Each corpus is gone through in shuffled epochs of its own. The corpora take turns by
    weight. Element `i` is a pure function of the arguments and `i`:

        names      A A A B B
        weights    A: 2, B: 1
        order      2 0 4 1 0 3 …

    Args:
      names: for each example the corpus it comes from.
      weights: by corpus; empty for one corpus, whose name does not matter then.
      seed: of the shuffling. The order within a corpus depends on its name too, but not
        on which others there are.
    """
    if not weights:
        return grain.MapDataset.range(len(names)).seed(seed).shuffle().repeat()
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    drawn = {
        name: grain.MapDataset.source(there)
        .seed(zlib.crc32(f"{seed}/{name}".encode()))
        .shuffle()
        .repeat()
        for name, there in places.items()
    }
    shares = [weights[name] for name in drawn]
    return grain.MapDataset.mix(list(drawn.values()), shares).seed(seed)


def _members(config: ConfigDict) -> dict[str, dict]:
    """The checked `mixture`; empty if `path` is given instead."""
    mixture = config.get("mixture") or ConfigDict()
    if bool(mixture) == bool(config.path):
        raise UserError(
            "config.corpus needs either a path or a mixture: set config.corpus.path to "
            '"" where there is a mixture'
        )
    members = {}
    for name in mixture:
        member = mixture[name]
        where = f"config.corpus.mixture.{name}"
        if not isinstance(member, ConfigDict) or {*member} != {"path", "weight"}:
            raise UserError(f"{where} must have the keys path and weight, nothing else")
        weight = member.weight
        if not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise UserError(f"{where}.weight must be a number above 0, not {weight!r}")
        members[name] = {"path": member.path, "weight": float(weight)}
    return members
