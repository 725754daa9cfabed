"""Records and cached features → padded global batches, by step number.

Batch `s` is a pure function of (seed, `s`): nothing is carried from one batch to the
next, so a run that stops at any step goes on as if it had not, on any number of
processes and devices. Each process reads only the rows that its devices hold.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Float

from musilingo_jax import cli, prompts
from musilingo_jax.cache import Cache
from musilingo_jax.corpora import mixture
from musilingo_jax.corpora.records import Record
from musilingo_jax.errors import UserError
from musilingo_jax.models.musilingo import Batch
from musilingo_jax.prompts import Example, PromptConfig
from musilingo_jax.sharding import batch_sharding
from musilingo_jax.tokenizer import Tokenizer

Features = Float[np.ndarray, "windows width"]


def crop(
    features: Features, max_windows: int, rng: np.random.Generator | None
) -> Features:
    """At most `max_windows` windows in a row: at random, or the middle without `rng`.

    7 windows, 3 wanted, without rng:   . . ♪ ♪ ♪ . .
    """
    spare = max(0, len(features) - max_windows)
    start = spare // 2 if rng is None else rng.integers(spare + 1)
    return features[start : start + max_windows]


def pad(
    rows: Sequence[tuple[Features, Example]], *, windows: int, length: int, answer: int
) -> Batch:
    """Stacks examples into a batch in host memory, padded on the right.

    One example of 1 window in a row of `length` 6, with room for an `answer` of 3:

        text         <s>  ♪  Jazz  .  \\n            targets  2 3 4
        audio_slot    -1  0    -1 -1  -1  -1
        segments       1  1     1  1   1   0
        positions      0  1     2  3   4   0

    Args:
      rows: for each example its features and its tokens.
      windows: audio vectors per row, at least the largest of the examples.
      length: tokens per row, at least the longest of the examples.
      answer: target positions per row, at least the most of the examples.
    """
    count, width = len(rows), rows[0][0].shape[1]
    batch = Batch(
        features=np.zeros((count, windows, width), np.float32),
        tokens=np.zeros((count, length), np.int32),
        audio_slot=np.full((count, length), -1, np.int32),
        segments=np.zeros((count, length), np.int32),
        positions=np.zeros((count, length), np.int32),
        targets=np.full((count, answer), -1, np.int32),
    )
    for row, (features, example) in enumerate(rows):
        size, targets = len(example.tokens), np.flatnonzero(example.target_mask)
        batch.features[row, : len(features)] = features
        batch.tokens[row, :size] = example.tokens
        batch.audio_slot[row, :size] = example.audio_slot
        batch.segments[row, :size] = 1
        batch.positions[row, :size] = np.arange(size)
        batch.targets[row, : len(targets)] = targets
    return batch


class Batches:
    """The training batches of one stage.

    Attributes:
      examples: how many examples are drawn from, each once per epoch.
      of_corpus: how many of them are of which corpus of a mixture; corpora without any
        are told on stderr.
      too_long: how many were left out because they do not fit `max_tokens`.
      cut: how many answers are cut at `prompt.max_answer_tokens`, end sign kept.
    """

    def __init__(
        self,
        records: Sequence[Record],
        features: Cache,
        tokenizer: Tokenizer,
        prompt: PromptConfig,
        weights: Mapping[str, float],
        *,
        rows: int,
        max_tokens: int,
        max_windows: int,
        seed: int,
        mesh: jax.sharding.Mesh,
    ):
        """Measures every record once; its tokens are made again when it is drawn.

        Args:
          records: the questions and answers.
          features: the cache of all their clips.
          tokenizer: the language model's.
          prompt: the conversation around each song.
          weights: how often each corpus of a mixture is drawn from; {} for one corpus.
          rows: examples per batch, over all devices and processes.
          max_tokens: longest sequence, audio included.
          max_windows: longer songs are cropped to this many windows, anew each time.
          seed: of the order and the crops.
          mesh: where the batches go.

        Raises:
          UserError: no example fits `max_tokens`.
        """
        self._features, self._tokenizer, self._prompt = features, tokenizer, prompt
        self._rows, self._max_tokens, self._max_windows = rows, max_tokens, max_windows
        self._sharding = batch_sharding(mesh)

        kept, lengths, answers, audio = [], [], [], []
        self.cut = 0
        for record in cli.progress(
            records,
            total=len(records),
            unit="examples",
            label="measuring",
            disable=jax.process_index() != 0,
        ):
            heard = min(features.windows(record.clip), max_windows)
            example = self._encode(record, heard)
            if len(example.tokens) <= max_tokens:
                kept.append(record)
                lengths.append(len(example.tokens))
                answers.append(sum(example.target_mask))
                audio.append(heard)
                self.cut += example.cut
        if not kept:
            raise UserError(
                f"none of the {len(records)} examples fits in max_tokens = {max_tokens}"
                ": raise max_tokens, or lower max_windows"
            )
        self.examples, self.too_long = len(kept), len(records) - len(kept)
        self._records, self._lengths = kept, np.asarray(lengths)
        self._windows, self._answer = max(audio), max(answers)
        corpora = [record.corpus for record in kept]
        self.of_corpus = {**dict.fromkeys(weights, 0), **Counter(corpora)}
        unused = [name for name, count in self.of_corpus.items() if not count]
        if unused and jax.process_index() == 0:
            offered = {record.corpus for record in records}
            said = (
                f"{name} (none of its examples fits in max_tokens = {max_tokens})"
                if name in offered
                else f"{name} (none of its examples is of this kind and can be heard)"
                for name in unused
            )
            print(f"this stage does not learn from {', '.join(said)}", file=sys.stderr)
        self._order = mixture.order(corpora, weights, seed)
        self._drawn = self._order.random_map(self._draw)

    def clips(self, step: int) -> list[str]:
        """The clips of batch `step`, in its order."""
        return [self._records[self._order[i]].clip for i in self._places(step)]

    def tokens(self, step: int) -> int:
        """How many tokens batch `step` holds, audio included and padding not."""
        return int(sum(self._lengths[self._order[i]] for i in self._places(step)))

    def batch(self, step: int) -> Batch:
        """Batch `step` as global arrays, sharded over their rows.

        The number of windows and of targets is the same in all batches; the length is
        one of four, so that there are few programs to compile.
        """
        places = self._places(step)
        length = self._length(max(self._lengths[self._order[i]] for i in places))
        blocks = {}  # A block of rows is shared by the devices that hold copies of it.

        def block(rows: slice) -> Batch:
            start, stop, _ = rows.indices(self._rows)
            if (start, stop) not in blocks:
                blocks[start, stop] = pad(
                    [self._drawn[i] for i in places[start:stop]],
                    windows=self._windows,
                    length=length,
                    answer=self._answer,
                )
            return blocks[start, stop]

        def assemble(name: str, tail: tuple[int, ...]) -> jax.Array:
            return jax.make_array_from_callback(
                (self._rows, *tail),
                self._sharding,
                lambda index: getattr(block(index[0]), name),
            )

        width = self._features.features(self._records[0].clip).shape[1]
        return Batch(
            features=assemble("features", (self._windows, width)),
            tokens=assemble("tokens", (length,)),
            audio_slot=assemble("audio_slot", (length,)),
            segments=assemble("segments", (length,)),
            positions=assemble("positions", (length,)),
            targets=assemble("targets", (self._answer,)),
        )

    def _places(self, step: int) -> range:
        """Where batch `step` lies in the endless stream of shuffled epochs."""
        return range(step * self._rows, (step + 1) * self._rows)

    def _length(self, longest: int) -> int:
        """`longest`, rounded up to a quarter of what the longest example takes."""
        quarter = 8 * -(-int(self._lengths.max()) // 32)
        return min(quarter * -(-int(longest) // quarter), self._max_tokens)

    def _encode(self, record: Record, windows: int) -> Example:
        return prompts.encode(
            self._tokenizer, self._prompt, record.question, record.answer, windows
        )

    def _draw(self, index: int, rng: np.random.Generator) -> tuple[Features, Example]:
        record = self._records[index]
        features = crop(self._features.features(record.clip), self._max_windows, rng)
        return features, self._encode(record, len(features))
