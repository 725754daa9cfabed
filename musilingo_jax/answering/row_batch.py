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
    Held,
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
from musilingo_jax.answering.row_texts import Beginning, RowTexts
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
      goes_on: whether conversations go on with what rows hold; if so, a prefix has as
        much room as a row.
    """

    wave: int
    rows: int
    windows: int
    prefix_slots: int
    prefix_multiple: int
    kept_prefixes: int
    slots: int
    max_new_tokens: int
    goes_on: bool


class RowBatch:
    """Rows with their prompts, some of them free.

    What is where:

        on the host       answering   row → the prompt that it answers
                          texts       row → what its cache holds, also if it is free
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
        self._texts = RowTexts()

    @property
    def free(self) -> list[int]:
        """The rows that answer no prompt."""
        return [row for row in range(self._shape.rows) if row not in self.answering]

    def rows_for(self, prompts: Sequence[QueuedPrompt]) -> list[int]:
        """The rows that the next prompts of a queue get, at most as many as are free.

        A conversation gets the row that it had, others those whose text is oldest.
        """
        free = self._texts.longest_silent(self.free)
        begun = [self._texts.beginning(prompt) for prompt in prompts]
        own = [begin.row if begin and begin.row in free else None for begin in begun]
        rows = [None if row in own[:place] else row for place, row in enumerate(own)]
        others = iter([row for row in free if row not in rows])
        return [next(others) if row is None else row for row in rows]

    def admit(
        self,
        rule: TokenRule,
        queue: PromptQueue,
        rows: Sequence[int],
        stop_states: Sequence[int],
    ) -> list[int]:
        """Gives rows to the next prompts of a queue.

        Args:
          rule: for the rows of the wave, those of the prompts first.
          queue: what waits; the prompts are removed from it.
          rows: as `rows_for` has chosen them; at most as many as a wave has.
          stop_states: the state of the stops in which each prompt's answer begins.

        Returns:
          Tokens of each prompt that were read for others, or for earlier turns.
        """
        shape = self._shape
        prompts = queue.next(len(rows))
        begun = [self._texts.beginning(prompt) for prompt in prompts]
        both = list(zip(prompts, begun, strict=True))
        known = self._bank.prepare([p for p, begin in both if begin is None], queue)
        cuts = [begin.length if begin else p.prefix_length for p, begin in both]
        most = shape.max_new_tokens
        limits = [most if p.limit is None else p.limit for p in prompts]
        prefixes = [0 if begin else self._bank.row(p.prefix_key) for p, begin in both]
        admission = Admission(
            prompts=pad(
                [p.prompt.split(cut)[1] for p, cut in zip(prompts, cuts, strict=True)],
                rows=shape.wave,
                multiple=LENGTH_MULTIPLE,
                windows=max(shape.windows, windows_for([p.prompt for p in prompts])),
                mesh=self._reader.mesh,
            ),
            prefixes=self._numbers(prefixes, 0),
            held=self._held(begun) if shape.goes_on else None,
            places=self._numbers(rows, unused=shape.rows),
            seeds=self._numbers([p.seed for p in prompts], 0, dtype=np.uint32),
            limits=self._numbers(limits, most),
            stop_states=self._numbers(stop_states, self._finished),
        )
        self._rows = admit(self._reader, rule, self._rows, self._bank.cache, admission)
        queue.remove(len(prompts))
        self.answering |= dict(zip(rows, prompts, strict=True))
        if shape.goes_on:
            for row, prompt in zip(rows, prompts, strict=True):
                self._texts.begin(row, prompt)
        return [
            cut if begin or prompt.prefix_key in known else 0
            for (prompt, begin), cut in zip(both, cuts, strict=True)
        ]

    def _held(self, begun: Sequence[Beginning | None]) -> Held:
        """What the prompts of a wave begin with that rows hold."""
        found = [begin or Beginning(0, 0) for begin in begun]
        return Held(
            rows=self._numbers([begin.row for begin in found], 0),
            lengths=self._numbers([begin.length for begin in found], 0),
        )

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
        if self._shape.goes_on:
            self._texts.extend(row, *self.tokens([row]))
        return self.answering.pop(row)

    def stop(self, row: int) -> None:
        """Frees a row in the middle of its answer."""
        state = np.asarray(self._rows.stop_state).copy()
        state[row] = self._finished
        self._rows = replace(self._rows, stop_state=self._reader.replicate(state))
        self.free_row(row)

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
