"""Examples → packed global batches, by step number.

Batch `s` is a pure function of (seed, `s`): nothing is carried from one batch to the
next, so a run that stops at any step goes on as if it had not, on any number of
processes and devices. Each process reads only the rows that its devices hold.

    Batches            examples of an epoch shuffled, songs cropped anew, without end
    ValidationBatches  some examples once each, cropped in the middle, always the same
"""

import functools
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from musilingo_jax.answering.prompts import Example
from musilingo_jax.corpora import mixture
from musilingo_jax.models.musilingo import Batch
from musilingo_jax.runtime.sharding import batch_sharding
from musilingo_jax.training.examples import Examples
from musilingo_jax.training.packing import Features, RowShape, choose_shapes, fill, pack

# What the shapes are chosen by: so many examples, or updates if those are fewer.
_GUESSED_EXAMPLES, _GUESSED_UPDATES = 1 << 16, 512


class BatchPlan(NamedTuple):
    """A batch before anything is read.

    Attributes:
      places: the examples it holds, as places in the records.
      rows: for each row the examples in it, as places in `places`.
    """

    places: np.ndarray
    rows: list[list[int]]


class Batches:
    """The training batches of one stage.

    Attributes:
      of_corpus: how many examples are of which corpus of a mixture, each drawn once per
        epoch; corpora without any are told on stderr.
      shapes: of the rows, one of these in each batch.
    """

    def __init__(
        self,
        examples: Examples,
        weights: Mapping[str, float],
        *,
        batch_size: int,
        rows: int,
        seed: int,
        mesh: Mesh,
    ):
        """Orders them.

        Args:
          examples: to draw from.
          weights: how often each corpus of a mixture is drawn from; {} for one corpus.
          batch_size: examples per update, over all devices, processes and accumulated
            batches.
          rows: rows of tokens per update that these are packed into.
          seed: of the order and the crops.
          mesh: where the batches go.
        """
        self._all, self._batch_size, self._rows = examples, batch_size, rows
        self._sharding = batch_sharding(mesh)
        corpora = [record.corpus for record in self._all.records]
        self.of_corpus = {**dict.fromkeys(weights, 0), **Counter(corpora)}
        _tell_unused(self.of_corpus, examples)
        self._order, self._seed = mixture.order(corpora, weights, seed), seed
        # What is asked of a batch is asked within a few steps, by two threads.
        self._plan = functools.lru_cache(64)(self._make_plan)
        self.shapes = choose_shapes(
            [
                _need(
                    self._all, BatchPlan(places, pack(self._all.lengths[places], rows))
                )
                for places in self._guess(corpora, weights)
            ],
            self._all.largest(-(-batch_size // rows)),
        )

    def clips(self, step: int) -> list[str]:
        """The clips of batch `step`, in the order in which they are drawn."""
        return [self._all.records[place].clip for place in self._plan(step).places]

    def tokens(self, step: int) -> int:
        """How many tokens batch `step` holds, audio included and padding not."""
        return int(self._all.lengths[self._plan(step).places].sum())

    def windows(self, step: int) -> int:
        """How many audio vectors batch `step` holds."""
        return int(self._all.windows[self._plan(step).places].sum())

    def targets(self, step: int) -> int:
        """How many tokens of batch `step` must be said."""
        return int(self._all.answers[self._plan(step).places].sum())

    def attended(self, step: int) -> int:
        """How many pairs of places of batch `step` are one seen from the other.

        Of an example of n tokens the first sees itself and the last all n of them, so
        these are n · (n + 1) / 2.
        """
        lengths = self._all.lengths[self._plan(step).places]
        return int((lengths * (lengths + 1)).sum()) // 2

    def padding(self, step: int) -> float:
        """Which share of the places for tokens in batch `step` is empty."""
        return 1 - self.tokens(step) / (self._rows * self.shape(step).length)

    def shape(self, step: int) -> RowShape:
        """The size of the rows of batch `step`: one of `shapes`."""
        need = _need(self._all, self._plan(step))
        return next(shape for shape in self.shapes if shape.holds(need))

    def batch(self, step: int) -> Batch:
        """Batch `step` as global arrays, sharded over their rows.

        There are few shapes, so that there are few programs to compile.
        """
        (places, rows), first = self._plan(step), step * self._batch_size

        def draw(i: int) -> tuple[Features, Example]:
            rng = np.random.default_rng((self._seed, first + i))
            return self._all.draw(places[i], rng)

        def read(block: slice) -> list[list[tuple[Features, Example]]]:
            return [[draw(i) for i in row] for row in rows[block]]

        return _assemble(
            read, self._rows, self.shape(step), self._all.width, self._sharding
        )

    def _make_plan(self, step: int) -> BatchPlan:
        """Where batch `step` lies in the endless stream, and in which rows."""
        first = step * self._batch_size
        drawn = range(first, first + self._batch_size)
        places = np.asarray([self._order[i] for i in drawn])
        return BatchPlan(places, pack(self._all.lengths[places], self._rows))

    def _guess(
        self, corpora: Sequence[str], weights: Mapping[str, float]
    ) -> Int[np.ndarray, "updates batch_size"]:
        """Examples of updates as they may come; the true ones would take longer."""
        chances = np.asarray(
            [weights.get(name, 1.0) / self.of_corpus[name] for name in corpora]
        )
        updates = min(_GUESSED_UPDATES, max(16, _GUESSED_EXAMPLES // self._batch_size))
        return np.random.default_rng(self._seed).choice(
            len(corpora), (updates, self._batch_size), p=chances / chances.sum()
        )


class ValidationBatches(Sequence[Batch]):
    """Examples to look at again and again while training: `len(…)`, `…[i]` → Batch.

    The same at each look: the first `most` of a shuffle by `seed`, each once, long
    songs cropped in the middle. The last batch may hold fewer examples; its rows are as
    many, some of them empty. All have one shape, so that one program is compiled.

    Attributes:
      examples: how many examples there are in all batches together.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        most: int,
        batch_size: int,
        rows: int,
        seed: int,
        mesh: Mesh,
    ):
        """Chooses them.

        Args:
          examples: to choose from.
          most: at most so many are taken.
          batch_size: examples per batch, over all devices and processes.
          rows: rows of tokens per batch that these are packed into.
          seed: of the choice.
          mesh: where the batches go.
        """
        self._all = examples
        self._rows, self._sharding = rows, batch_sharding(mesh)
        order = np.random.default_rng(seed).permutation(len(examples.records))
        chosen = order[:most]
        self.examples = len(chosen)
        self._plans = [
            BatchPlan(places, pack(self._all.lengths[places], rows))
            for places in (
                chosen[start : start + batch_size]
                for start in range(0, len(chosen), batch_size)
            )
        ]
        needs = [_need(self._all, plan) for plan in self._plans]
        self._shape = functools.reduce(RowShape.join, needs).rounded()

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, index: int) -> Batch:
        places, rows = self._plans[index]

        def read(block: slice) -> list[list[tuple[Features, Example]]]:
            return [
                [self._all.draw(places[i], None) for i in row] for row in rows[block]
            ]

        return _assemble(read, self._rows, self._shape, self._all.width, self._sharding)


def _need(examples: Examples, plan: BatchPlan) -> RowShape:
    """The size of the largest row of a batch."""
    return examples.need([plan.places[row] for row in plan.rows])


def _assemble(
    read: Callable[[slice], list[list[tuple[Features, Example]]]],
    rows: int,
    shape: RowShape,
    width: int,
    sharding: jax.sharding.Sharding,
) -> Batch:
    """A batch of global arrays, of which each process reads its own rows.

    Args:
      read: the examples of some of the rows.
      rows: in the whole batch.
      shape: of a row.
      width: of the features.
      sharding: of the rows over devices.
    """
    blocks = {}  # A block of rows is shared by the devices that hold copies of it.

    def block(index: slice) -> Batch:
        start, stop, _ = index.indices(rows)
        if (start, stop) not in blocks:
            blocks[start, stop] = fill(read(slice(start, stop)), shape, width)
        return blocks[start, stop]

    def assemble(name: str, *tail: int) -> jax.Array:
        return jax.make_array_from_callback(
            (rows, *tail), sharding, lambda index: getattr(block(index[0]), name)
        )

    return Batch(
        features=assemble("features", shape.windows, width),
        tokens=assemble("tokens", shape.length),
        audio_slot=assemble("audio_slot", shape.length),
        segments=assemble("segments", shape.length),
        positions=assemble("positions", shape.length),
        targets=assemble("targets", shape.answers),
    )


def _tell_unused(of_corpus: Mapping[str, int], examples: Examples) -> None:
    """Tells on stderr from which corpora of a mixture nothing is learnt, and why."""
    unused = [name for name, count in of_corpus.items() if not count]
    if not unused or jax.process_index() != 0:
        return
    said = (
        f"{name} (none of its examples fits in max_tokens = {examples.max_tokens})"
        if examples.too_long[name]
        else f"{name} (none of its examples is of this kind and can be heard)"
        for name in unused
    )
    print(f"this stage does not learn from {', '.join(said)}", file=sys.stderr)
