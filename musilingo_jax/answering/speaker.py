"""What a conversation is held with."""

from collections.abc import Sequence
from typing import Protocol, Unpack, runtime_checkable

from musilingo_jax.answering.config import Decoding, GenerateConfig
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.listener import Song
from musilingo_jax.answering.pending import Pending
from musilingo_jax.answering.usage import Usage


@runtime_checkable
class Speaker(Protocol):
    """The part of a `Model` that a conversation needs; see there.

    Attributes:
      usage: how the model was trained to be asked.

    The shape checks of the tests look at run time whether an argument is one.
    """

    usage: Usage

    @property
    def name(self) -> str:
        """The source of the model."""
        ...

    @property
    def context(self) -> int:
        """Tokens of a prompt and its answer at most."""
        ...

    def hear(
        self, song: Song | Excerpt, start: float | None, seconds: float | None
    ) -> Excerpt:
        """Listens to a song."""
        ...

    def decoding(self, **changes: Unpack[Decoding]) -> GenerateConfig:
        """How answers are decoded, with some changes."""
        ...

    def prompt_length(
        self, excerpt: Excerpt, question: str, earlier: Sequence[tuple[str, str]]
    ) -> int:
        """Tokens of a prompt, audio vectors included."""
        ...

    def submit(
        self,
        excerpt: Excerpt,
        question: str,
        *,
        earlier: Sequence[tuple[str, str]],
        **decoding: Unpack[Decoding],
    ) -> Pending:
        """Asks, and does not wait."""
        ...
