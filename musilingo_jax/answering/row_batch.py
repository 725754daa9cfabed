"""Rows that generate answers, and how prompts get into them and answers out.

The part that is common to a job over given prompts (`continuous_batching.py`) and to a
batch that requests join at any time (`live_batch.py`): which prompt has which row, and
the calls of the compiled programs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

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
    windows_for,
)
from musilingo_jax.answering.prefix_bank import PrefixBank
from musilingo_jax.answering.prompt_queue import PromptQueue, QueuedPrompt
from musilingo_jax.answering.prompt_reader import PromptReader, empty_cache
from musilingo_jax.answering.sampling import NO_TOKEN


@dataclass(frozen=True)
class BatchShape:
    """The sizes of all arrays.

    Attributes:
      wave: prompts that are admitted together.
      rows: prompts that are answered at the same time, a multiple of `wave`.
      windows: audio vectors that a prompt has room for; if one has more, it and those
        that are admitted with it get as much room.
      prefix_slots: tokens that a prefix has room for.
      prefix_multiple: prefixes are padded to a multiple of this many tokens.
      kept_prefixes: prefixes that are kept when no waiting prompt needs them.
      slots: tokens that a row has room for.
      max_new_tokens: tokens that an answer has room for.
    """

    wave: int
    rows: int
    windows: int
    prefix_slots: int
    prefix_multiple: int
    kept_prefixes: int
    slots: int
    max_new_tokens: int


class RowBatch:
    """Rows with their prompts, some of them free.

    What is where:

        on the host       answering   row → the prompt that it answers
        on the devices    bank        the cache of prefixes
                          rows        caches and tokens of the answers

    Attributes:
      answering: see above.
    """

    def __init__(self, reader: PromptReader, shape: BatchShape, *, finished: int):
        """Makes room for all; reads nothing yet.

        Args:
          reader: the model.
          shape: the sizes.
          finished: the state of the stops in which a row is finished.
        """
        self._reader, self._shape, self._finished = reader, shape, finished
        self._bank = PrefixBank(
            reader,
            wave=shape.wave,
            slots=shape.prefix_slots,
            windows=shape.windows,
            multiple=shape.prefix_multiple,
            kept=shape.kept_prefixes,
        )
        rows = Rows.empty(
            empty_cache(reader, rows=shape.rows, slots=shape.slots, spread=True),
            reader.replicate(np.zeros(shape.rows, np.uint32)),
            max_new_tokens=shape.max_new_tokens,
            stop_state=finished,
        )
        # Where the programs leave them: else each would be compiled twice.
        others = {
            name: reader.replicate(getattr(rows, name))
            for name in ("tokens", "count", "stop_state", "limits")
        }
        self._rows = replace(rows, **others)
        self.answering: dict[int, QueuedPrompt] = {}

    @property
    def free(self) -> list[int]:
        """The rows that answer no prompt."""
        return [row for row in range(self._shape.rows) if row not in self.answering]

    def admit(
        self, rule: TokenRule, queue: PromptQueue, stop_states: Sequence[int]
    ) -> None:
        """Gives the first free rows to the next prompts of a queue.

        Args:
          rule: for the rows of the wave, as many prompts as there are states first.
          queue: what waits; the prompts are removed from it.
          stop_states: the state of the stops in which each prompt's answer begins; at
            most as many as a wave has rows, as are free, and as prompts wait.
        """
        shape = self._shape
        self._bank.prepare(queue)
        prompts = queue.next(len(stop_states))
        rows = self.free[: len(prompts)]
        most = shape.max_new_tokens
        limits = [most if p.limit is None else p.limit for p in prompts]
        admission = Admission(
            prompts=pad(
                [prompt.rest for prompt in prompts],
                rows=shape.wave,
                multiple=LENGTH_MULTIPLE,
                windows=max(shape.windows, windows_for([p.prompt for p in prompts])),
                mesh=self._reader.mesh,
            ),
            prefixes=self._numbers([self._bank.row(p.prefix_key) for p in prompts], 0),
            places=self._numbers(rows, unused=shape.rows),
            seeds=self._numbers([p.seed for p in prompts], 0, dtype=np.uint32),
            limits=self._numbers(limits, most),
            stop_states=self._numbers(stop_states, self._finished),
        )
        self._rows = admit(self._reader, rule, self._rows, self._bank.cache, admission)
        queue.remove(len(prompts))
        self.answering |= dict(zip(rows, prompts, strict=True))

    def decode(self, rule: TokenRule, *, enough: int, steps: int) -> None:
        """Generates until `enough` rows are free or finished, or for `steps` tokens."""
        self._rows = decode(
            self._reader,
            rule,
            self._rows,
            np.int32(min(enough, self._shape.rows)),
            np.int32(steps),
        )

    def finished(self) -> list[int]:
        """The rows whose answers are finished."""
        state = np.asarray(self._rows.stop_state)
        return [row for row in self.answering if state[row] == self._finished]

    def free_row(self, row: int) -> QueuedPrompt:
        """Frees a row that has finished; returns the prompt that it answered."""
        return self.answering.pop(row)

    def stop(self, row: int) -> None:
        """Frees a row in the middle of its answer."""
        state = np.asarray(self._rows.stop_state).copy()
        state[row] = self._finished
        self._rows = replace(self._rows, stop_state=self._reader.replicate(state))
        del self.answering[row]

    def tokens(self, rows: Iterable[int]) -> list[AnswerTokens]:
        """The answers so far in some rows."""
        tokens = np.asarray(self._rows.tokens)
        return [tokens[row][tokens[row] != NO_TOKEN].tolist() for row in rows]

    def _numbers(
        self, values: Sequence[int], unused: int, *, dtype: type = np.int32
    ) -> jax.Array:
        """A number for each row of a wave, on the devices."""
        filled = fill_up(values, self._shape.wave, unused, dtype=dtype)
        return self._reader.replicate(filled)
