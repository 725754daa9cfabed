"""What the server needs of a model."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.conversation import Conversation
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.joint_answer import Answering
from musilingo_jax.answering.model import EMBEDDED, Model
from musilingo_jax.runtime import listening

# Of `GenerateConfig`: what a request may change.
_SETTINGS = ("temperature", "top_p", "max_new_tokens", "seed", "stop")
# Of made-up songs; most files have it, and are resampled.
_RATE = 44_100


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
        return cls(model, name or listening.shown_name(source))

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exception: object) -> None:
        self._model.close()

    def warm_up(self) -> None:
        """Asks about noise, so that no client waits for what is compiled by that.

        A short file and a long one, short questions and longer ones, the likeliest
        words and drawn ones: what is asked of a server mostly needs no other programs.
        """
        generator = np.random.default_rng(0)
        with tempfile.TemporaryDirectory(prefix="musilingo-") as folder:
            for seconds in (1.0, self._model.max_seconds):
                noise = generator.uniform(-0.5, 0.5, (round(seconds * _RATE), 2))
                path = Path(folder) / "noise.wav"
                soundfile.write(path, noise, _RATE)
                heard = self._model.hear(path)
                for question in ("What is it?", "What is it? " * 6):
                    for temperature in (0.0, 0.7):
                        self._model.ask(
                            heard, question, temperature=temperature, max_new_tokens=2
                        )

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
        tell: Callable[[str], None],
    ) -> Answering:
        """Asks a question about the songs that it names, or else about the last one.

        Args:
          songs: what was heard, in the order of the messages.
          earlier: questions that were asked before, and their answers.
          question: what is asked, as in `Conversation.ask`.
          decoding: how the answer is decoded.
          tell: gets what the client should know beside the answer.

        Raises:
          UserError: it cannot be asked, or is too long.
          QueueFull: too many others wait.
        """
        talk = Conversation(self._model, tell=tell, mark_cuts=False)
        for number, song in enumerate(songs, start=1):
            # A single song needs no name, and then no question can name it by accident.
            name = f"song {number}" if len(songs) > 1 else ""
            talk.add(replace(song, name=name))
        for name in _SETTINGS:
            talk.set(name, getattr(decoding, name))
        for asked, said in earlier:
            talk.remember(asked, said)
        return talk.submit(question)
