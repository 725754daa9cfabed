"""How each row of a live batch chooses its tokens, and what ends its answer."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.decoding import TokenRule
from musilingo_jax.answering.prompt_reader import PromptReader
from musilingo_jax.answering.sampling import (
    Choice,
    Greedy,
    MinimumLength,
    Processor,
    RepetitionPenalty,
    Sample,
)
from musilingo_jax.answering.stop_texts import Stops
from musilingo_jax.runtime.errors import UserError

# Room for the automaton of one row's stop texts: letters in all, and kinds of tokens.
_STATES, _KINDS = 128, 256
# Field of `GenerateConfig` → the type of its numbers.
_NUMBERS: dict[str, type] = {
    "repetition_penalty": np.float32,
    "min_new_tokens": np.int32,
    "temperature": np.float32,
    "top_k": np.int32,
    "top_p": np.float32,
    "min_p": np.float32,
}


def check_stops(stops: Stops) -> None:
    """Checks that a row has room for its stop texts.

    Raises:
      UserError: it has not.
    """
    states, kinds = stops.table.shape
    if states > _STATES or kinds > _KINDS:
        raise UserError(
            f"the texts that end an answer are too long together: at most about "
            f"{_STATES} letters fit; give fewer or shorter ones as stop"
        )


class RowSettings:
    """The settings of all rows, on the host, and copies of them on the devices.

    All numbers are arrays, and all automata have equal room, so that no program is
    compiled anew for another temperature or another stop text. Which steps a program
    has at all depends on the rows that need them: as long as all are greedy, nothing is
    sorted or drawn. A step leaves rows as they are that do not need it, to the bit.

    The automata stand below each other in one table:

        row 0    0 … 127      begins in state 0
        row 1    128 … 255    begins in state 128
        …                     all are finished in the last state of all
    """

    def __init__(self, reader: PromptReader, *, rows: int):
        """Makes room for the settings of `rows` rows.

        Args:
          reader: the model.
          rows: of the batch.
        """
        self._reader = reader
        self.finished = rows * _STATES - 1
        vocab = reader.llama.config.vocab
        self._table = np.full((rows * _STATES, _KINDS), self.finished, np.int32)
        self._kind = np.zeros((rows, vocab), np.int16)
        self._stops: list[Stops | None] = [None] * rows
        self._on_devices: Stops | None = None
        self._configs: list[GenerateConfig | None] = [None] * rows

    def set(self, row: int, config: GenerateConfig, stops: Stops) -> int:
        """Gives a row its settings.

        Args:
          row: its number.
          config: how its answer is decoded.
          stops: what ends its answer; `check_stops` has seen it.

        Returns:
          The state of the stops in which its answer begins.
        """
        self._configs[row] = config
        first = row * _STATES
        if self._stops[row] is not stops:
            table = np.asarray(stops.table)
            states, kinds = table.shape
            moved = np.where(table == states - 1, self.finished, table + first)
            self._table[first : first + states - 1, :kinds] = moved[:-1]
            self._kind[row] = np.asarray(stops.kind)[0]
            self._stops[row], self._on_devices = stops, None
        return first

    def rule(self, rows: Sequence[int], *, size: int | None = None) -> TokenRule:
        """How tokens are chosen in some rows.

        Args:
          rows: those that generate.
          size: None for a rule of all rows of the batch, each at its place; else the
            number of rows of another batch, of which these are the first.
        """
        places = list(rows) if size is None else list(range(len(rows)))
        size = len(self._configs) if size is None else size
        needed = [self._configs[row] for row in rows]
        numbers: dict[str, Any] = {}
        for name, dtype in _NUMBERS.items():
            # Rows that generate nothing have numbers that change nothing.
            values = np.full((size, 1), name in ("repetition_penalty", "top_p"), dtype)
            values[places, 0] = [getattr(config, name) for config in needed]
            numbers[name] = values
        processors: list[Processor] = []
        if (numbers["repetition_penalty"] != 1).any():
            processors.append(RepetitionPenalty(numbers["repetition_penalty"]))
        if (numbers["min_new_tokens"] > 0).any():
            processors.append(MinimumLength(numbers["min_new_tokens"]))
        method: Greedy | Sample = Greedy()
        if (numbers["temperature"] > 0).any():
            names = ("temperature", "top_k", "top_p", "min_p")
            method = Sample(*(numbers[name] for name in names))
        choice: Choice = self._reader.replicate(Choice(tuple(processors), method))
        return TokenRule(choice, self._automata())

    def _automata(self) -> Stops:
        """The table of all rows, on the devices."""
        if self._on_devices is None:
            # Copies: the device may still read what the host changes next.
            arrays: tuple[jax.Array, jax.Array] = self._reader.replicate(
                (self._table.copy(), self._kind.copy())
            )
            self._on_devices = Stops(*arrays)
        return self._on_devices
