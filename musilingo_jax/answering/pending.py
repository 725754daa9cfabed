"""An answer that somebody waits for while another thread generates it."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

from musilingo_jax.answering.answer import Answer, finished_answer, pieces_of
from musilingo_jax.answering.answerer import Answerer
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.decoding import AnswerTokens
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.signals import check_signals

# Seconds after which a waiting main thread looks for a signal.
_LOOK_EVERY = 0.1

Finish = Literal["stop", "length", "cancelled"]


class Pending:
    """An answer on its way. One thread makes it, any number of others wait for it.

    Attributes:
      prompt_tokens: tokens of the prompt, audio vectors included.
      cached_tokens: those of them that were read before, for an earlier turn or for
        another question about the song; 0 until the prompt is read.
      finish: why the answer has ended: it was complete ("stop"), it reached
        `max_new_tokens` ("length"), or somebody cancelled it; None until then.
      is_streamed: whether somebody reads `pieces`.
    """

    def __init__(
        self,
        answerer: Answerer,
        decoding: GenerateConfig,
        stop_texts: tuple[str, ...],
        *,
        prompt_tokens: int,
    ):
        """An answer of which nothing is there yet.

        Args:
          answerer: the model.
          decoding: how it is decoded.
          stop_texts: what ends it.
          prompt_tokens: see above.
        """
        self.prompt_tokens, self.cached_tokens = prompt_tokens, 0
        self.finish: Finish | None = None
        self.is_streamed = False
        self._answerer, self._decoding, self._texts = answerer, decoding, stop_texts
        self._changed = threading.Condition()
        self._tokens: AnswerTokens = []
        self._error: BaseException | None = None
        self._cancelled = False

    @property
    def answer_tokens(self) -> int:
        """Tokens of the answer so far, including those that end it."""
        return len(self._tokens)

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come."""
        return self.finish is not None or self._error is not None

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody has called `cancel`."""
        return self._cancelled

    def cancel(self) -> None:
        """Gives the answer up; what is there of it stays. Has no effect at its end."""
        self._cancelled = True

    def answer(self, timeout: float | None = None) -> Answer:
        """Waits for the whole answer; of one that is cancelled, what was there.

        Args:
          timeout: seconds to wait at most; None for as long as it takes.

        Raises:
          TimeoutError: it is not there by then; it is still on its way.
          UserError: it cannot be given, such as for lack of memory.
          RuntimeError: the thread that makes it has failed.
        """
        try:
            self._wait(lambda: self.is_done, timeout)
        except KeyboardInterrupt:
            self.cancel()
            raise
        self._raise_error()
        found = finished_answer(
            self._answerer, self._tokens, self._texts, self._decoding
        )
        return found._replace(is_cut=self.finish != "stop")

    def pieces(self) -> Iterator[str]:
        """The answer in pieces, as they become certain; joined, they are its text.

        Who stops reading before the end cancels the answer.

        Raises:
          UserError: as in `answer`.
          RuntimeError: as in `answer`.
        """
        self.is_streamed = True
        try:
            yield from pieces_of(self._answerer, self._snapshots(), self._texts)
        finally:
            if not self.is_done:
                self.cancel()

    def _snapshots(self) -> Iterator[AnswerTokens]:
        """The tokens so far, whenever there are more of them, and all at the end."""
        tokens: AnswerTokens = []

        def has_more() -> bool:
            return self.is_done or len(self._tokens) > len(tokens)

        done = False
        while not done:
            self._wait(has_more, None)
            # Before the tokens, to which nothing is added when it is done.
            done = self.is_done
            self._raise_error()
            tokens = self._tokens
            yield tokens

    def _wait(self, enough: Callable[[], bool], timeout: float | None) -> None:
        """Waits until something is the case; notices signals in the main thread.

        Raises:
          TimeoutError: it is not after `timeout` seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        in_main = threading.current_thread() is threading.main_thread()
        with self._changed:
            while not enough():
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"there is no answer after {timeout:g} seconds")
                if in_main:
                    left = _LOOK_EVERY if left is None else min(left, _LOOK_EVERY)
                self._changed.wait(left)
                if in_main:
                    check_signals()

    def _raise_error(self) -> None:
        if isinstance(self._error, UserError):
            raise UserError(str(self._error)) from self._error
        if self._error is not None:
            raise RuntimeError("the thread that answers has failed") from self._error

    # Of the thread that makes it:

    def put(self, tokens: AnswerTokens) -> None:
        """Shows the tokens so far."""
        with self._changed:
            self._tokens = tokens
            self._changed.notify_all()

    def end(self, tokens: AnswerTokens) -> None:
        """Shows all tokens of an answer that is finished."""
        whole = finished_answer(self._answerer, tokens, self._texts, self._decoding)
        with self._changed:
            self._tokens = tokens
            self.finish = "length" if whole.is_cut else "stop"
            self._changed.notify_all()

    def end_cancelled(self) -> None:
        """Ends an answer that was given up."""
        with self._changed:
            self.finish = "cancelled"
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Passes an error on to everybody who waits, or will."""
        with self._changed:
            if not self.is_done:
                self._error = error
            self._changed.notify_all()
