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
from dataclasses import dataclass

import jax
import numpy as np

from musilingo_jax.answering.decoding import (
    Admission,
    AnswerTokens,
    Rows,
    TokenRule,
    admit,
    decode,
)
from musilingo_jax.answering.padded_prompts import (
    LENGTH_MULTIPLE,
    fill_up,
    pad,
    round_up,
    windows_for,
)
from musilingo_jax.answering.prefix_bank import PrefixBank
from musilingo_jax.answering.prompt_queue import PromptQueue, QueuedPrompt
from musilingo_jax.answering.prompt_reader import PromptReader, empty_cache
from musilingo_jax.answering.sampling import NO_TOKEN
from musilingo_jax.runtime.signals import check_signals

# Prefixes are padded to a multiple of this.
_PREFIX_MULTIPLE = 16
# There are this many waves of rows. Smaller waves leave fewer rows waiting for each
# other, larger ones read more prompts each time that the weights are read.
_WAVES = 8
_NO_LIMIT = int(np.iinfo(np.int32).max)


@dataclass(frozen=True)
class BatchShape:
    """The sizes of all arrays of a job.

    Attributes:
      wave: prompts that are admitted together.
      rows: prompts that are answered at the same time, a multiple of `wave`.
      windows: audio vectors that a prompt has room for.
      prefix_slots: tokens that a prefix has room for.
      slots: tokens that a row has room for.
      max_new_tokens: tokens that an answer has room for.
    """

    wave: int
    rows: int
    windows: int
    prefix_slots: int
    slots: int
    max_new_tokens: int

    @classmethod
    def of(
        cls,
        prompts: Sequence[QueuedPrompt],
        *,
        rows: int,
        row_shares: int,
        max_new_tokens: int,
    ) -> "BatchShape":
        """The sizes that fit all prompts.

        Args:
          prompts: at least one.
          rows: the least number of rows, if there are as many prompts.
          row_shares: divides the number of rows, and of a wave's.
          max_new_tokens: tokens of an answer at most.
        """
        rows = min(rows, len(prompts))
        wave = row_shares * math.ceil(rows / _WAVES / row_shares)
        prefix = max(prompt.prefix_length for prompt in prompts)
        rest = max(len(p.prompt.tokens) - p.prefix_length for p in prompts)
        prefix_slots = round_up(prefix, _PREFIX_MULTIPLE)
        return cls(
            wave=wave,
            rows=wave * math.ceil(rows / wave),
            windows=windows_for([prompt.prompt for prompt in prompts]),
            prefix_slots=prefix_slots,
            # An answer's last token is never read.
            slots=prefix_slots + round_up(rest, LENGTH_MULTIPLE) + max_new_tokens - 1,
            max_new_tokens=max_new_tokens,
        )


class ContinuousBatch:
    """A job: the prompts without a row, and the rows that generate the other answers.

    What is where:

        on the host       queue       prompts without a row
                          bank        prefix → its row in the bank's cache
                          answering   row → index of the prompt that it answers
        on the devices    bank        the cache of prefixes
                          rows        caches and tokens of the answers
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
        self._reader = reader
        self._rule: TokenRule = reader.replicate(rule)
        self._shape = shape = BatchShape.of(
            prompts,
            rows=rows,
            row_shares=reader.row_shares,
            max_new_tokens=max_new_tokens,
        )
        self._queue = PromptQueue(prompts)
        self._bank = PrefixBank(
            reader, wave=shape.wave, slots=shape.prefix_slots, windows=shape.windows
        )
        self._answering: dict[int, int] = {}
        self._rows = Rows.empty(
            empty_cache(reader, rows=shape.rows, slots=shape.slots, spread=True),
            reader.replicate(np.zeros(shape.rows, np.uint32)),
            max_new_tokens=shape.max_new_tokens,
            stop_state=rule.stops.finished,
        )

    def answers(self) -> Iterator[tuple[int, AnswerTokens]]:
        """Yields each prompt's index and its answer's tokens, as they are finished."""
        wave = self._shape.wave
        while self._queue or self._answering:
            check_signals()
            while self._queue and len(self._free_rows()) >= wave:
                self._admit()
            # While prompts are queued, until a wave is free; then, until any row is.
            free = len(self._free_rows())
            self._decode(enough=wave if self._queue else free + 1, steps=_NO_LIMIT)
            for row in self._finished_rows():
                yield self._answering.pop(row), self._tokens(row)

    def snapshots(self, steps: int) -> Iterator[AnswerTokens]:
        """Yields the answer so far of a job's only prompt, after every `steps` tokens.

        The first one holds one token, the last one all.
        """
        self._admit()
        (row,) = self._answering
        yield self._tokens(row)
        while row not in self._finished_rows():
            check_signals()
            self._decode(enough=self._shape.rows, steps=steps)
            yield self._tokens(row)

    def _free_rows(self) -> list[int]:
        return [row for row in range(self._shape.rows) if row not in self._answering]

    def _admit(self) -> None:
        """Gives free rows to the next wave of prompts."""
        shape = self._shape
        self._bank.prepare(self._queue)
        prompts = self._queue.next(shape.wave)
        rows = self._free_rows()[: len(prompts)]
        admission = Admission(
            prompts=pad(
                [prompt.rest for prompt in prompts],
                rows=shape.wave,
                multiple=LENGTH_MULTIPLE,
                windows=shape.windows,
                mesh=self._reader.mesh,
            ),
            prefixes=self._numbers([self._bank.row(p.prefix_key) for p in prompts], 0),
            places=self._numbers(rows, unused=shape.rows),
            seeds=self._numbers([p.seed for p in prompts], 0, dtype=np.uint32),
        )
        self._rows = admit(
            self._reader, self._rule, self._rows, self._bank.cache, admission
        )
        self._queue.remove(len(prompts))
        self._answering |= {r: p.index for r, p in zip(rows, prompts, strict=True)}

    def _numbers(
        self, values: Sequence[int], unused: int, *, dtype: type = np.int32
    ) -> jax.Array:
        """A number for each row of a wave, on the devices."""
        filled = fill_up(values, self._shape.wave, unused, dtype=dtype)
        return self._reader.replicate(filled)

    def _decode(self, *, enough: int, steps: int) -> None:
        """Generates until `enough` rows are free or finished, or for `steps` tokens."""
        self._rows = decode(
            self._reader,
            self._rule,
            self._rows,
            np.int32(min(enough, self._shape.rows)),
            np.int32(steps),
        )

    def _finished_rows(self) -> list[int]:
        state = np.asarray(self._rows.stop_state)
        finished = self._rule.stops.finished
        return [row for row in self._answering if state[row] == finished]

    def _tokens(self, row: int) -> AnswerTokens:
        tokens = np.asarray(self._rows.tokens)[row]
        return tokens[tokens != NO_TOKEN].tolist()
