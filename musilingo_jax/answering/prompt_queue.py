"""Prompts that wait for a row, those that begin alike one after the other."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from musilingo_jax.answering.padded_prompts import PromptTokens
from musilingo_jax.models.heard import WORD

# The tokens and audio slots of a prefix, and the bytes of its features.
PrefixKey = tuple[tuple[int, ...], tuple[int, ...], bytes]


@dataclass(frozen=True)
class QueuedPrompt:
    """A queued prompt. It is read in two parts.

        <s> ###Human: <Audio> ♪ ♪ | </Audio> Which genre? ###Assistant:
                prefix            |              rest

    Questions about one clip have the same prefix, which is read once for all of them.
    Every prompt is cut after its audio, whether or not another one shares its prefix:
    so what is read together depends on the prompt alone, and so does the answer. A
    prompt that goes on with a conversation is cut where it differs from what a row
    has read of that, if one has (`row_texts.py`).

    Attributes:
      index: its number in the job.
      prompt: all of it.
      seed: what the draws for its answer are derived from.
      limit: tokens of its answer at most; None for as many as a row has room for.
      continues: whether earlier turns of a conversation stand in it.
    """

    index: int
    prompt: PromptTokens
    seed: int
    limit: int | None = None
    continues: bool = False

    @cached_property
    def prefix_length(self) -> int:
        """Tokens up to the last vector of audio; 0 for a prompt without audio.

        The rest is never empty, since the answer's first token is chosen after it. If a
        prompt ends with its audio, the last audio vector is the rest.
        """
        audio = [i for i, slot in enumerate(self.prompt.audio_slot) if slot != WORD]
        return min(audio[-1] + 1 if audio else 0, len(self.prompt.tokens) - 1)

    @property
    def prefix(self) -> PromptTokens:
        """What is read once for all prompts that begin with it; may be empty."""
        return self.prompt.split(self.prefix_length)[0]

    @cached_property
    def prefix_key(self) -> PrefixKey:
        """Equal for prompts with the same prefix."""
        prefix = self.prefix
        audio = prefix.features.tobytes() if self.prefix_length else b""
        return prefix.tokens, prefix.audio_slot, audio


class PromptQueue:
    """Prompts that have no row yet; those that are there from the start, by prefixes.

    Prefixes come in the order of the first prompt that has each:

        asked     a?   b?   a??   c?   b??
        queued    a?   a??   b?   b??   c?

    So a prefix is needed for a short time only, and few of them need to be kept.
    """

    def __init__(self, prompts: Sequence[QueuedPrompt]):
        first: dict[PrefixKey, int] = {}
        for prompt in prompts:
            first.setdefault(prompt.prefix_key, len(first))
        self._waiting = sorted(prompts, key=lambda prompt: first[prompt.prefix_key])
        self._left = Counter(prompt.prefix_key for prompt in prompts)

    def __len__(self) -> int:
        return len(self._waiting)

    def next(self, count: int) -> list[QueuedPrompt]:
        """The next prompts, at most `count`; they stay in the queue."""
        return self._waiting[:count]

    def remove(self, count: int) -> None:
        """Removes the next `count` prompts."""
        self._left.subtract(prompt.prefix_key for prompt in self._waiting[:count])
        del self._waiting[:count]

    def add(self, prompt: QueuedPrompt) -> None:
        """Puts a prompt at the end, whatever its prefix is."""
        self._waiting.append(prompt)
        self._left[prompt.prefix_key] += 1

    def withdraw(self, index: int) -> bool:
        """Removes the prompt with this number; whether it was here."""
        for place, prompt in enumerate(self._waiting):
            if prompt.index == index:
                self._left[prompt.prefix_key] -= 1
                del self._waiting[place]
                return True
        return False

    def needs(self, key: PrefixKey) -> bool:
        """Whether a prompt in the queue has this prefix."""
        return self._left[key] > 0

    def prefixes(
        self, *, besides: Collection[PrefixKey], count: int
    ) -> dict[PrefixKey, PromptTokens]:
        """The next prefixes besides those given, each once, at most `count`."""
        found: dict[PrefixKey, PromptTokens] = {}
        for prompt in self._waiting:
            key = prompt.prefix_key
            if len(found) == count:
                break
            if key not in besides and key not in found:
                found[key] = prompt.prefix
        return found
