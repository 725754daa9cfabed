"""Several corpora at once: their records, and how often each corpus is drawn.

    config.corpus.path = ""
    config.corpus.mixture = {
        "instruct": {"path": "corpora/music_instruct", "weight": 0.6},
        "qa": {"path": "corpora/music_qa", "weight": 0.4},
    }

Weights are shares of the examples drawn, whatever the sizes of the corpora: with 0.6
and 0.4, six of any ten consecutive examples come from the first corpus, and a small
corpus is repeated more often than a large one. Weights equal to the numbers of records
draw as if all corpora were one. Each corpus must have records in the training split. A
stage that trains on only some of the corpora keeps the ratios among those, and reports
the others.
"""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grain
from ml_collections import ConfigDict

from musilingo_jax.corpora import corpus, findings
from musilingo_jax.corpora.records import Record
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note
from musilingo_jax.runtime.settings import read_section, setting


@dataclass(frozen=True)
class MixtureMember:
    """A corpus of a mixture: its `path` as in `corpus.load`, and its share of draws."""

    path: str
    weight: float = setting(above=0)


def load(config: ConfigDict) -> list[Record]:
    """All records of the corpus at `path`, or of the corpora of `mixture`.

    Those of a mixture come corpus after corpus; their field `corpus` is its name.

    Args:
      config: the section `corpus`.

    Raises:
      UserError: both or neither are given, or one of them cannot be read.
    """
    members = _members(config)
    if not members:
        return corpus.load(config.path)
    records = [
        dataclasses.replace(record, corpus=name)
        for name, member in members.items()
        for record in corpus.load(member.path)
    ]
    for sentence in findings.sentences(findings.shared_songs(records)):
        findings.tell(f"config.corpus.mixture: {sentence}")
    return records


def split(config: ConfigDict, name: str, *, answered: bool) -> list[Record]:
    """The records of one split.

    Args:
      config: the section `corpus`.
      name: of the split.
      answered: whether each record must have an answer, to train on or compare with.

    Raises:
      UserError: as in `load`; or there is no such split; or answers are missing; or it
        is the training split, and a corpus of the mixture has no records in it.
    """
    records = load(config)
    chosen = [record for record in records if record.split == name]
    if not chosen:
        found = ", ".join(sorted({repr(record.split) for record in records}))
        raise UserError(
            f"{title(config)} has no records in the split {name!r}: choose one of "
            f"{found} (config.corpus.train_split, .validation_split, .test_split)"
        )
    nonempty = {record.corpus for record in chosen}
    for member, section in _members(config).items():
        if member in nonempty:
            continue
        message = (
            f"config.corpus.mixture.{member}: {section.path} has no records in the "
            f"split {name!r}"
        )
        if name == config.get("train_split"):
            raise UserError(
                f"{message}, so it would never be drawn: leave it out of the mixture, "
                "or choose another config.corpus.train_split"
            )
        print_note(message)
    lacking = [record for record in chosen if not record.answer]
    if answered and lacking:
        raise UserError(
            f"{title(config)}: {len(lacking)} of {len(chosen)} records in the split "
            f"{name!r} have no answer, such as that of {lacking[0].audio}: add their "
            "answers (`musilingo_jax.generate` only asks, and needs none)"
        )
    return chosen


def weights(config: ConfigDict) -> dict[str, float]:
    """The weight of each corpus of a mixture, by name; empty if there is none.

    Args:
      config: the section `corpus`.

    Raises:
      UserError: as in `load`.
    """
    return {name: float(member.weight) for name, member in _members(config).items()}


def title(config: ConfigDict) -> str:
    """What to call a section `corpus`: its path, or the paths of its mixture."""
    members = _members(config)
    return " + ".join(member.path for member in members.values()) or config.path


def order(
    names: Sequence[str], weights: Mapping[str, float], seed: int
) -> grain.MapDataset:
    """The endless order in which examples are drawn, as places in `names`.

    Each corpus is drawn in shuffled epochs of its own, and the corpora take turns by
    weight. Element `i` is a pure function of the arguments and `i`:

        names      A A A B B
        weights    A: 2, B: 1
        order      2 0 4 1 0 3 …

    Args:
      names: for each example, the corpus that it comes from.
      weights: by corpus; empty for a single corpus, whatever its name.
      seed: of the shuffling. The order within a corpus also depends on its name, but
        not on the other corpora.
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


def _members(config: ConfigDict) -> dict[str, MixtureMember]:
    """The checked `mixture`; empty if `path` is given instead."""
    mixture = config.get("mixture") or ConfigDict()
    if bool(mixture) == bool(config.path):
        raise UserError(
            "config.corpus needs either a path or a mixture: set config.corpus.path to "
            '"" if there is a mixture'
        )
    members = {}
    for name in mixture:
        where = f"config.corpus.mixture.{name}"
        if not isinstance(mixture[name], ConfigDict):
            raise UserError(f"{where} must be a section with the keys path and weight")
        members[name] = read_section(MixtureMember, mixture[name], where)
    return members
