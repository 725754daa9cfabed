"""Continuous batching that requests may join, and leave, at any time.

    thread of a request                    the thread that owns the device

    submit(prompt) ──▶ waiting ──────────▶ admit: reads it into a free row
    pieces(), answer() ◀── Pending ◀────── decode: a few tokens in all rows
    cancel() ────────────────────────────▶ frees the row before the next ones

An answer is the one that `answer.answer` gives to the request alone: rows are
independent, and everything that a request may choose (temperature, stop texts, length)
is a number of its row and not of the program (`row_settings.py`). So requests with
different settings share a batch, and none of them compiles anything. A beam search,
which has rows of its own, is done between two dispatches, alone.
"""

import atexit
import threading
import time
from dataclasses import dataclass

from musilingo_jax.answering.answer import answer_tokens, enough_memory
from musilingo_jax.answering.answerer import Answerer
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.continuous_batching import wave_of
from musilingo_jax.answering.padded_prompts import (
    LENGTH_MULTIPLE,
    PromptTokens,
    room_for,
    round_up,
)
from musilingo_jax.answering.pending import Pending
from musilingo_jax.answering.prompt_queue import PromptQueue, QueuedPrompt
from musilingo_jax.answering.row_batch import BatchShape, RowBatch
from musilingo_jax.answering.row_settings import RowSettings, check_stops
from musilingo_jax.runtime.errors import UserError

# Tokens between two looks at what waits: few while somebody reads along.
_STEPS_STREAMED, _STEPS = 2, 8


class QueueFull(UserError):
    """As many requests wait as may: ask again in a while."""


@dataclass(frozen=True)
class _Request:
    """A request and the answer that is made for it."""

    prompt: QueuedPrompt
    decoding: GenerateConfig
    stop_texts: tuple[str, ...]
    pending: Pending


class LiveBatch:
    """A batch of rows, and the thread that decodes in it while there is work.

        batch = LiveBatch(
            answerer, rows=8, windows=8, slots=512, max_new_tokens=160, queue=64
        )
        pending = batch.submit(prompt, decoding=config, stop_texts=("###",), seed=1)
        for piece in pending.pieces():
            print(piece, end="")
        batch.close()

    All methods may be called by any thread.
    """

    def __init__(
        self,
        answerer: Answerer,
        *,
        rows: int,
        windows: int,
        slots: int,
        max_new_tokens: int,
        queue: int,
    ):
        """Takes no memory of the device before the first request.

        Args:
          answerer: the model.
          rows: requests that are answered at the same time; rounded up to what divides
            evenly into devices and waves.
          windows: audio vectors that every prompt has room for; one program for all.
          slots: tokens that a row has room for, a prompt and its answer.
          max_new_tokens: tokens of an answer at most.
          queue: requests that may wait for a row.
        """
        reader = answerer.reader
        wave = wave_of(rows, reader.row_shares)
        slots = round_up(slots, LENGTH_MULTIPLE)
        self._answerer = answerer
        self._shape = BatchShape(
            wave=wave,
            rows=round_up(rows, wave),
            windows=room_for(windows),
            prefix_slots=slots,
            prefix_multiple=LENGTH_MULTIPLE,
            kept_prefixes=wave,
            slots=slots,
            max_new_tokens=max_new_tokens,
            goes_on=True,
        )
        self._most_waiting = queue
        # What all threads share, guarded by the lock of the condition.
        self._changed = threading.Condition()
        self._new: list[_Request] = []
        self._waiting = 0
        self._unfinished: dict[int, _Request] = {}
        self._count = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        # What belongs to the thread that decodes.
        self._queue = PromptQueue([])
        self._rows: RowBatch | None = None
        self._settings = RowSettings(reader, rows=self._shape.rows)

    @property
    def rows(self) -> int:
        """Requests that are answered at the same time."""
        return self._shape.rows

    @property
    def slots(self) -> int:
        """Tokens that a row has room for, a prompt and its answer."""
        return self._shape.slots

    @property
    def load(self) -> tuple[int, int]:
        """The requests that have a row, and those that wait for one."""
        with self._changed:
            return len(self._unfinished) - self._waiting, self._waiting

    def submit(
        self,
        prompt: PromptTokens,
        *,
        decoding: GenerateConfig,
        stop_texts: tuple[str, ...],
        seed: int,
        continues: bool = False,
    ) -> Pending:
        """Asks for an answer, and returns at once.

        Args:
          prompt: what is answered.
          decoding: how; of it, `batch_size` and `stop` have no effect here.
          stop_texts: all that ends the answer, as `answer.stop_texts_of` has them.
          seed: of its draws, as `answer.seed_of` makes it.
          continues: whether earlier turns of a conversation stand in the prompt.

        Raises:
          QueueFull: as many requests wait as may.
          UserError: the prompt with its answer has more tokens than a row has room for,
            or the stop texts are too long.
          RuntimeError: the batch is closed.
        """
        self._check_room(prompt, decoding)
        check_stops(self._answerer.stops(stop_texts))
        pending = Pending(
            self._answerer, decoding, stop_texts, prompt_tokens=len(prompt.tokens)
        )
        with self._changed:
            if self._closed:
                raise RuntimeError("this batch is closed")
            running = len(self._unfinished) - self._waiting
            if self._waiting >= self._most_waiting + self._shape.rows - running:
                raise QueueFull(
                    f"{self._waiting} requests wait already, which is as many as may: "
                    "ask again in a while"
                )
            limit = decoding.max_new_tokens
            queued = QueuedPrompt(self._count, prompt, seed, limit, continues)
            self._count, self._waiting = self._count + 1, self._waiting + 1
            request = _Request(queued, decoding, stop_texts, pending)
            self._unfinished[queued.index] = request
            self._new.append(request)
            if self._thread is None:
                self._start()
        return pending

    def close(self, timeout: float | None = 0.0) -> None:
        """Takes no more requests, and ends.

        Args:
          timeout: seconds that running and waiting requests have to finish, after which
            they are cancelled; None for as long as they take.
        """
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            self._closed = True
            while self._thread and (end is None or time.monotonic() < end):
                self._changed.wait(None if end is None else end - time.monotonic())
            for request in self._unfinished.values():
                request.pending.cancel()
            while self._thread:
                self._changed.wait()

    def _check_room(self, prompt: PromptTokens, decoding: GenerateConfig) -> None:
        most = decoding.max_new_tokens
        if most > self._shape.max_new_tokens:
            raise UserError(
                f"max_new_tokens is {most}, but an answer has room for "
                f"{self._shape.max_new_tokens} tokens: lower it"
            )
        # An answer's last token is never read.
        if len(prompt.tokens) + most - 1 > self._shape.slots:
            raise UserError(
                f"the prompt takes {len(prompt.tokens)} tokens and its answer up to "
                f"{most}, but there is room for {self._shape.slots} in all: ask a "
                "shorter question, or lower max_new_tokens"
            )

    def _start(self) -> None:
        """Starts the thread that decodes; the lock is held."""
        # A daemon, so that the end of a program waits for no answer. But the thread
        # must not be in JAX any more when Python takes that apart.
        self._thread = threading.Thread(
            target=self._work, name="answering", daemon=True
        )
        atexit.register(self.close)
        self._thread.start()

    # All that follows is called by that thread.

    def _work(self) -> None:
        """Answers until nothing is left to answer."""
        while self._take_new():
            try:
                with enough_memory(
                    f"{self._shape.rows} rows of {self._shape.slots} tokens"
                ):
                    self._turn()
            except BaseException as error:
                self._fail_all(error)

    def _take_new(self) -> bool:
        """Puts new requests into the queue; without any request, ends the thread."""
        with self._changed:
            for request in self._new:
                self._queue.add(request.prompt)
            self._new.clear()
            if self._unfinished:
                return True
            self._thread = None
            atexit.unregister(self.close)
            self._changed.notify_all()
            return False

    def _turn(self) -> None:
        """Drops what was cancelled, admits what waits, and decodes a few tokens."""
        if self._rows is None:
            self._rows = RowBatch(
                self._answerer.reader, self._shape, finished=self._settings.finished
            )
        rows = self._rows
        self._drop_cancelled(rows)
        while self._queue and rows.free:
            self._admit(rows)
        if not rows.answering:
            return
        requests = {
            row: self._unfinished[prompt.index]
            for row, prompt in rows.answering.items()
        }
        streamed = any(request.pending.is_streamed for request in requests.values())
        rows.decode(
            self._settings.rule(list(requests)),
            enough=len(rows.free) + 1,
            steps=_STEPS_STREAMED if streamed else _STEPS,
        )
        finished = rows.finished()
        for row, tokens in zip(requests, rows.tokens(requests), strict=True):
            request = requests[row]
            if row in finished:
                rows.free_row(row)
                request.pending.end(tokens)
                self._forget(request)
            else:
                request.pending.put(tokens)

    def _drop_cancelled(self, rows: RowBatch) -> None:
        """Frees the rows of requests that were cancelled, and their places."""
        cancelled = {
            number: request
            for number, request in self._unfinished_now().items()
            if request.pending.is_cancelled
        }
        if not cancelled:
            return
        for row, prompt in list(rows.answering.items()):
            if prompt.index in cancelled:
                rows.stop(row)
        for number, request in cancelled.items():
            was_waiting = self._queue.withdraw(number)
            request.pending.end_cancelled()
            self._forget(request, was_waiting=was_waiting)

    def _admit(self, rows: RowBatch) -> None:
        """Gives rows to the next prompts, or answers one that needs a beam search."""
        most = min(self._shape.wave, len(rows.free))
        requests = [self._unfinished[p.index] for p in self._queue.next(most)]
        if requests[0].decoding.beams > 1:
            self._search(requests[0])
            return
        beams = [request.decoding.beams > 1 for request in requests]
        requests = requests[: beams.index(True)] if True in beams else requests
        admitted = rows.rows_for([request.prompt for request in requests])
        states = [
            self._settings.set(
                row, request.decoding, self._answerer.stops(request.stop_texts)
            )
            for row, request in zip(admitted, requests, strict=True)
        ]
        rule = self._settings.rule(admitted, size=self._shape.wave)
        read = rows.admit(rule, self._queue, admitted, states)
        for request, tokens in zip(requests, read, strict=True):
            request.pending.cached_tokens = tokens
        with self._changed:
            self._waiting -= len(requests)

    def _search(self, request: _Request) -> None:
        """Answers the first prompt of the queue by a beam search."""
        self._queue.remove(1)
        ((_, tokens),) = answer_tokens(
            self._answerer, [request.prompt], request.stop_texts, request.decoding
        )
        request.pending.end(tokens)
        self._forget(request, was_waiting=True)

    def _unfinished_now(self) -> dict[int, _Request]:
        """The requests that are in the queue or have a row."""
        with self._changed:
            new = {request.prompt.index for request in self._new}
            return {n: r for n, r in self._unfinished.items() if n not in new}

    def _forget(self, request: _Request, *, was_waiting: bool = False) -> None:
        """Leaves out a request that has ended."""
        with self._changed:
            del self._unfinished[request.prompt.index]
            self._waiting -= was_waiting

    def _fail_all(self, error: BaseException) -> None:
        """Passes an error on to all who wait, and begins anew.

        What the devices hold is lost: a program that fails has taken the rows.
        """
        with self._changed:
            for request in self._unfinished.values():
                request.pending.fail(error)
            self._unfinished.clear()
            self._new.clear()
            self._waiting = 0
            self._queue, self._rows = PromptQueue([]), None
