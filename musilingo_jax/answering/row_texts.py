"""What the rows of a batch have read and written, also those that are free.

A row that has finished keeps its cache until another prompt gets it. The next question
of a conversation begins with all of that, so only what is new of it is read:

    row 3, free     <s> ###Human: <Audio> ♪ ♪ </Audio> Which genre? ###Assistant: Jazz.
    next prompt     <s> ###Human: <Audio> ♪ ♪ </Audio> Which genre? ###Assistant: Jazz.
                    ###Human: How do you know? ###Assistant:
                    ---------------------------------------- read

This takes no memory besides that of the rows. As many conversations are kept as there
are rows; those that were silent for the longest time are overwritten first.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from musilingo_jax.answering.prompt_queue import QueuedPrompt
from musilingo_jax.models.heard import WORD


class Beginning(NamedTuple):
    """What a prompt begins with: the row that holds it, and how many tokens it has."""

    row: int
    length: int


class _Text(NamedTuple):
    """Tokens that a row's cache holds, those of its song among them."""

    tokens: tuple[int, ...]
    audio_slot: tuple[int, ...]
    audio: bytes


class RowTexts:
    """Which text the cache of each row holds."""

    def __init__(self) -> None:
        """Rows without text."""
        # The one that was begun last is the last.
        self._texts: OrderedDict[int, _Text] = OrderedDict()

    def begin(self, row: int, queued: QueuedPrompt) -> None:
        """A row has read a prompt."""
        prompt = queued.prompt
        audio = prompt.features.tobytes()
        self._texts[row] = _Text(prompt.tokens, prompt.audio_slot, audio)
        self._texts.move_to_end(row)

    def extend(self, row: int, answer: Sequence[int]) -> None:
        """A row has generated an answer, of which its cache lacks the last token."""
        text, more = self._texts[row], tuple(answer[:-1])
        self._texts[row] = _Text(
            text.tokens + more, text.audio_slot + (WORD,) * len(more), text.audio
        )

    def beginning(self, queued: QueuedPrompt) -> Beginning | None:
        """The longest part that a row holds of the prompt of a conversation.

        The last token of the prompt is never in it, since the answer's first one is
        chosen after that is read.

        Returns:
          None if the prompt does not go on with a conversation, or no row holds more of
          it than its audio.
        """
        if not queued.continues:
            return None
        prompt = queued.prompt
        audio = prompt.features.tobytes()
        found = [
            Beginning(row, _common(prompt.tokens, text.tokens))
            for row, text in self._texts.items()
            if text.audio == audio
            # They agree in where the audio is if they do so up to its end.
            and text.audio_slot[: queued.prefix_length]
            == prompt.audio_slot[: queued.prefix_length]
        ]
        longest = max(found, key=lambda one: one.length, default=Beginning(0, 0))
        length = min(longest.length, len(prompt.tokens) - 1)
        return Beginning(longest.row, length) if length > queued.prefix_length else None

    def longest_silent(self, rows: Iterable[int]) -> list[int]:
        """These rows: those without text, then the others as they were begun."""
        ages = {row: age for age, row in enumerate(self._texts)}
        return sorted(rows, key=lambda row: ages.get(row, -1))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with that are the same."""
    length = min(len(one), len(other))
    return next((i for i in range(length) if one[i] != other[i]), length)
