"""What begins with a slash in a conversation at the terminal."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from musilingo_jax.answering.conversation import Conversation
from musilingo_jax.answering.conversation_settings import SETTINGS
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.unicode_names import as_on_disk

HELP = "A question, `/open path` for another song, or an empty line to leave."
COMMANDS = """\
/add PATH            another song beside those there are; name it in a question, as in
                     "how fast is the second song?"
/open PATH           another song in the place of the current one
/songs               the songs, and what was heard of them
/listen 1:30-2:00    another part of the current song; /listen for all of it
/set temperature 0.7 a setting, for the answers to come; /set shows them
/retry               another answer to the last question
/save PATH           writes the conversation as JSON
/reset               forgets what was said
/quit                leaves, as an empty line does"""

_TIME = r"(?:(\d+):)?(?:(\d+):)?(\d+(?:\.\d+)?)"
_RANGE = re.compile(rf"{_TIME}\s*[-–]\s*{_TIME}", re.ASCII)


def seconds_of(text: str) -> tuple[float, float]:
    """The range that a text says: "1:30-2:00" → (90.0, 120.0).

    Raises:
      UserError: it says none.
    """
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        raise UserError(f"{text!r} is no part of a song: give one as in 1:30-2:00")
    times = [
        float(second) + 60 * (int(b) + 60 * int(a) if b else int(a or 0))
        for a, b, second in (found.groups()[:3], found.groups()[3:])
    ]
    if times[0] >= times[1]:
        raise UserError(f"{text!r} ends before it begins: give the earlier time first")
    return times[0], times[1]


class ChatCommands:
    """Carries commands out, for one conversation.

    Attributes:
      leaving: whether `/quit` was given.
    """

    def __init__(
        self,
        talk: Conversation,
        *,
        seconds: float,
        show: Callable[[str], None],
        answer: Callable[[Iterator[str]], None],
    ):
        """Commands for a conversation.

        Args:
          talk: the conversation.
          seconds: length of the part of a song that is heard at first.
          show: prints a text.
          answer: prints an answer that comes in pieces.
        """
        self._talk, self._seconds = talk, seconds
        self._show, self._answer = show, answer
        self.leaving = False
        self._commands: dict[str, Callable[[str], None]] = {
            "/add": self._add,
            "/open": self._open,
            "/songs": self._songs,
            "/listen": self._listen,
            "/set": self._set,
            "/retry": lambda words: answer(talk.retry()),
            "/save": self._save,
            "/reset": self._reset,
            "/quit": self._quit,
        }

    def carry_out(self, line: str) -> None:
        """Carries a command out, or shows which there are.

        Raises:
          UserError: it cannot be carried out; everything stays as it was.
        """
        command, _, words = line.partition(" ")
        if command in self._commands:
            self._commands[command](words.strip())
        else:
            self._show(f"{HELP}\n{COMMANDS}")

    def _add(self, words: str) -> None:
        excerpt = self._talk.add(_path(words, "/add"), seconds=self._seconds)
        self._show(str(excerpt))

    def _open(self, words: str) -> None:
        try:
            song = _path(words, "/open")
            self._show(str(self._talk.listen(song, seconds=self._seconds)))
        except UserError as error:
            raise UserError(
                f"{error}; still listening to {self._talk.current.name}"
            ) from error

    def _songs(self, words: str) -> None:
        del words
        for number, song in enumerate(self._talk.songs, start=1):
            mark = "*" if song is self._talk.current else " "
            self._show(f"{mark} {number}  {song}")

    def _listen(self, words: str) -> None:
        song = self._talk.current
        start = seconds = None
        if words:
            start, stop = seconds_of(words)
            seconds = stop - start
        self._show(str(self._talk.listen(song.name, start, seconds)))

    def _set(self, words: str) -> None:
        name, _, value = words.partition(" ")
        if name:
            if not value.strip():
                raise UserError(
                    f"/set {name}: give a value, as in /set temperature 0.7"
                )
            self._talk.set(name, value.strip())
        changed = [f"{k} = {v}" for k, v in self._talk.settings.items()]
        self._show("\n".join(changed) or f"nothing is set of {', '.join(SETTINGS)}")

    def _save(self, words: str) -> None:
        if not words:
            raise UserError("/save: name a file, as in /save talk.json")
        self._talk.save(Path(words).expanduser())
        self._show(f"saved in {words}")

    def _reset(self, words: str) -> None:
        del words
        self._talk.reset()
        self._show("forgotten")

    def _quit(self, words: str) -> None:
        del words
        self.leaving = True


def _path(words: str, command: str) -> Path:
    if not words:
        raise UserError(f"{command}: name a song, as in {command} song.ogg")
    return as_on_disk(Path(words).expanduser())
