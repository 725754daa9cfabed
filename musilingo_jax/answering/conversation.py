"""A conversation about songs, with memory.

The turns about a song stand in the prompt of the next question about it, as far as the
model was made for that (`Usage.earlier_turns`) and as they fit:

    ###Human: <Audio> ♪ ♪ </Audio> Which genre is it? ###Assistant: Jazz.
    ###Human: How do you know? ###Assistant:
"""

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from musilingo_jax.answering.answer import check_question
from musilingo_jax.answering.config import Decoding
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.listener import Song
from musilingo_jax.answering.pending import Finish, Pending
from musilingo_jax.answering.song_names import labels, named
from musilingo_jax.answering.speaker import Speaker
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.printable import print_note
from musilingo_jax.runtime.storage import write_text, writing

# With which an answer is drawn again that would else be the same.
_RETRY_TEMPERATURE = 0.7
_FORMAT = 1
_NUMBERS: dict[str, type] = {
    "temperature": float,
    "top_p": float,
    "max_new_tokens": int,
    "seed": int,
    "turns": int,
}
SETTINGS = (*_NUMBERS, "stop")


@dataclass(frozen=True)
class Turn:
    """A question and its answer.

    Attributes:
      song: the number of the song, from 0.
      question: as the model was asked.
      answer: what it said, as far as it came.
    """

    song: int
    question: str
    answer: str


class Answering:
    """The answer to a question of a conversation, on its way.

    Of a question about several songs, it is one answer for each.
    """

    def __init__(
        self,
        pending: Sequence[Pending],
        say: Callable[[bool], Generator[str, None, None]],
    ):
        """An answer of which nothing was read yet.

        Args:
          pending: the answers of the model.
          say: makes one text of them, in pieces if somebody reads along.
        """
        self._pending, self._say = pending, say

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts, audio vectors included."""
        return sum(one.prompt_tokens for one in self._pending)

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
        """The answer in pieces; once, and instead of `text`."""
        return self._say(True)

    def text(self) -> str:
        """Waits for the whole answer."""
        return "".join(self._say(False))

    def cancel(self) -> None:
        """Gives up what has not ended."""
        for one in self._pending:
            if not one.is_done:
                one.cancel()


class Conversation:
    """Questions about songs, each with what was said before. For one thread at a time.

        talk = model.chat()
        talk.add("a.ogg")
        talk.ask("How fast is it?")
        talk.add("b.ogg")
        talk.ask("How fast is the first song?")   # without a name: the last one
        talk.save("talk.json")

    Attributes:
      model: what answers.
      turns: all turns so far.
    """

    def __init__(
        self,
        model: Speaker,
        *,
        tell: Callable[[str], None] | None = None,
        mark_cuts: bool = True,
    ):
        """A conversation without songs.

        Args:
          model: what answers.
          tell: gets what is to be known beside an answer, a sentence each, such as that
            turns were left out; None to print it to stderr.
          mark_cuts: whether an answer that was cut ends by saying so. Else only
            `Answering.finish` does.
        """
        self.model = model
        self._mark_cuts = mark_cuts
        self.turns: list[Turn] = []
        self._tell = tell or (lambda sentence: print_note(f"note: {sentence}"))
        self._songs: list[Excerpt] = []
        self._current = 0
        self._settings: dict[str, Any] = {}
        self._said: set[str] = set()
        self._last: tuple[str, int] | None = None

    @property
    def songs(self) -> tuple[Excerpt, ...]:
        """What was heard, in the order in which it was added."""
        return tuple(self._songs)

    @property
    def names(self) -> list[str]:
        """What the songs are called."""
        return labels([song.name for song in self._songs])

    @property
    def current(self) -> Excerpt:
        """The song that a question is about which names none.

        Raises:
          UserError: there is no song.
        """
        if not self._songs:
            raise UserError("there is no song yet: add one")
        return self._songs[self._current]

    def add(
        self,
        song: Song | Excerpt,
        start: float | None = None,
        seconds: float | None = None,
    ) -> Excerpt:
        """Listens to a song, as `Model.hear` does, and makes it the current one."""
        excerpt = self.model.hear(song, start, seconds)
        self._songs.append(excerpt)
        self._current = len(self._songs) - 1
        return excerpt

    def listen(
        self,
        song: Song,
        start: float | None = None,
        seconds: float | None = None,
    ) -> Excerpt:
        """Listens to another part of the current song, which takes its place.

        What was said about the song is forgotten, for it was said about another part.

        Args:
          song: the song.
          start: as in `Model.hear`.
          seconds: as in `Model.hear`.
        """
        excerpt = self.model.hear(song, start, seconds)
        if self._songs:
            self._songs[self._current] = excerpt
            self.turns = [turn for turn in self.turns if turn.song != self._current]
        else:
            self._songs.append(excerpt)
        return excerpt

    def ask(self, text: str) -> str:
        """Answers a question; one about several songs with a line for each.

        An answer that was cut after `max_new_tokens` ends with a mark that says so.

        Raises:
          UserError: there is no song; or as in `Model.ask`.
        """
        return "".join(self.stream(text))

    def stream(self, text: str) -> Iterator[str]:
        """The answer in pieces. What has come of an answer that is stopped is kept.

        Raises:
          UserError: as in `ask`; at once.
        """
        return self.submit(text).pieces()

    def submit(self, text: str) -> Answering:
        """Asks, and does not wait; as `stream` else.

        Raises:
          UserError: as in `ask`; at once.
        """
        self._last = (text, 0)
        return self._submit(text, self._decoding)

    def remember(self, text: str, answer: str) -> None:
        """Adds a turn that was had elsewhere.

        Args:
          text: the question, as for `ask`.
          answer: to it; of a question about several songs, a line for each that begins
            with its name, as `ask` writes it.

        Raises:
          UserError: there is no song, or a text holds the sign that ends a turn.
        """
        _ = self.current
        numbers, question = self._asked(text)
        self._current = numbers[-1]
        for number in numbers:
            said = answer
            if len(numbers) > 1:
                mark = f"{self.names[number]}: "
                lines = [line for line in answer.splitlines() if line.startswith(mark)]
                said = lines[0].removeprefix(mark) if lines else answer
            for part in (question, said):
                check_question(self.model.usage.prompt, part)
            self.turns.append(Turn(number, question, said))

    def retry(self) -> Iterator[str]:
        """Another answer to the last question, which takes the place of the last one.

        It is drawn with the next seed; if answers are not drawn at all (temperature 0),
        at a temperature of 0.7.

        Raises:
          UserError: nothing was asked.
        """
        return self.submit_again().pieces()

    def submit_again(self) -> Answering:
        """Asks as `retry` does, and does not wait.

        Raises:
          UserError: nothing was asked.
        """
        if self._last is None:
            raise UserError("nothing was asked yet: ask first")
        text, tries = self._last
        decoding: Decoding = {**self._decoding}
        config = self.model.decoding(**decoding)
        if config.temperature == 0:
            decoding["temperature"] = _RETRY_TEMPERATURE
            self._tell_once(
                f"at temperature 0 the answer would be the same, so it is drawn at "
                f"{_RETRY_TEMPERATURE}"
            )
        decoding["seed"] = config.seed + tries + 1
        songs = len(self._asked(text)[0])
        del self.turns[len(self.turns) - songs :]
        self._last = text, tries + 1
        return self._submit(text, decoding)

    def reset(self) -> None:
        """Forgets what was said; songs and settings stay."""
        self.turns.clear()
        self._last = None
        self._said.clear()

    def set(self, name: str, value: Any) -> None:
        """Changes a setting of this conversation.

        Args:
          name: of `Decoding`; or "turns", the number of earlier turns that the model is
            shown at most.
          value: a number, or its text; of "stop" a text or a list of them.

        Raises:
          UserError: there is no such setting, or the value is impossible.
        """
        if name not in SETTINGS:
            raise UserError(
                f"there is no setting {name!r}: choose among {', '.join(SETTINGS)}"
            )
        kind = _NUMBERS.get(name)
        try:
            value = value if kind is None else kind(value)
        except (TypeError, ValueError):
            what = "a whole number" if kind is int else "a number"
            raise UserError(f"{name} is {value!r}: give {what}") from None
        if name == "turns":
            if value < 0:
                raise UserError(f"turns is {value}: it must be at least 0")
        else:
            one: Any = {name: value}
            self.model.decoding(**one)
        self._settings[name] = value

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that were changed."""
        return dict(self._settings)

    def save(self, path: str | Path) -> None:
        """Writes the conversation as JSON: songs by their names, turns, settings.

        Raises:
          UserError: the file cannot be written.
        """
        content = {
            "format": _FORMAT,
            "model": self.model.name,
            "songs": [
                {
                    "name": song.name,
                    "start": None if song.windows else song.start,
                    "seconds": None if song.windows else song.stop - song.start,
                }
                for song in self._songs
            ],
            "turns": [asdict(turn) for turn in self.turns],
            "settings": self._settings,
        }
        path = Path(path)
        with writing(path, again="save it under another name"):
            write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(
        cls,
        path: str | Path,
        model: Speaker,
        *,
        tell: Callable[[str], None] | None = None,
    ) -> "Conversation":
        """Reads what `save` has written, and listens to the songs again.

        Args:
          path: the file.
          model: what answers from now on.
          tell: as of `Conversation`.

        Raises:
          UserError: the file holds something else, or a song cannot be read.
        """
        content = read_json(Path(path))
        talk = cls(model, tell=tell)
        try:
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']}")
            turns = [Turn(**turn) for turn in content["turns"]]
            places = [(s["name"], s["start"], s["seconds"]) for s in content["songs"]]
            settings = dict(content["settings"])
            if any(not 0 <= turn.song < len(places) for turn in turns):
                raise ValueError("a turn is about a song that it does not name")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: is no conversation that this version has saved ({error})"
            ) from error
        for name, start, seconds in places:
            talk.add(name, start, seconds)
        for name, value in settings.items():
            talk.set(name, value)
        for turn in turns:
            check_question(model.usage.prompt, turn.question)
            check_question(model.usage.prompt, turn.answer)
        talk.turns = turns
        return talk

    @property
    def _decoding(self) -> Decoding:
        changed: Any = {k: v for k, v in self._settings.items() if k != "turns"}
        return changed

    def _asked(self, text: str) -> tuple[list[int], str]:
        """The songs that a question is about, and how each is asked."""
        numbers, question = named(text, [song.name for song in self._songs])
        return numbers or [self._current], question

    def _submit(self, text: str, decoding: Decoding) -> Answering:
        """Asks all songs that are named."""
        _ = self.current
        numbers, question = self._asked(text)
        if len(numbers) > 1:
            self._tell_once(
                "the model hears one song at a time: each is asked on its own"
            )
        pending: list[Pending] = []
        try:
            for number in numbers:
                earlier = self._earlier(number, question, decoding)
                song = self._songs[number]
                pending.append(
                    self.model.submit(song, question, earlier=earlier, **decoding)
                )
        except UserError:  # Such as that the queue is full.
            for one in pending:
                one.cancel()
            raise
        self._current = numbers[-1]

        def say(stream: bool) -> Generator[str, None, None]:
            return self._pieces(numbers, question, pending, stream)

        return Answering(pending, say)

    def _pieces(
        self,
        numbers: Sequence[int],
        question: str,
        pending: Sequence[Pending],
        stream: bool,
    ) -> Generator[str, None, None]:
        """The answers, one after the other; remembers them, also when it is stopped."""
        names = self.names
        try:
            for number, answer in zip(numbers, pending, strict=True):
                if len(numbers) > 1:
                    yield f"{names[number]}: "
                said: list[str] = []
                try:
                    for piece in answer.pieces() if stream else [answer.answer().text]:
                        said.append(piece)
                        yield piece
                finally:
                    self.turns.append(Turn(number, question, "".join(said)))
                if answer.finish == "length" and self._mark_cuts:
                    yield self.model.decoding(**self._decoding).cut_mark
                if number != numbers[-1]:
                    yield "\n"
        finally:
            for answer in pending:
                if not answer.is_done:
                    answer.cancel()

    def _earlier(
        self, number: int, question: str, decoding: Decoding
    ) -> list[tuple[str, str]]:
        """The turns about a song that are shown with the next question about it."""
        turns = [
            (turn.question, turn.answer) for turn in self.turns if turn.song == number
        ]
        most = self._settings.get("turns", self.model.usage.earlier_turns)
        if most is not None and len(turns) > most:
            if "turns" not in self._settings:
                self._tell_once(
                    "this model learnt from questions with at most "
                    f"{most} earlier turns, so it is not shown more of them; "
                    "the setting `turns` changes that"
                )
            turns = turns[len(turns) - most :]
        room = self.model.context - self.model.decoding(**decoding).max_new_tokens
        excerpt, before = self._songs[number], len(turns)
        while turns and self.model.prompt_length(excerpt, question, turns) > room:
            del turns[0]
        if left_out := before - len(turns):
            self._tell(
                f"the oldest {left_out} of {before} turns are left out: the model "
                f"reads at most {self.model.context} tokens, the next answer included"
            )
        return turns

    def _tell_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._tell(sentence)
