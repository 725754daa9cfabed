"""The messages of a request → songs, earlier turns and a question."""

from collections.abc import Sequence
from dataclasses import dataclass

from musilingo_jax.serve.errors import Refusal
from musilingo_jax.serve.protocol import (
    AssistantMessage,
    Message,
    SongPart,
    SystemMessage,
    TextPart,
    UserMessage,
)


@dataclass(frozen=True)
class Placed:
    """A song of a request, and where it is there.

    Attributes:
      part: what was sent.
      param: the place, such as "messages[0].content[1]".
    """

    part: SongPart
    param: str


@dataclass(frozen=True)
class Conversation:
    """What the model is asked.

    Attributes:
      songs: of all messages, in their order.
      earlier: questions that were asked before, and their answers.
      question: the last one.
    """

    songs: tuple[Placed, ...]
    earlier: tuple[tuple[str, str], ...]
    question: str


def read(messages: Sequence[Message], *, most_songs: int) -> Conversation:
    """Reads messages, which are questions and answers in turn.

    Args:
      messages: of a request; a question is the last one.
      most_songs: in all of them.

    Raises:
      Refusal: they are in another order, a message is empty, or there are instructions,
        no song, or too many.
    """
    songs: list[Placed] = []
    texts: list[str] = []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if isinstance(message, SystemMessage):
            raise Refusal(
                400,
                f"{place}: this model was trained without {message.role} messages and "
                "its prompt has no place for one: put the instruction into a question",
                param=f"{place}.role",
                code="unsupported_role",
            )
        expected = AssistantMessage if index % 2 else UserMessage
        if not isinstance(message, expected):
            raise Refusal(
                400,
                f"{place} is of the {message.role}: questions of the user and answers "
                "of the assistant take turns, beginning with a question",
                param=f"{place}.role",
                code="wrong_turn",
            )
        texts.append(_text(message, place))
        songs += _songs(message, place)
    if len(messages) % 2 == 0:
        raise Refusal(
            400,
            "the last message is an answer: end with a question of the user",
            param="messages",
            code="wrong_turn",
        )
    if not songs:
        raise Refusal(
            400,
            "there is no song in the messages: add a part of type input_audio or "
            "audio_url to the first one",
            param="messages",
            code="no_song",
        )
    if len(songs) > most_songs:
        raise Refusal(
            400,
            f"there are {len(songs)} songs in the messages, and this server hears at "
            f"most {most_songs} together",
            param=songs[most_songs].param,
            code="too_many_songs",
        )
    earlier = zip(texts[0:-1:2], texts[1::2], strict=True)
    return Conversation(tuple(songs), tuple(earlier), texts[-1])


def _text(message: UserMessage | AssistantMessage, place: str) -> str:
    """The texts of a message, a line for each part.

    Raises:
      Refusal: there are none.
    """
    content = message.content
    if isinstance(content, str):
        text = content
    else:
        text = "\n".join(part.text for part in content if isinstance(part, TextPart))
    if not text.strip():
        raise Refusal(
            400,
            f"{place} has no text: add the question as a part of type text",
            param=f"{place}.content",
            code="no_text",
        )
    return text.strip()


def _songs(message: UserMessage | AssistantMessage, place: str) -> list[Placed]:
    if isinstance(message.content, str):
        return []
    return [
        Placed(part, f"{place}.content[{index}]")
        for index, part in enumerate(message.content)
        if not isinstance(part, TextPart)
    ]
