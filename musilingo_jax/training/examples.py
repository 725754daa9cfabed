"""What a stage learns from: the records that fit, measured once and encoded when drawn.

How long each example is decides where it stands in a batch, so all are tokenised before
the first batch, and only their lengths kept; a few integers per record.
"""

from collections import Counter
from collections.abc import Sequence

import jax
import numpy as np

from musilingo_jax.answering import prompts
from musilingo_jax.answering.prompts import Example, PromptConfig
from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.audio.features import crop
from musilingo_jax.corpora.records import Record
from musilingo_jax.pretrained.tokenizer import Tokenizer
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training.packing import Features, RowShape


class Examples:
    """Records that fit into `max_tokens`.

    Attributes:
      records: those that fit, in their order.
      lengths: int[records], tokens of each, audio included.
      windows: int[records], audio vectors of each.
      answers: int[records], tokens to be said of each.
      width: of the features.
      max_tokens: most tokens that an example may have.
      too_long: how many records of each corpus do not fit.
      cut: how many answers are cut at `prompt.max_answer_tokens`, end sign kept.
    """

    def __init__(
        self,
        records: Sequence[Record],
        features: FeatureCache,
        tokenizer: Tokenizer,
        prompt: PromptConfig,
        *,
        max_tokens: int,
        max_windows: int,
    ):
        """Measures every record; its tokens are made again when it is drawn.

        Args:
          records: the questions and answers.
          features: the cache of all their clips.
          tokenizer: the language model's.
          prompt: the conversation around each song.
          max_tokens: longest example, audio included.
          max_windows: longer songs are cropped to this many windows.

        Raises:
          UserError: no example fits `max_tokens`.
        """
        self._features, self._tokenizer, self._prompt = features, tokenizer, prompt
        self._max_windows, self.max_tokens = max_windows, max_tokens
        self.records, sizes, self.cut = [], [], 0
        self.too_long: Counter[str] = Counter()
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
                self.records.append(record)
                sizes.append((len(example.tokens), heard, sum(example.target_mask)))
                self.cut += example.cut
            else:
                self.too_long[record.corpus] += 1
        if not self.records:
            raise UserError(
                f"none of the {len(records)} examples fits in max_tokens = {max_tokens}"
                ": raise max_tokens, or lower max_windows"
            )
        self.lengths, self.windows, self.answers = np.asarray(sizes, np.int64).T
        self.width = features.features(self.records[0].clip).shape[1]

    def need(self, rows: Sequence[Sequence[int]]) -> RowShape:
        """The size of row that holds each of `rows`, given as places in `records`."""
        return RowShape(
            *(
                max(int(sizes[list(row)].sum()) for row in rows)
                for sizes in (self.lengths, self.windows, self.answers)
            )
        )

    def largest(self, per_row: int) -> RowShape:
        """The size of row that holds any so many examples."""
        return RowShape(
            *(
                per_row * int(sizes.max())
                for sizes in (self.lengths, self.windows, self.answers)
            )
        )

    def draw(
        self, place: int, rng: np.random.Generator | None
    ) -> tuple[Features, Example]:
        """Features and tokens of an example; a long song is cropped by `rng`."""
        record = self.records[place]
        features = crop(self._features.features(record.clip), self._max_windows, rng)
        return features, self._encode(record, len(features))

    def _encode(self, record: Record, windows: int) -> Example:
        return prompts.encode(
            self._tokenizer, self._prompt, record.question, record.answer, windows
        )
