"""A conversation about songs, with memory.

The turns about a song stand in the prompt of the next question about it, as far as the
model was made for that (`Usage.earlier_turns`) and as they fit:

    ###Human: <Audio> ♪ ♪ </Audio> Which genre is it? ###Assistant: Jazz.
    ###Human: How do you know? ###Assistant:
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from musilingo_jax.answering import comparison
from musilingo_jax.answering.answer import check_question
from musilingo_jax.answering.config import Decoding
from musilingo_jax.answering.conversation_settings import ConversationSettings
from musilingo_jax.answering.earlier_turns import newest_that_fit
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.joint_answer import Answering, Part
from musilingo_jax.answering.listener import Song
from musilingo_jax.answering.saved_conversation import Place, SavedConversation, Turn
from musilingo_jax.answering.song_names import labels
from musilingo_jax.answering.speaker import Speaker
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note

# With which an answer is drawn again that would else be the same.
_RETRY_TEMPERATURE = 0.7


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
        self._settings = ConversationSettings(model)
        self._said: set[str] = set()
        # The last question, how often it was tried, and its turns so far.
        self._last: tuple[str, int, list[Turn]] | None = None

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
        """The answer in pieces, as of `submit`. If it is stopped, what came is kept."""
        return self.submit(text).pieces()

    def submit(self, text: str) -> Answering:
        """Asks, and does not wait.

        Raises:
          UserError: as in `ask`; at once.
        """
        return self._submit(text, self._settings.decoding, tries=0)

    def remember(self, text: str, answer: str) -> None:
        """Adds a turn that was had elsewhere.

        Args:
          text: the question, as for `ask`.
          answer: to it; of a question about several songs, a line for each that begins
            with its name, as `ask` writes it.

        Raises:
          UserError: there is no song, or a text holds the sign that ends a turn.
        """
        asked = self._asked(text)
        self._current = asked.songs[-1]
        for number in asked.songs:
            said = answer
            if len(asked.songs) > 1:
                mark = f"{self.names[number]}: "
                lines = [line for line in answer.splitlines() if line.startswith(mark)]
                said = lines[0].removeprefix(mark) if lines else answer
            check_question(self.model.usage.prompt, asked.question)
            check_question(self.model.usage.prompt, said)
            self.turns.append(Turn(number, asked.question, said))

    def retry(self) -> Iterator[str]:
        """Another answer to the last question, which takes the place of the last one.

        It is drawn with the next seed; if answers are not drawn at all (temperature 0),
        at a temperature of 0.7. As `submit_again` else.
        """
        return self.submit_again().pieces()

    def submit_again(self) -> Answering:
        """Asks as `retry` does, and does not wait.

        Raises:
          UserError: nothing was asked.
        """
        if self._last is None:
            raise UserError("nothing was asked yet: ask first")
        text, tries, turns = self._last
        decoding: Decoding = {**self._settings.decoding}
        config = self.model.decoding(**decoding)
        if config.temperature == 0:
            decoding["temperature"] = _RETRY_TEMPERATURE
            self._tell_once(
                f"at temperature 0 the answer would be the same, so it is drawn at "
                f"{_RETRY_TEMPERATURE}"
            )
        decoding["seed"] = config.seed + tries + 1
        before = self.turns
        # Not those that are equal, but those of the answer that is replaced.
        self.turns = [turn for turn in before if not any(turn is t for t in turns)]
        try:
            return self._submit(text, decoding, tries=tries + 1)
        except UserError:
            self.turns = before
            raise

    def reset(self) -> None:
        """Forgets what was said; songs and settings stay."""
        self.turns.clear()
        self._last = None
        self._said.clear()

    def set(self, name: str, value: Any) -> None:
        """Changes a setting; as `ConversationSettings.set`."""
        self._settings.set(name, value)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that were changed."""
        return self._settings.changed

    def save(self, path: str | Path) -> None:
        """Writes the conversation as JSON: songs by their names, turns, settings.

        Raises:
          UserError: the file cannot be written.
        """
        songs = [
            Place(song.name, None, None)
            if song.windows
            else Place(song.name, song.start, song.stop - song.start)
            for song in self._songs
        ]
        saved = SavedConversation(self.model.name, songs, self.turns, self.settings)
        saved.write(Path(path))

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
        saved = SavedConversation.read(Path(path))
        talk = cls(model, tell=tell)
        for place in saved.songs:
            talk.add(place.name, place.start, place.seconds)
        for name, value in saved.settings.items():
            talk.set(name, value)
        for turn in saved.turns:
            check_question(model.usage.prompt, turn.question)
            check_question(model.usage.prompt, turn.answer)
        talk.turns = list(saved.turns)
        return talk

    def _asked(self, text: str) -> comparison.Asked:
        """The songs that a question is about, and how each is asked.

        Raises:
          UserError: there is no song.
        """
        _ = self.current
        names = [song.name for song in self._songs]
        return comparison.asked(text, names, self._current)

    def _submit(self, text: str, decoding: Decoding, *, tries: int) -> Answering:
        """Asks all songs that are named."""
        asked = self._asked(text)
        if asked.notice:
            self._tell_once(asked.notice)
        turns: list[Turn] = []
        parts: list[Part] = []

        def keep(number: int) -> Callable[[str], None]:
            def add(said: str) -> None:
                turns.append(Turn(number, asked.question, said))
                self.turns.append(turns[-1])

            return add

        try:
            for number in asked.songs:
                earlier = self._earlier(number, asked.question, decoding)
                song, name = self._songs[number], self.names[number]
                pending = self.model.submit(
                    song, asked.question, earlier=earlier, **decoding
                )
                parts.append(Part(name, pending, keep(number)))
        except UserError:  # Such as that the queue is full.
            for part in parts:
                part.pending.cancel()
            raise
        self._current = asked.songs[-1]
        self._last = text, tries, turns
        mark = self.model.decoding(**decoding).cut_mark if self._mark_cuts else ""
        return Answering(parts, cut_mark=mark, conclude=asked.conclude)

    def _earlier(
        self, number: int, question: str, decoding: Decoding
    ) -> list[tuple[str, str]]:
        """The turns about a song that are shown with the next question about it."""
        turns = [
            (turn.question, turn.answer)
            for turn in self.turns
            if turn.song == number and turn.answer
        ]
        most = self._settings.turns
        if most is not None and len(turns) > most:
            if "turns" not in self.settings:
                learnt = f"at most {most} earlier turns" if most else "no earlier turns"
                self._tell_once(
                    f"this model learnt from questions with {learnt}, so it is not "
                    "shown more of them; the setting `turns` changes that"
                )
            turns = turns[len(turns) - most :]
        shown = newest_that_fit(
            self.model, self._songs[number], question, turns, decoding
        )
        if left_out := len(turns) - len(shown):
            self._tell(
                f"the oldest {left_out} of {len(turns)} turns are left out: the model "
                f"reads at most {self.model.context} tokens, the next answer included"
            )
        return shown

    def _tell_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._tell(sentence)
