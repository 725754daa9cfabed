"""Continuous batching: rows that have finished are given to queued prompts.

Answers differ in length tenfold. A batch that is held until its longest answer is
finished decodes with few rows for most of the time; here, rows are given to other
prompts as soon as a *wave* of them has finished (Yu et al. 2022, "Orca"):

    row 0   a a a|d d d d d d|f f …       a, b, c: the first answers
    row 1   b b b b b b b b b|g g …       d took the row that a had left
    row 2   c c|· e e e e e e e …       · waits for the rest of the wave

Prompts that begin alike (with the same clip, asked several questions) share the reading
of that beginning: it is read once, into a bank, and copied into each one's row.

All shapes are the same for a whole job, except the length of what a wave reads, which
is padded to a multiple of `LENGTH_MULTIPLE`. So few programs are compiled, whatever the
questions are.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from musilingo_jax.answering.decoding import AnswerTokens, TokenRule
from musilingo_jax.answering.padded_prompts import (
    LENGTH_MULTIPLE,
    round_up,
    windows_for,
)
from musilingo_jax.answering.prompt_queue import PromptQueue, QueuedPrompt
from musilingo_jax.answering.prompt_reader import PromptReader
from musilingo_jax.answering.row_batch import BatchShape, RowBatch
from musilingo_jax.runtime.signals import check_signals

# Prefixes are padded to a multiple of this.
_PREFIX_MULTIPLE = 16
# There are this many waves of rows. Smaller waves leave fewer rows waiting for each
# other, larger ones read more prompts each time that the weights are read.
WAVES = 8
_NO_LIMIT = int(np.iinfo(np.int32).max)


def shape_for(
    prompts: Sequence[QueuedPrompt],
    *,
    rows: int,
    row_shares: int,
    max_new_tokens: int,
) -> BatchShape:
    """The sizes that fit all prompts of a job.

    Args:
      prompts: at least one.
      rows: the least number of rows, if there are as many prompts.
      row_shares: divides the number of rows, and of a wave's.
      max_new_tokens: tokens of an answer at most.
    """
    rows = min(rows, len(prompts))
    wave = wave_of(rows, row_shares)
    prefix = max(prompt.prefix_length for prompt in prompts)
    rest = max(len(p.prompt.tokens) - p.prefix_length for p in prompts)
    prefix_slots = round_up(prefix, _PREFIX_MULTIPLE)
    return BatchShape(
        wave=wave,
        rows=wave * math.ceil(rows / wave),
        windows=windows_for([prompt.prompt for prompt in prompts]),
        prefix_slots=prefix_slots,
        prefix_multiple=prefix_slots,
        kept_prefixes=0,
        # An answer's last token is never read.
        slots=prefix_slots + round_up(rest, LENGTH_MULTIPLE) + max_new_tokens - 1,
        max_new_tokens=max_new_tokens,
        goes_on=False,
    )


def wave_of(rows: int, row_shares: int) -> int:
    """Prompts that are admitted together, for so many rows; divisible by the shares."""
    return row_shares * math.ceil(rows / WAVES / row_shares)


class ContinuousBatch:
    """A job: the prompts without a row, and the rows that generate the other answers.

    The waiting prompts are in a `PromptQueue`, the others in a `RowBatch`.
    """

    def __init__(
        self,
        reader: PromptReader,
        rule: TokenRule,
        prompts: Sequence[QueuedPrompt],
        *,
        rows: int,
        max_new_tokens: int,
    ):
        """Makes room for all; reads nothing yet.

        Args:
          reader: the model.
          rule: how tokens are chosen.
          prompts: at least one.
          rows: prompts that are answered at the same time; rounded up to what divides
            evenly into devices and waves.
          max_new_tokens: tokens of an answer at most.
        """
        self._rule: TokenRule = reader.replicate(rule)
        self._shape = shape_for(
            prompts,
            rows=rows,
            row_shares=reader.row_shares,
            max_new_tokens=max_new_tokens,
        )
        self._queue = PromptQueue(prompts)
        self._rows = RowBatch(reader, self._shape, finished=rule.stops.finished)

    def answers(self) -> Iterator[tuple[int, AnswerTokens]]:
        """Yields each prompt's index and its answer's tokens, as they are finished."""
        wave, rows = self._shape.wave, self._rows
        while self._queue or rows.answering:
            check_signals()
            while self._queue and len(rows.free) >= wave:
                self._admit()
            # While prompts are queued, until a wave is free; then, until any row is.
            enough = wave if self._queue else len(rows.free) + 1
            rows.decode(self._rule, enough=enough, steps=_NO_LIMIT)
            finished = rows.finished()
            for row, tokens in zip(finished, rows.tokens(finished), strict=True):
                yield rows.free_row(row).index, tokens

    def snapshots(self, steps: int) -> Iterator[AnswerTokens]:
        """Yields the answer so far of a job's only prompt, after every `steps` tokens.

        The first one holds one token, the last one all.
        """
        self._admit()
        yield from self._rows.tokens(self._rows.answering)
        while not self._rows.finished():
            check_signals()
            self._rows.decode(self._rule, enough=self._shape.rows, steps=steps)
            yield from self._rows.tokens(self._rows.answering)

    def _admit(self) -> None:
        """Gives free rows to the next wave of prompts."""
        rows = self._rows.rows_for(self._queue.next(self._shape.wave))
        self._rows.admit(self._rule, self._queue, rows, stop_states=[0] * len(rows))
