"""Items → rows, as `jobs.row_job` makes them: ask, read, refuse, keep all of it."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from musilingo_jax.instruction import filters, instructions, replies, wordings
from musilingo_jax.instruction.pairs import Item, Pair
from musilingo_jax.instruction.subjects import Vocabulary
from musilingo_jax.instruction.templates import Templates
from musilingo_jax.jobs.identity import StoredIdentity
from musilingo_jax.jobs.row_job import Result, RowMaker
from musilingo_jax.runtime.errors import UserError

FORMAT = 1
BY_RULES = "by rules"
"""The way of reading of pairs that no model wrote."""


class Said(NamedTuple):
    """What a model said.

    Attributes:
      text: all of it.
      cut: whether it had more to say than it was allowed to.
      read, written: tokens, as far as they were counted.
    """

    text: str
    cut: bool
    read: int
    written: int


Ask = Callable[[Sequence[Item]], Iterator[Said | UserError]]
"""Items → what a model says of each of them, or why it does not; in order."""


@dataclass(frozen=True)
class Plan:
    """How pairs are made, whoever makes them.

    Attributes:
      vocabulary: of all clips.
      pairs: how many are wanted of a clip and family.
      seed: of all draws.
      maker: who makes them, such as "templates" or the name of a model.
    """

    vocabulary: Vocabulary
    pairs: int
    seed: int
    maker: str

    def identity(self, further: StoredIdentity) -> StoredIdentity:
        """What rows depend on besides their items.

        Args:
          further: what the maker depends on.
        """
        return {
            "format": FORMAT,
            "maker": self.maker,
            "pairs": self.pairs,
            "seed": self.seed,
            "filters": filters.VERSION,
            "vocabulary": self.vocabulary.digest,
            **further,
        }

    def row(self, item: Item, pairs: Sequence[Pair], **about: Any) -> dict[str, Any]:
        """The row of an item, all of whose pairs are in it: used or refused."""
        kept, refused = filters.sift(pairs, item.subject, self.vocabulary)
        return {
            "clip": item.subject.clip,
            "family": item.family,
            "maker": self.maker,
            "seed": self.seed,
            **about,
            "pairs": [pair.entry for pair in kept],
            "refused": [pair.entry for pair in refused],
        }


def by_rules(plan: Plan) -> RowMaker:
    """Makes rows by templates."""
    return functools.partial(_by_rules, plan)


def by_model(plan: Plan, ask: Ask) -> RowMaker:
    """Makes rows from what a model says."""
    return functools.partial(_by_model, plan, ask)


def _by_rules(plan: Plan, items: Sequence[Item]) -> Iterator[Result]:
    rules = Templates(plan.vocabulary, plan.seed, plan.pairs)
    for item in items:
        about = {"prompt": wordings.VERSION, "raw": None, "parse": BY_RULES}
        yield Result(plan.row(item, rules.pairs(item), **about), 0.0)


def _by_model(plan: Plan, ask: Ask, items: Sequence[Item]) -> Iterator[Result]:
    for item, said in zip(items, ask(items), strict=True):
        if isinstance(said, UserError):
            yield Result(said, 0.0)
            continue
        reply = replies.read(said.text, cut=said.cut)
        about = {
            "prompt": instructions.VERSION,
            "raw": said.text,
            "cut": said.cut,
            "usage": [said.read, said.written],
            "parse": reply.parse,
            "broken": reply.broken,
        }
        yield Result(plan.row(item, reply.pairs, **about), 0.0)
