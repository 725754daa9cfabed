"""What the server needs of a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float

from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.conversation import Excerpt
from musilingo_jax.answering.pending import Pending


class Engine(Protocol):
    """A loaded model, of which all methods may be called by several threads.

    Attributes:
      name: of the model.
      decoding: how it decodes unless a request says otherwise.
    """

    name: str
    decoding: GenerateConfig

    def hear(self, path: Path) -> Excerpt:
        """Listens to a song, or to what the model hears of a long one.

        Raises:
          UserError: it cannot be heard.
        """
        ...

    def embed(self, path: Path) -> Float[np.ndarray, " width"]:
        """One vector for a song.

        Raises:
          UserError: it cannot be heard.
        """
        ...

    def submit(
        self,
        songs: Sequence[Excerpt],
        earlier: Sequence[tuple[str, str]],
        question: str,
        decoding: GenerateConfig,
    ) -> Pending:
        """Asks a question.

        Raises:
          UserError: it cannot be asked, or is too long.
          QueueFull: too many others wait.
        """
        ...
