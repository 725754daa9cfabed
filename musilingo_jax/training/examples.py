"""The examples of a stage: records that fit, measured once and encoded when drawn.

An example's length decides which row of a batch it goes to, so all records are
tokenised before the first batch. Only their sizes are kept, a few integers per record.
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
from musilingo_jax.models.bridges import Bridge
from musilingo_jax.pretrained.tokenizer import Tokenizer
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training.packing import Features, RowShape


class Examples:
    """Records with at most `max_tokens` tokens.

    Attributes:
      records: those that fit, in their order.
      lengths: int64[records], tokens of each, audio included; of two instructions, with
        the longer one.
      windows: int64[records], rows of features of each.
      answers: int64[records], target tokens of each.
      width: of the features.
      max_tokens: longest example.
      too_long: corpus → number of its records that do not fit.
      cut: number of answers cut to `prompt.max_answer_tokens`, end sign kept.
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
        bridge: type[Bridge],
    ):
        """Tokenises every record to measure it.

        Args:
          records: questions and answers.
          features: the cache that holds all of their clips.
          tokenizer: of the language model.
          prompt: the text around the audio.
          max_tokens: longest example, audio included.
          max_windows: longer songs are cropped to this many windows.
          bridge: what reads the features. If it splices, each row of features is a
            vector among the tokens, of which a song may have fewer; if not, all rows of
            features are needed and none takes a place.

        Raises:
          UserError: no record fits `max_tokens`.
        """
        self._features, self._tokenizer = features, tokenizer
        self._prompts = [one for one in (prompt, prompt.other) if one is not None]
        self._max_windows, self.max_tokens = max_windows, max_tokens
        self._bridge = bridge
        self.records, sizes, self.cut = [], [], 0
        self.too_long: Counter[str] = Counter()
        for record in cli.progress(
            records,
            total=len(records),
            unit="examples",
            label="measuring",
            disable=jax.process_index() != 0,
        ):
            windows = features.windows(record.clip)
            if bridge.splices:
                windows = min(windows, max_windows)
            found = [self._encode(record, windows, one) for one in self._prompts]
            length = max(len(example.tokens) for example in found)
            if length > max_tokens:
                self.too_long[record.corpus] += 1
                continue
            self.records.append(record)
            sizes.append((length, windows, sum(found[0].target_mask)))
            self.cut += found[0].cut
        if not self.records:
            raise UserError(
                f"none of the {len(records)} examples fits in max_tokens = {max_tokens}"
                ": raise max_tokens, or lower max_windows"
            )
        self.lengths, self.windows, self.answers = np.asarray(sizes, np.int64).T
        self.width = features.features(self.records[0].clip).shape[1]

    def row_shape(self, rows: Sequence[Sequence[int]]) -> RowShape:
        """The smallest size that holds each of the rows of indices in `records`."""
        return RowShape(
            *(
                max(int(sizes[list(row)].sum()) for row in rows)
                for sizes in (self.lengths, self.windows, self.answers)
            )
        )

    def largest_row(self, examples: int) -> RowShape:
        """The smallest size that holds any row of that many examples."""
        return RowShape(
            *(
                examples * int(sizes.max())
                for sizes in (self.lengths, self.windows, self.answers)
            )
        )

    def draw(
        self, index: int, rng: np.random.Generator | None
    ) -> tuple[Features, Example]:
        """Features and tokens of an example.

        Args:
          index: in `records`.
          rng: draws where a long song is cropped, and which of two instructions is
            used; None crops it in the middle, and uses the first.
        """
        record = self.records[index]
        features = self._features.features(record.clip)
        if self._bridge.splices:
            features = crop(features, self._max_windows, rng)
        prompt = self._prompts[0]
        if rng is not None and len(self._prompts) > 1:
            prompt = self._prompts[rng.integers(len(self._prompts))]
        return features, self._encode(record, len(features), prompt)

    def _encode(self, record: Record, windows: int, prompt: PromptConfig) -> Example:
        return prompts.encode(
            self._tokenizer,
            prompt,
            record.question,
            record.answer,
            windows if self._bridge.splices else 0,
            marks=self._bridge.marks,
        )
