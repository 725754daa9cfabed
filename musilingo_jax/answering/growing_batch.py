"""A batch whose rows get longer when a prompt needs it."""

import threading

from musilingo_jax.answering.answerer import Answerer
from musilingo_jax.answering.live_batch import LiveBatch

# Room for a row at first: most prompts and answers need no more.
_LEAST_SLOTS = 256


class GrowingBatch:
    """The batch that answers the questions of one model; several threads may ask.

    The memory that rows take is that of the longest prompt so far, rounded up to a
    power of two, and at most the model's context.
    """

    def __init__(self, answerer: Answerer, *, rows: int, windows: int, queue: int):
        """Takes no memory of the device before the first question.

        Args:
          answerer: the model.
          rows: questions that are answered at the same time.
          windows: audio vectors of a prompt at most.
          queue: questions that may wait for a row.
        """
        self._answerer, self._rows, self._queue = answerer, rows, queue
        self._windows = windows
        self._lock = threading.Lock()
        self._batch: LiveBatch | None = None
        self._closed = False

    def with_room(self, slots: int) -> LiveBatch:
        """The batch, if its rows have that much room; else a new one.

        The old one ends by itself when it has answered what it was asked. What its rows
        hold of conversations is read again.

        Raises:
          RuntimeError: it is closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("this model is closed")
            if self._batch is None or self._batch.slots < slots:
                room = _LEAST_SLOTS
                while room < slots:
                    room *= 2
                room = min(room, max(slots, self._answerer.context))
                self._batch = LiveBatch(
                    self._answerer,
                    rows=self._rows,
                    windows=self._windows,
                    slots=room,
                    max_new_tokens=room,
                    queue=self._queue,
                )
            return self._batch

    def close(self, timeout: float | None) -> None:
        """Takes no more questions.

        Args:
          timeout: as of `LiveBatch.close`.
        """
        with self._lock:
            self._closed = True
            batch, self._batch = self._batch, None
        if batch is not None:
            batch.close(timeout)
