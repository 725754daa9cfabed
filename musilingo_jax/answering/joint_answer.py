"""The answer to a question of a conversation: one text of the answers about its songs.

a.ogg: The tempo is slow.
b.ogg: It is fast.
By these answers, b.ogg is faster.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from musilingo_jax.answering.pending import Finish, Pending


@dataclass(frozen=True)
class Part:
    """The answer about one song, on its way.

    Attributes:
      name: what the song is called.
      pending: what the model says.
      keep: gets what it has said, once, at the end; also if it is stopped.
    """

    name: str
    pending: Pending
    keep: Callable[[str], None]


class Answering:
    """The answer to a question, on its way.

    Of a question about several songs, it is one answer for each.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        cut_mark: str,
        conclude: Callable[[Sequence[str], Sequence[str]], str],
    ):
        """An answer of which nothing was read yet.

        Args:
          parts: the answers of the model, in the order of their lines.
          cut_mark: what is added to an answer that was cut.
          conclude: what follows from the names of several songs and complete answers
            about them; "" if nothing does.
        """
        self._parts, self._mark, self._conclude = parts, cut_mark, conclude
        self._pending = [part.pending for part in parts]

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts, audio vectors included."""
        return sum(one.prompt_tokens for one in self._pending)

    @property
    def cached_tokens(self) -> int:
        """Those of `prompt_tokens` that were read before, as earlier turns."""
        return sum(one.cached_tokens for one in self._pending)

    @property
    def answer_tokens(self) -> int:
        """Tokens of all answers so far."""
        return sum(one.answer_tokens for one in self._pending)

    @property
    def finish(self) -> Finish | None:
        """How it has ended: "stop" if all answers were complete; None until then."""
        ends = {one.finish for one in self._pending}
        order: tuple[Finish | None, ...] = (None, "cancelled", "length", "stop")
        return next(end for end in order if end in ends)

    def pieces(self) -> Generator[str, None, None]:
        """The answer in pieces; once, and instead of `text`.

        Who stops reading before the end cancels what is left of it.
        """
        return self._say(stream=True)

    def text(self) -> str:
        """Waits for the whole answer."""
        return "".join(self._say(stream=False))

    def cancel(self) -> None:
        """Gives up what has not ended."""
        for one in self._pending:
            if not one.is_done:
                one.cancel()

    def _say(self, *, stream: bool) -> Generator[str, None, None]:
        several = len(self._parts) > 1
        answers: list[str] = []
        try:
            for part in self._parts:
                if answers:
                    yield "\n"
                if several:
                    yield f"{part.name}: "
                said: list[str] = []
                pending = part.pending
                try:
                    whole = [] if stream else [pending.answer().text]
                    for piece in pending.pieces() if stream else whole:
                        said.append(piece)
                        yield piece
                finally:
                    answers.append("".join(said))
                    part.keep(answers[-1])
                if pending.finish == "length":
                    yield self._mark
            complete = several and self.finish == "stop"
            names = [part.name for part in self._parts]
            if complete and (conclusion := self._conclude(names, answers)):
                yield f"\n{conclusion}"
        finally:
            self.cancel()
