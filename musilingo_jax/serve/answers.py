"""A request of a chat → its answers, whole or in pieces.

The model's threads block while they wait; the server's loop does not. So each answer
has a thread that takes its pieces and hands them over, and a request that ends early,
because its client has left or its time is over, cancels its questions, which frees
their rows.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.joint_answer import Answering
from musilingo_jax.answering.live_batch import QueueFull
from musilingo_jax.serve.conversations import Conversation
from musilingo_jax.serve.engine import Engine
from musilingo_jax.serve.errors import Refusal
from musilingo_jax.serve.protocol import ChatRequest
from musilingo_jax.serve.replies import Usage

# Seconds after which a client may try again if the queue is full.
_RETRY_AFTER = 2


@dataclass(frozen=True)
class Piece:
    """A piece of an answer.

    Attributes:
      choice: the number of the answer.
      text: what comes next; "" at the end.
      finish: "stop" or "length" at the end; None before.
    """

    choice: int
    text: str
    finish: str | None = None


@dataclass(frozen=True)
class Asked:
    """The questions of a request, in the model's queue.

    Attributes:
      pending: one for each choice.
      notes: what the client should know beside the answers, each sentence once.
    """

    pending: list[Answering]
    notes: list[str]

    @property
    def usage(self) -> Usage:
        """Tokens that were read and written; all choices have the same prompts."""
        prompt = self.pending[0].prompt_tokens
        cached = self.pending[0].cached_tokens
        answer = sum(one.answer_tokens for one in self.pending)
        return {
            "prompt_tokens": prompt,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
        }

    def cancel(self) -> None:
        """Gives their rows to other questions; answers that are finished stay."""
        for one in self.pending:
            one.cancel()


def ask(
    engine: Engine,
    conversation: Conversation,
    songs: Sequence[Excerpt],
    request: ChatRequest,
) -> Asked:
    """Puts the questions of a request into the model's queue.

    Args:
      engine: the model.
      conversation: what is asked.
      songs: what the model has heard of its songs.
      request: how the answers are decoded, and how many.

    Raises:
      UserError: the question cannot be asked, or is too long.
      Refusal: too many others wait.
    """
    seed = secrets.randbits(31) if request.seed is None else request.seed
    pending: list[Answering] = []
    notes = [
        line
        for number, song in enumerate(songs, start=1)
        if song.windows or song.notices or song.silent
        for line in str(replace(song, name=f"song {number}")).splitlines()
    ]

    def tell(sentence: str) -> None:
        if sentence not in notes:
            notes.append(sentence)

    try:
        for choice in range(request.n or 1):
            decoding = decoding_of(request, engine.decoding, seed + choice)
            asked = conversation.earlier, conversation.question
            pending.append(engine.submit(songs, *asked, decoding, tell))
    except BaseException as error:
        Asked(pending, notes).cancel()
        if isinstance(error, QueueFull):
            raise Refusal(
                429,
                "too many questions wait for an answer: try again",
                code="queue_full",
                retry_after=_RETRY_AFTER,
            ) from error
        raise
    return Asked(pending, notes)


def decoding_of(
    request: ChatRequest, usual: GenerateConfig, seed: int
) -> GenerateConfig:
    """How an answer is decoded: as the model does, but for what the request says.

    Raises:
      UserError: the settings do not go together.
    """
    given = {"temperature": request.temperature, "top_p": request.top_p}
    most = min(request.most_tokens or usual.max_new_tokens, usual.max_new_tokens)
    return replace(
        usual,
        **{key: value for key, value in given.items() if value is not None},
        max_new_tokens=most,
        stop=(*usual.stop, *request.stop_texts),
        seed=seed,
    )


async def pieces(
    asked: Asked, threads: Executor, *, stream: bool
) -> AsyncGenerator[Piece]:
    """The pieces of all answers, as they become known; the last of each has a finish.

    Whoever stops before the end cancels the questions that are left.

    Args:
      asked: the questions.
      threads: where they are waited for.
      stream: whether somebody reads along; else each answer is one piece.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Piece | BaseException] = asyncio.Queue()

    def take(choice: int, pending: Answering) -> None:
        last: Piece | BaseException
        try:
            for text in pending.pieces() if stream else (pending.text(),):
                loop.call_soon_threadsafe(arrived.put_nowait, Piece(choice, text))
            last = Piece(choice, "", pending.finish)
        except BaseException as error:
            last = error
        loop.call_soon_threadsafe(arrived.put_nowait, last)

    try:
        for choice, pending in enumerate(asked.pending):
            threads.submit(take, choice, pending)
        left = len(asked.pending)
        while left:
            piece = await arrived.get()
            if isinstance(piece, BaseException):
                raise piece
            left -= piece.finish is not None
            yield piece
    finally:
        asked.cancel()
