"""What a language model is asked for: one text for each family, and what is known.

    <the instruction of the family>

    {"captions": ["A slow piano piece."], "key": "A minor", "tempo": "112"}

The texts are ours. What they ask for follows the families of LLark (Gardner et al.
2024), which were asked of other models.
"""

import json

from musilingo_jax.instruction.pairs import (
    CAPTIONING,
    REASONING,
    UNDERSTANDING,
    Item,
    number,
)

VERSION = 1
"""Of all texts; another one makes other pairs."""

# Chords of one request: a song has hundreds, and its beginning shows what they are.
_MOST_CHORDS = 32
_FRAME = """You listen to a clip of music. What you hear is noted below as JSON: \
captions by people, and facts. tempo is in beats per minute, metre is beats in a bar, \
chords and sections are in order. A thing that is not noted may be there or not: say \
nothing of it. Speak as somebody who hears the music, in English. Never mention the \
notes, captions, tags or data, nor artist, title, album, lyrics or length. Say only \
what is certain.

{task}

Reply with a JSON list and nothing else: \
[{{"question": "…", "answer": "…"}}, …]

{known}"""
_TASKS = {
    UNDERSTANDING: "Write {pairs} questions about facts of this music, with their "
    "answers. Be diverse: style, mood, tempo, key, metre, instruments and voices that "
    "are there, how it sounds. Ask for one thing at a time. Some answers are a few "
    "words long, some explain a term to a layman in a sentence or two.",
    CAPTIONING: "Write {pairs} different requests for a description of this music, "
    "with the descriptions: the first of one sentence, each next one more detailed, "
    "with the instruments, how they play together, rhythm, harmony and mood, as far as "
    "they are noted.",
    REASONING: "Write {pairs} questions about this music that take thought or musical "
    "knowledge, with answers of several sentences that give the reasons. Such as: how "
    "to practise it, how to change it so that it becomes happier, calmer or fit for "
    "dancing, how it could be produced, what its harmony or metre implies, in which "
    "situation it fits and why. One noted fact alone must not be the answer.",
}

ALL = "\n".join((_FRAME, *_TASKS.values()))
"""The texts of all families."""


def text(item: Item, pairs: int) -> str:
    """What a model is asked for.

    Args:
      item: the clip and the family.
      pairs: how many are wanted.
    """
    known = item.subject.known
    if item.subject.chords:
        known["chords"] = list(item.subject.chords[:_MOST_CHORDS])
    return _FRAME.format(
        task=_TASKS[item.family].format(pairs=pairs),
        known=json.dumps(known, ensure_ascii=False),
    )


def seed(item: Item, given: int) -> int:
    """The seed of a request: of the command line's, the clip and the family."""
    return number(given, item.id) % 2**31
