"""Continuous batching: rows that have finished are given to prompts that wait.

Answers differ in length tenfold. A batch that is held until its longest answer is done
speaks with a few rows most of the time; here, a row is taken anew as soon as a *wave*
of rows has finished (Yu et al. 2022, "Orca"):

    row 0   a a a|d d d d d d|f f …       a, b, c: the first answers
    row 1   b b b b b b b b b|g g …       d took the row that a had left
    row 2   c c|· e e e e e e e e …       · waits for the rest of the wave

Prompts that begin alike (with the same clip, asked several questions) share the reading
of that beginning: it is read once, into a bank, and copied into each one's row. Every
prompt is cut at the same place, after its audio, whoever else is there: what is read
together with what depends on the prompt alone.

All shapes are the same for a whole job but for the length of what a wave reads, which
is padded to a multiple of `BUCKET`. So few programs are compiled, whatever is asked.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Int32

from musilingo_jax.answering.decoding import (
    Prompts,
    Rows,
    admit,
    empty_cache,
    read_prefixes,
    speak,
)
from musilingo_jax.answering.sampling import Choice
from musilingo_jax.answering.stop_texts import Stops
from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.llama import Llama
from musilingo_jax.runtime.sharding import batch_sharding, replicated
from musilingo_jax.runtime.signals import check_signals

# Lengths are padded to multiples of these.
BUCKET = 32
PREFIX_BUCKET = 16
# A wave is this part of all rows. Smaller ones leave fewer rows waiting for each other,
# larger ones read more prompts while the weights are at hand.
WAVES = 8


@dataclass(frozen=True)
class PromptTokens:
    """Tokens with audio among them: a prompt, or a part of one."""

    features: np.ndarray  # float32[windows, width]; the whole clip's
    tokens: tuple[int, ...]
    audio_slot: tuple[int, ...]  # as long; audio vector here, -1 = text token

    def cut(self, place: int) -> tuple["PromptTokens", "PromptTokens"]:
        """What stands before a place, and the rest."""
        return tuple(
            PromptTokens(self.features, self.tokens[part], self.audio_slot[part])
            for part in (slice(place), slice(place, None))
        )


@dataclass(frozen=True)
class QueuedPrompt:
    """A prompt that wants a row.

    Attributes:
      index: its number among all.
      text: the whole of it.
      seed: of its draws.
    """

    index: int
    text: PromptTokens
    seed: int

    @cached_property
    def place(self) -> int:
        """Where it is cut: after its audio; without any it is not cut.

        Something must be left to be read last, for the first token of the answer is
        said after it: the last audio vector, if nothing else.
        """
        heard = [i for i, slot in enumerate(self.text.audio_slot) if slot >= 0]
        return min(heard[-1] + 1 if heard else 0, len(self.text.tokens) - 1)

    @property
    def prefix(self) -> PromptTokens:
        """What is before and in its audio; may be empty."""
        return self.text.cut(self.place)[0]

    @property
    def rest(self) -> PromptTokens:
        """What comes after; not empty."""
        return self.text.cut(self.place)[1]

    @cached_property
    def key(self) -> tuple:
        """Equal for prompts that begin with the same prefix."""
        song = self.text.features.tobytes() if self.place else b""
        return self.prefix.tokens, self.prefix.audio_slot, song


class ContinuousBatch:
    """The rows of a job, the prompts that wait for them, and the bank of prefixes."""

    def __init__(
        self,
        adapter: Adapter,
        llama: Llama,
        waiting: Sequence[QueuedPrompt],
        stops: Stops,
        choice: Choice,
        *,
        rows: int,
        most: int,
        mesh: jax.sharding.Mesh | None,
    ):
        """Nothing is read yet.

        Args:
          adapter: pooled audio → word embeddings.
          llama: the language model.
          waiting: the prompts, at least one.
          stops: what ends an answer.
          choice: how a token is chosen.
          rows: prompts that are answered at the same time; it is rounded up to what
            can be dealt out evenly to devices and waves.
          most: tokens of an answer.
          mesh: the devices that the model was loaded onto; None for the default one.
        """
        self.adapter, self.llama, self.mesh = adapter, llama, mesh
        self.stops, self.choice = self._on_all(stops), choice
        shares = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
        rows = min(rows, len(waiting))
        self.wave = shares * math.ceil(rows / WAVES / shares)
        self.count = self.wave * math.ceil(rows / self.wave)
        # Prompts of one clip follow each other, so that the bank can be small.
        first = {}
        for prompt in waiting:
            first.setdefault(prompt.key, len(first))
        self.waiting = sorted(waiting, key=lambda prompt: first[prompt.key])
        self.wanted = Counter(prompt.key for prompt in waiting)
        self.windows = windows_of([prompt.text for prompt in waiting])
        self.prefix = round_up(max(p.place for p in waiting), PREFIX_BUCKET)
        rest = max(len(prompt.text.tokens) - prompt.place for prompt in waiting)
        self.places: dict[tuple, int] = {}  # where in the bank a prefix lies
        self.speaking: dict[int, int] = {}  # row → index of its prompt
        # A wave may need a prefix for each of its rows while it reads as many new ones.
        self.bank = empty_cache(
            llama, rows=2 * self.wave, slots=self.prefix, spread=False, mesh=mesh
        )
        # The last token said is never read.
        slots = self.prefix + round_up(rest, BUCKET) + most - 1
        self.rows = Rows.silent(
            empty_cache(llama, rows=self.count, slots=slots, spread=True, mesh=mesh),
            self._on_all(np.zeros(self.count, np.uint32)),
            most=most,
            state=stops.finished,
        )

    def answers(self) -> Iterator[tuple[int, Int32[np.ndarray, " said"]]]:
        """Gives each prompt's index and the tokens of its answer as they are done."""
        while self.waiting or self.speaking:
            check_signals()
            while self.waiting and self.count - len(self.speaking) >= self.wave:
                self._admit()
            # While others wait, until a wave is free; then, whoever is done.
            free = self.count - len(self.speaking)
            self._speak(enough=free + 1 if not self.waiting else self.wave)
            yield from self._finished()

    def pieces(self, steps: int) -> Iterator[Int32[np.ndarray, " said"]]:
        """What the only prompt's answer is so far, after every few tokens."""
        self._admit()
        while self.speaking:
            check_signals()
            done = dict(self._finished())
            if done:
                yield from done.values()
                return
            yield self._said(0)
            self._speak(enough=self.count, steps=steps)

    def _admit(self) -> None:
        """Gives free rows to the next wave of prompts."""
        prompts, self.waiting = self.waiting[: self.wave], self.waiting[self.wave :]
        self._read_prefixes(prompts)
        free = [row for row in range(self.count) if row not in self.speaking]
        rows = dict(zip(free, prompts, strict=False))
        self.speaking |= {row: prompt.index for row, prompt in rows.items()}
        self.rows = admit(
            self.adapter,
            self.llama,
            self.rows,
            self.bank,
            self._padded([prompt.rest for prompt in prompts], BUCKET),
            self._numbers([self.places[prompt.key] for prompt in prompts], unused=0),
            self._numbers(list(rows), unused=self.count),
            self._numbers(
                [prompt.seed for prompt in prompts], unused=0, kind=np.uint32
            ),
            self.stops,
            choice=self.choice,
            mesh=self.mesh,
        )
        self.wanted.subtract(prompt.key for prompt in prompts)

    def _read_prefixes(self, prompts: Sequence[QueuedPrompt]) -> None:
        """Sees to it that the bank holds the prefixes of a wave, and if it reads any,
        as many of the next ones as can be read at the same time."""
        if all(prompt.key in self.places for prompt in prompts):
            return
        new: dict[tuple, PromptTokens] = {}
        for prompt in (*prompts, *self.waiting):
            if prompt.key not in self.places and len(new) < self.wave:
                new[prompt.key] = prompt.prefix
        for key in [key for key in self.places if not self.wanted[key]]:
            del self.places[key]
        used = set(self.places.values())
        free = [place for place in range(2 * self.wave) if place not in used]
        self.places |= dict(zip(new, free, strict=False))
        self.bank = read_prefixes(
            self.adapter,
            self.llama,
            self.bank,
            self._padded(list(new.values()), self.prefix),
            self._numbers([self.places[key] for key in new], unused=2 * self.wave),
            mesh=self.mesh,
        )

    def _speak(self, *, enough: int, steps: int = np.iinfo(np.int32).max) -> None:
        self.rows = speak(
            self.llama,
            self.rows,
            self.stops,
            np.int32(min(enough, self.count)),
            np.int32(steps),
            choice=self.choice,
            mesh=self.mesh,
        )

    def _finished(self) -> Iterator[tuple[int, Int32[np.ndarray, " said"]]]:
        spelled = np.asarray(self.rows.spelled)
        for row in [r for r in self.speaking if spelled[r] == self.stops.finished]:
            yield self.speaking.pop(row), self._said(row)

    def _said(self, row: int) -> Int32[np.ndarray, " said"]:
        tokens = np.asarray(self.rows.tokens)[row]
        return tokens[tokens >= 0]

    def _padded(self, texts: Sequence[PromptTokens], bucket: int) -> Prompts:
        return pad(
            texts, rows=self.wave, bucket=bucket, windows=self.windows, mesh=self.mesh
        )

    def _numbers(
        self, values: Sequence[int], *, unused: int, kind: type = np.int32
    ) -> Any:
        """A number for each prompt of a wave."""
        filled = [*values, *[unused] * (self.wave - len(values))]
        return self._on_all(np.array(filled, kind))

    def _on_all(self, tree: Any) -> Any:
        return (
            tree if self.mesh is None else jax.device_put(tree, replicated(self.mesh))
        )


def pad(
    texts: Sequence[PromptTokens],
    *,
    rows: int,
    bucket: int,
    windows: int,
    mesh: jax.sharding.Mesh | None,
) -> Prompts:
    """Texts as a batch of so many rows, its length a multiple of `bucket`."""
    length = round_up(max(len(text.tokens) for text in texts), bucket)
    width = texts[0].features.shape[1]
    prompts = Prompts(
        features=np.zeros((rows, windows, width), np.float32),
        tokens=np.zeros((rows, length), np.int32),
        audio_slot=np.full((rows, length), -1, np.int32),
        lengths=np.zeros(rows, np.int32),
    )
    for row, text in enumerate(texts):
        size = len(text.tokens)
        prompts.features[row, : len(text.features)] = text.features
        prompts.tokens[row, :size] = text.tokens
        prompts.audio_slot[row, :size] = text.audio_slot
        prompts.lengths[row] = size
    return prompts if mesh is None else jax.device_put(prompts, batch_sharding(mesh))


def windows_of(texts: Sequence[PromptTokens]) -> int:
    """Room for the most audio vectors of any: a power of two, so that there are few
    such numbers; unused vectors cost next to nothing."""
    most = max(1, *(len(text.features) for text in texts))
    return 1 << (most - 1).bit_length()


def round_up(number: int, multiple: int) -> int:
    """To a multiple that is not 0."""
    return multiple * max(1, math.ceil(number / multiple))
