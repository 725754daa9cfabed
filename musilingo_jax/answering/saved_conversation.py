"""A conversation as a JSON file: songs by their names, turns, settings."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json
from musilingo_jax.runtime.storage import write_text, writing

_FORMAT = 1


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


@dataclass(frozen=True)
class Place:
    """Which part of which song was heard.

    Attributes:
      name: of the song, by which it can be heard again.
      start: second at which the part begins; None for windows that are spread.
      seconds: length of the part; None likewise.
    """

    name: str
    start: float | None
    seconds: float | None


@dataclass(frozen=True)
class SavedConversation:
    """What is kept of a conversation.

    Attributes:
      model: name of the model.
      songs: in the order in which they were added.
      turns: all turns.
      settings: those that were changed.
    """

    model: str
    songs: Sequence[Place]
    turns: Sequence[Turn]
    settings: dict[str, Any]

    def write(self, path: Path) -> None:
        """Writes the file; an older one of the kind is replaced.

        Raises:
          UserError: it cannot be written, or there is a file of another kind.
        """
        if path.is_file() and path.stat().st_size:
            try:
                SavedConversation.read(path)
            except UserError as error:
                raise UserError(
                    f"{path}: is there already, and no saved conversation: save it "
                    "under another name"
                ) from error
        content = {"format": _FORMAT, **asdict(self)}
        with writing(path, again="save it under another name"):
            write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> "SavedConversation":
        """Reads what `write` has written.

        Raises:
          UserError: the file cannot be read, or holds something else.
        """
        content = read_json(path)
        try:
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']}")
            turns = [_turn(**turn) for turn in content["turns"]]
            songs = [_place(**place) for place in content["songs"]]
            settings = dict(content["settings"])
            if any(not 0 <= turn.song < len(songs) for turn in turns):
                raise ValueError("a turn is about a song that it does not name")
            return cls(str(content["model"]), songs, turns, settings)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: is no conversation that this version has saved ({error})"
            ) from error


def _place(name: str, start: float | None, seconds: float | None) -> Place:
    """A place of a file.

    Raises:
      TypeError: something in it is of another type.
    """
    numbers = all(one is None or type(one) in (int, float) for one in (start, seconds))
    if not isinstance(name, str) or not numbers:
        raise TypeError("a song is no name with two numbers")
    return Place(name, start, seconds)


def _turn(song: int, question: str, answer: str) -> Turn:
    """A turn of a file.

    Raises:
      TypeError: something in it is of another type.
    """
    if type(song) is not int or not isinstance(question, str):
        raise TypeError("a turn is no song's number, question and answer")
    if not isinstance(answer, str):
        raise TypeError("an answer is no text")
    return Turn(song, question, answer)
