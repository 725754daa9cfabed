"""One person's conversation: songs, questions and answers; nothing of the page."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from musilingo_jax.answering.conversation import Conversation
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.joint_answer import Answering
from musilingo_jax.answering.model import Model
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import one_line
from musilingo_jax.web import uploads, waveform
from musilingo_jax.web.limits import Limits

# How an answer ended → the state of its turn.
_STATES = {"stop": "done", "length": "cut", "cancelled": "stopped"}
# A song's name is shown up to here.
_MOST_LETTERS = 60


@dataclass(frozen=True)
class Song:
    """A song of a conversation.

    Attributes:
      name: what people call it.
      path: of the uploaded file.
      excerpt: what the model heard.
      bars: of its picture.
    """

    name: str
    path: Path
    excerpt: Excerpt
    bars: Float[np.ndarray, " bars"]

    @property
    def heard(self) -> tuple[tuple[float, float], ...]:
        """Where the parts that the model heard begin and end, in seconds."""
        return self.excerpt.windows or ((self.excerpt.start, self.excerpt.stop),)


@dataclass
class Turn:
    """A question and its answer.

    Attributes:
      question: what was asked.
      answer: so far.
      state: "writing", "done", "cut" (after the most tokens) or "stopped".
    """

    question: str
    answer: str = ""
    state: str = "writing"


@dataclass(frozen=True)
class Settings:
    """What a person may change.

    Attributes:
      temperature: 0 for the likeliest words.
      top_p: share of the likeliest words that may be drawn.
      max_new_tokens: of an answer at most.
      seed: of the draws.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int

    @classmethod
    def of(cls, temperature: Any, top_p: Any, most: Any, seed: Any) -> "Settings":
        """What a page has sent, where a field may be empty.

        Raises:
          UserError: one of the first three is.
        """
        try:
            return cls(float(temperature), float(top_p), int(most), int(seed or 0))
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError("a setting is not a number: fill it in") from error


SUGGESTIONS = (
    "Describe this music.",
    "What style of music is this?",
    "Which instrument plays the melody?",
    "What is the tempo?",
    "Which key is it in?",
)
# Each song is asked, and what follows from the answers is said; see `comparison.py`.
COMPARISONS = (
    "Which song is faster?",
    "Are they in the same key?",
    "Describe both songs.",
)


class Session:
    """One person's conversation.

    A person can do one thing at a time: who asks while an answer is written is refused.

    Attributes:
      songs: in the order in which they were added.
      turns: questions and answers.
      model_name: of what answers.
    """

    def __init__(self, model: Model, limits: Limits, model_name: str):
        """A conversation without songs."""
        self.songs: list[Song] = []
        self.turns: list[Turn] = []
        self.model_name = model_name
        self._model, self._limits = model, limits
        self._notes: list[str] = []
        self._conversation = self._begin()
        self._answering: Answering | None = None
        self._busy = threading.Lock()

    @property
    def notes(self) -> list[str]:
        """What is to be known beside the last answer, a sentence each."""
        return list(self._notes)

    @property
    def suggestions(self) -> tuple[str, ...]:
        """Questions for those who do not know what to ask."""
        return SUGGESTIONS if len(self.songs) < 2 else COMPARISONS + SUGGESTIONS[:2]

    def add(self, path: Path, name: str) -> Song:
        """Listens to a song.

        Args:
          path: of the file.
          name: that the person knows it by.

        Raises:
          UserError: it cannot be heard, or there are as many songs as may be.
        """
        name = one_line(name)[:_MOST_LETTERS]
        if len(self.songs) >= self._limits.songs:
            raise UserError(
                f"a conversation has at most {self._limits.songs} songs: clear it first"
            )
        try:
            with self._alone():
                uploads.check_content(path)
                bars = waveform.loudness(path, self._limits.song_seconds)
                excerpt = replace(self._model.hear(path), name=name)
                self._conversation.add(excerpt)
        except UserError as error:
            reason = str(error).replace(str(path), name)
            raise UserError(reason) from error
        song = Song(name, path, excerpt, bars)
        self.songs.append(song)
        return song

    def ask(self, question: str, settings: Settings) -> Iterator[Turn]:
        """Answers a question; yields its turn whenever there is more of the answer.

        Raises:
          UserError: it cannot be asked; nothing is added then.
        """
        question = question.strip()
        if not question:
            raise UserError("type a question first")
        if not self.songs:
            raise UserError("add a song first: drop a file, or record one")
        if len(question) > self._limits.letters:
            raise UserError(
                f"the question has {len(question)} letters, and at most "
                f"{self._limits.letters} are read: ask a shorter one"
            )
        yield from self._answer(question, settings)

    def retry(self, settings: Settings) -> Iterator[Turn]:
        """Answers the last question anew, with other draws.

        Raises:
          UserError: there is none.
        """
        if not self.turns:
            raise UserError("there is no answer to try again")
        yield from self._answer(None, settings)

    def stop(self) -> None:
        """Ends the answer that is being written; what is there of it stays."""
        if self._answering is not None:
            self._answering.cancel()

    def clear(self) -> list[Path]:
        """Forgets songs and turns; returns the files of the songs."""
        self.stop()
        self._notes.clear()
        files = [song.path for song in self.songs]
        self.songs, self.turns = [], []
        self._conversation = self._begin()
        return files

    def _begin(self) -> Conversation:
        return Conversation(self._model, tell=self._notes.append, mark_cuts=False)

    def _answer(self, question: str | None, settings: Settings) -> Iterator[Turn]:
        """Answers a question; None for the last one, whose turn is replaced."""
        with self._alone():
            self._notes.clear()
            talk = self._conversation
            for name, value in asdict(settings).items():
                talk.set(name, value)
            if question is None:
                answering = talk.submit_again()
                turn = Turn(self.turns.pop().question)
            else:
                answering, turn = talk.submit(question), Turn(question)
            self.turns.append(turn)
            # Answers that wait for a row end at once when they are stopped.
            self._answering = answering
            with contextlib.closing(answering.pieces()) as pieces:
                yield turn
                for piece in pieces:
                    turn.answer += piece
                    yield turn
            turn.state = _STATES[answering.finish or "cancelled"]
            yield turn

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """A block during which this person does nothing else.

        Raises:
          UserError: they do.
        """
        if not self._busy.acquire(blocking=False):
            raise UserError("one thing at a time: wait for the answer, or stop it")
        try:
            yield
        finally:
            self._busy.release()
