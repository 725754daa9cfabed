"""Examples → packed global batches, by step number.

Batch `s` is a pure function of (seed, `s`): no state is carried from one batch to the
next. So a run that stops after any step resumes as if it had not stopped, with any
number of processes and devices. Each process reads only the rows that its devices hold.

    Batches            endless: every epoch in another order, long songs cropped anew
    ValidationBatches  a fixed set: each example once, long songs cropped in the middle
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from musilingo_jax.answering.prompts import Example
from musilingo_jax.corpora import mixture
from musilingo_jax.models.answer_loss import Batch
from musilingo_jax.runtime.printable import print_note
from musilingo_jax.runtime.sharding import batch_sharding
from musilingo_jax.training.examples import Examples
from musilingo_jax.training.packing import Features, RowShape, choose_shapes, fill, pack

# The shapes are chosen for a sample of batches: about this many examples, in at least
# this many batches, and at most this many.
_SAMPLED_EXAMPLES = 1 << 16
_SAMPLED_BATCHES = (16, 512)


class BatchPlan(NamedTuple):
    """Which examples a batch holds and in which rows, before any is read.

    Attributes:
      examples: indices in `Examples.records`, in the order in which they are drawn.
      rows: for each row, indices in `examples`.
    """

    examples: Int[np.ndarray, " batch_size"]
    rows: list[list[int]]


class Batches:
    """The training batches of one stage.

    Attributes:
      width: of the features.
      of_corpus: corpus of a mixture → number of its examples, each drawn once per
        epoch. A corpus without any is named on stderr.
      shapes: all shapes that the rows of a batch can have.
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
        """Fixes the order of all examples and chooses the shapes.

        Args:
          examples: to draw from.
          weights: how often each corpus of a mixture is drawn from; {} for one corpus.
          batch_size: examples per update, over all devices, processes and accumulated
            batches.
          rows: rows of tokens per update that these are packed into.
          seed: of the order and the crops.
          mesh: that the batches are put on.
        """
        self._examples, self._batch_size, self._rows = examples, batch_size, rows
        self._seed, self._sharding = seed, batch_sharding(mesh)
        self.width = examples.width
        corpora = [record.corpus for record in examples.records]
        self.of_corpus = {**dict.fromkeys(weights, 0), **Counter(corpora)}
        _print_unused_corpora(self.of_corpus, examples)
        self._order = mixture.order(corpora, weights, seed)
        # The loop and the thread that reads ahead ask about the same few steps.
        self._plan = functools.lru_cache(64)(self._plan_of_step)
        probability = np.asarray(
            [weights.get(name, 1.0) / self.of_corpus[name] for name in corpora]
        )
        self.shapes = choose_shapes(
            [
                _row_shape(examples, self._packed(drawn))
                for drawn in _sample(probability, batch_size, seed)
            ],
            examples.largest_row(-(-batch_size // rows)),
        )

    def clips(self, step: int) -> list[str]:
        """The clips of batch `step`, in the order in which they are drawn."""
        chosen = self._plan(step).examples
        return [self._examples.records[index].clip for index in chosen]

    def tokens(self, step: int) -> int:
        """Tokens in batch `step`, audio included, padding excluded."""
        return int(self._examples.lengths[self._plan(step).examples].sum())

    def windows(self, step: int) -> int:
        """Audio vectors in batch `step`."""
        return int(self._examples.windows[self._plan(step).examples].sum())

    def targets(self, step: int) -> int:
        """Target tokens in batch `step`."""
        return int(self._examples.answers[self._plan(step).examples].sum())

    def attended(self, step: int) -> int:
        """Pairs of positions in batch `step` of which one attends to the other.

        The first token of an example attends to itself and the last of n tokens to all
        n of them: n · (n + 1) / 2 pairs.
        """
        lengths = self._examples.lengths[self._plan(step).examples]
        return int((lengths * (lengths + 1)).sum()) // 2

    def padding(self, step: int) -> float:
        """The share of the places for tokens in batch `step` that is padding."""
        return 1 - self.tokens(step) / (self._rows * self.shape(step).length)

    def shape(self, step: int) -> RowShape:
        """The size of the rows of batch `step`: the first of `shapes` that holds it."""
        needed = _row_shape(self._examples, self._plan(step))
        return next(shape for shape in self.shapes if shape.holds(needed))

    def batch(self, step: int) -> Batch:
        """Batch `step`, counted from 0, as global arrays sharded over their rows."""
        plan, first = self._plan(step), step * self._batch_size

        def draw(index: int) -> tuple[Features, Example]:
            # The crop of the n-th example ever drawn depends on (seed, n) alone.
            rng = np.random.default_rng((self._seed, first + index))
            return self._examples.draw(int(plan.examples[index]), rng)

        return _assemble(plan, draw, self.shape(step), self.width, self._sharding)

    def _plan_of_step(self, step: int) -> BatchPlan:
        """The next `batch_size` examples of the endless stream, packed."""
        first = step * self._batch_size
        drawn = range(first, first + self._batch_size)
        return self._packed(np.asarray([self._order[n] for n in drawn]))

    def _packed(self, drawn: Int[np.ndarray, " batch_size"]) -> BatchPlan:
        return BatchPlan(drawn, pack(self._examples.lengths[drawn], self._rows))


class ValidationBatches(Sequence[Batch]):
    """A fixed set of examples in batches: `len(…)`, `…[i]`.

    They are the first examples of a shuffle by `seed`, each once, with long songs
    cropped in the middle. The last batch may hold fewer examples and empty rows. All
    batches have one shape, so that one program is compiled.

    Attributes:
      examples: number of examples in all batches together.
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
        """Chooses the examples.

        Args:
          examples: to choose from.
          most: number of examples to choose, if there are that many.
          batch_size: examples per batch, over all devices and processes.
          rows: rows of tokens per batch that these are packed into.
          seed: of the choice.
          mesh: that the batches are put on.
        """
        self._examples, self._sharding = examples, batch_sharding(mesh)
        order = np.random.default_rng(seed).permutation(len(examples.records))
        chosen = order[:most]
        self.examples = len(chosen)
        parts = [
            chosen[start : start + batch_size]
            for start in range(0, len(chosen), batch_size)
        ]
        self._plans = [
            BatchPlan(part, pack(examples.lengths[part], rows)) for part in parts
        ]
        needed = [_row_shape(examples, plan) for plan in self._plans]
        self._shape = functools.reduce(RowShape.join, needed).rounded()

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, index: int) -> Batch:
        plan = self._plans[index]

        def draw(index: int) -> tuple[Features, Example]:
            return self._examples.draw(int(plan.examples[index]), None)

        return _assemble(plan, draw, self._shape, self._examples.width, self._sharding)


def _sample(
    probability: np.ndarray, batch_size: int, seed: int
) -> Int[np.ndarray, "batches batch_size"]:
    """Examples of random batches, drawn in proportion to `probability`.

    They have the distribution of sizes that the training batches have, and cost less
    than following the order of the training batches for as many steps.
    """
    fewest, most = _SAMPLED_BATCHES
    batches = min(most, max(fewest, _SAMPLED_EXAMPLES // batch_size))
    return np.random.default_rng(seed).choice(
        len(probability),
        (batches, batch_size),
        p=probability / probability.sum(),
    )


def _row_shape(examples: Examples, plan: BatchPlan) -> RowShape:
    """The smallest size that holds each row of a batch."""
    rows = [[int(plan.examples[i]) for i in row] for row in plan.rows]
    return examples.row_shape(rows)


def _assemble(
    plan: BatchPlan,
    draw: Callable[[int], tuple[Features, Example]],
    shape: RowShape,
    width: int,
    sharding: jax.sharding.Sharding,
) -> Batch:
    """A batch of global arrays, of which each process reads its own rows.

    Args:
      plan: of the whole batch.
      draw: index in `plan.examples` → features and tokens of the example.
      shape: of a row.
      width: of the features.
      sharding: of the rows over devices.
    """
    count = len(plan.rows)
    blocks = {}  # (start, stop) → these rows, which several devices may hold.

    def block(index: slice) -> Batch:
        start, stop, _ = index.indices(count)
        if (start, stop) not in blocks:
            rows = [[draw(i) for i in row] for row in plan.rows[start:stop]]
            blocks[start, stop] = fill(rows, shape, width)
        return blocks[start, stop]

    def assemble(name: str, *tail: int) -> jax.Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # It is for scalars only.
            return getattr(block(index[0]), name)

        return jax.make_array_from_callback((count, *tail), sharding, part)

    return Batch(
        features=assemble("features", shape.windows, width),
        tokens=assemble("tokens", shape.length),
        audio_slot=assemble("audio_slot", shape.length),
        segments=assemble("segments", shape.length),
        positions=assemble("positions", shape.length),
        targets=assemble("targets", shape.answers),
    )


def _print_unused_corpora(of_corpus: Mapping[str, int], examples: Examples) -> None:
    """Names on stderr each corpus of a mixture that gives no example, and why."""
    unused = [name for name, count in of_corpus.items() if not count]
    if not unused or jax.process_index() != 0:
        return
    reasons = (
        f"{name} (none of its examples fits in max_tokens = {examples.max_tokens})"
        if examples.too_long[name]
        else f"{name} (none of its examples is of the stage's kind and has audio)"
        for name in unused
    )
    print_note(f"this stage does not train on {', '.join(reasons)}")
