"""What the server needs of a model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.model import EMBEDDED, Model
from musilingo_jax.answering.pending import Pending

_RATE = 24_000


class Engine:
    """A loaded model, of which all methods may be called by several threads.

    Attributes:
      name: of the model, as clients call it.
      decoding: how it decodes unless a request says otherwise.
    """

    def __init__(self, model: Model, name: str):
        """A model with a name."""
        self.name = name
        self.decoding: GenerateConfig = model.decoding()
        self._model = model

    @classmethod
    def load(
        cls,
        source: str | None,
        *,
        adapter: str | None,
        style: str | None,
        name: str | None,
        rows: int,
        queue: int,
    ) -> "Engine":
        """Loads a model.

        Args:
          source: of it; None for the embedded one.
          adapter: another adapter, or None.
          style: of a release, or None.
          name: what clients call it; None for what its source is called.
          rows: questions that are answered at the same time.
          queue: questions that may wait for a row.

        Raises:
          UserError: as in `Model.load`.
        """
        source = source or EMBEDDED
        model = Model.load(source, adapter=adapter, style=style, rows=rows, queue=queue)
        # The path of a folder is nothing for clients.
        plain = Path(source).resolve().name if Path(source).exists() else source
        return cls(model, name or plain)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exception: object) -> None:
        self._model.close()

    def warm_up(self) -> None:
        """Answers a question about silence, so that the first client need not wait.

        What a model has to compile is compiled by this.
        """
        silence = np.zeros(round(self._model.max_seconds * _RATE), np.float32)
        excerpt = self._model.hear((silence, _RATE))
        for question in ("What is it?", "What is it? " * 6):
            self._model.ask(excerpt, question, max_new_tokens=2)

    def hear(self, path: Path) -> Excerpt:
        """Listens to a song, or to parts of a long one that are spread over it.

        Raises:
          UserError: it cannot be heard.
        """
        return self._model.hear(path)

    def embed(self, path: Path) -> Float[np.ndarray, " width"]:
        """The mean of what the encoder makes of the windows of a song.

        Raises:
          UserError: it cannot be heard.
        """
        windows = self._model.embed(path)
        return windows.reshape(-1, windows.shape[-1]).mean(axis=0, dtype=np.float32)

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
        (excerpt,) = songs
        return self._model.submit(
            excerpt,
            question,
            earlier=earlier,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            max_new_tokens=decoding.max_new_tokens,
            seed=decoding.seed,
            stop=decoding.stop,
        )
