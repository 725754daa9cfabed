"""A whole model for programs and notebooks: `musilingo_jax.load` returns one."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack, overload

import numpy as np

from musilingo_jax.answering.answer import Answer, prompt_tokens, stop_texts_of
from musilingo_jax.answering.answerer import Answerer, load_answerer
from musilingo_jax.answering.config import Decoding, GenerateConfig
from musilingo_jax.answering.conversation import Conversation
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.growing_batch import GrowingBatch
from musilingo_jax.answering.listener import Listener, Song
from musilingo_jax.answering.pending import Pending
from musilingo_jax.answering.question import Question
from musilingo_jax.answering.usage import Usage
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.runtime import platforms
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh

EMBEDDED = "musilingo-tiny"
CAPTION = "Describe the music in detail."


class Model:
    """A music encoder, an adapter and a language model, ready for questions.

    >>> import musilingo_jax as ml
    >>> clips = "musilingo_jax/assets/musilingo-tiny-corpus/clips"
    >>> model = ml.load()
    >>> model.ask(f"{clips}/00002.ogg", "What style of music is this?")
    'This piece is techno.'
    >>> model.ask(f"{clips}/00002.ogg", ["What is the pace?", "Do you hear drums?"])
    ['The tempo is slow.', 'No, there are no drums.']
    >>> model.embed(f"{clips}/00002.ogg").shape
    (3, 192)
    >>> "".join(model.stream(f"{clips}/00002.ogg", "Which instrument leads?"))
    'The lead instrument is the trumpet.'
    >>> model.close()

    A song is a path, an array with its samples per second, `(array, 44_100)`, or an
    `Excerpt` that `hear` returned, which is not listened to again. Any number of
    threads may use a model at the same time: their questions share a batch.

    Attributes:
      listener: the encoder, and how songs are heard.
      answerer: adapter, language model and tokenizer.
      usage: how the model was trained to be asked.
    """

    def __init__(
        self,
        listener: Listener,
        answerer: Answerer,
        usage: Usage,
        *,
        rows: int = 8,
        queue: int | None = None,
    ):
        """A model of loaded parts; see `load`."""
        self.listener, self.answerer, self.usage = listener, answerer, usage
        most = sys.maxsize if queue is None else queue
        self._batch = GrowingBatch(
            answerer, rows=rows, windows=usage.max_windows, queue=most
        )

    @classmethod
    def load(
        cls,
        source: str | Path = EMBEDDED,
        *,
        adapter: str | Path | None = None,
        style: str | None = None,
        rows: int = 8,
        queue: int | None = None,
    ) -> "Model":
        """Loads a model onto the first device.

        Args:
          source: the embedded model ("musilingo-tiny"), the folder of a run or of a
            release, or a name on the Hugging Face hub.
          adapter: the folder of another adapter for the same two other parts.
          style: "evaluation" or "demo", for a release of MusiLingo: which of its
            authors' programs asks it. None for "evaluation".
          rows: questions that are answered at the same time, whoever asks them.
          queue: questions that may wait for a row, for a server that would rather
            refuse one (`live_batch.QueueFull`); None for any number.

        Raises:
          UserError: there is no such model, a part of it is missing or damaged, or its
            parts do not fit together.
        """
        if rows < 1:
            raise UserError(f"rows is {rows}: it must be at least 1")
        platforms.start()
        usage = Usage.of(source, None if adapter is None else str(adapter), style)
        parts = usage.model
        mesh = make_mesh(data=1, fsdp=1, tensor=1)
        # The adapter first: it is small, and what an unfinished run lacks.
        sources.find(parts.adapter, "adapter")
        mert = weights.load_encoder(parts.encoder, dtype=parts.dtype, mesh=mesh)
        return cls(
            Listener(mert, usage.features, usage.max_windows, mesh),
            load_answerer(parts, usage.features, mesh),
            usage,
            rows=rows,
            queue=queue,
        )

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self, timeout: float | None = 0.0) -> None:
        """Takes no more questions.

        Args:
          timeout: seconds that answers on their way have to finish, after which they
            are cancelled; None for as long as they take.
        """
        self._batch.close(timeout)

    @property
    def name(self) -> str:
        """The source of the language model's adapter, which is what was trained."""
        return self.usage.model.adapter

    @property
    def max_seconds(self) -> float:
        """The longest stretch of a song that is heard at once."""
        return self.listener.max_seconds

    @property
    def context(self) -> int:
        """Tokens of a prompt and its answer at most."""
        return self.answerer.context

    def hear(
        self,
        song: Song | Excerpt,
        start: float | None = None,
        seconds: float | None = None,
    ) -> Excerpt:
        """Listens to a song once, for any number of questions.

        Without `start` and `seconds` all of it is heard; of a song longer than
        `max_seconds`, windows that are spread evenly over it. `print` the excerpt to
        see which.

        Args:
          song: the song; an excerpt is returned as it is.
          start: where a stretch begins, in seconds; with `seconds` alone, the stretch
            is the song's middle.
          seconds: the length of the stretch; never more than `max_seconds`.

        Raises:
          UserError: the song cannot be read, or ends before `start`.
        """
        if isinstance(song, Excerpt):
            return song
        if start is None and seconds is None:
            return self.listener.hear_all(song)
        return self.listener.hear(song, start=start, seconds=seconds)

    def embed(self, song: Song) -> np.ndarray:
        """What the encoder makes of a song: float32 [windows, width].

        One vector for each window of `listener.window_seconds`, in order, all of them.

        Raises:
          UserError: the song cannot be read.
        """
        return self.listener.embed(song)

    @overload
    def ask(
        self, song: Song | Excerpt, question: str, **decoding: Unpack[Decoding]
    ) -> str: ...

    @overload
    def ask(
        self,
        song: Song | Excerpt,
        question: Sequence[str],
        **decoding: Unpack[Decoding],
    ) -> list[str]: ...

    @overload
    def ask(
        self,
        song: list[Song | Excerpt],
        question: str,
        **decoding: Unpack[Decoding],
    ) -> list[str]: ...

    @overload
    def ask(
        self,
        song: list[Song | Excerpt],
        question: Sequence[str],
        **decoding: Unpack[Decoding],
    ) -> list[list[str]]: ...

    def ask(
        self,
        song: Any,
        question: str | Sequence[str],
        **decoding: Unpack[Decoding],
    ) -> Any:
        """Answers a question about a song, or several about several, in one batch.

            song            question            returned
            one             one                 an answer
            one             n, in a list        n answers, in order
            m, in a list    one                 m answers, in order
            m, in a list    n, in a list        m lists of n answers: [song][question]

        Args:
          song: one song, or a list of songs. A tuple is one song: an array and its
            samples per second.
          question: one question, or several.
          **decoding: of `Decoding`.

        Raises:
          UserError: a song cannot be read; a question is longer than any in training,
            or holds the sign that ends a turn; or a setting is impossible.
        """
        songs = song if isinstance(song, list) else [song]
        questions = [question] if isinstance(question, str) else list(question)
        pending = [self._ask_all(one, questions, decoding) for one in songs]
        found = [[one.answer().text for one in answers] for answers in pending]
        if isinstance(question, str):
            texts = [answers[0] for answers in found]
            return texts if isinstance(song, list) else texts[0]
        return found if isinstance(song, list) else found[0]

    def answers(
        self,
        song: Song | Excerpt,
        questions: Sequence[str],
        **decoding: Unpack[Decoding],
    ) -> list[Answer]:
        """As `ask` with several questions, but says which answers were cut."""
        pending = self._ask_all(song, questions, decoding)
        return [one.answer() for one in pending]

    def stream(
        self, song: Song | Excerpt, question: str, **decoding: Unpack[Decoding]
    ) -> Iterator[str]:
        """The answer in pieces, while it is generated; joined, they are its text.

        Who stops reading before the end stops the answer.

        Raises:
          UserError: as in `ask`; at once.
        """
        return self.submit(self.hear(song), question, **decoding).pieces()

    def caption(self, song: Song | Excerpt, **decoding: Unpack[Decoding]) -> str:
        """A description of a song in a few sentences.

        Raises:
          UserError: as in `ask`.
        """
        return self.ask(song, CAPTION, **decoding)

    def chat(self) -> Conversation:
        """A conversation with memory about any number of songs."""
        return Conversation(self)

    def submit(
        self,
        excerpt: Excerpt,
        question: str,
        *,
        earlier: Sequence[tuple[str, str]] = (),
        **decoding: Unpack[Decoding],
    ) -> Pending:
        """Asks, and does not wait: the answer can be read along, counted and cancelled.

        Args:
          excerpt: what was heard.
          question: what is asked.
          earlier: questions that were asked about it before, and their answers.
          **decoding: of `Decoding`.

        Raises:
          UserError: as in `ask`.
          QueueFull: as many questions wait as `queue` allows.
          RuntimeError: the model is closed.
        """
        return self._submit(self._checked(excerpt, question, earlier, decoding))

    def prompt_length(
        self, excerpt: Excerpt, question: str, earlier: Sequence[tuple[str, str]] = ()
    ) -> int:
        """Tokens of a prompt, audio vectors included."""
        asked = excerpt.features, question, earlier
        return len(prompt_tokens(self.answerer, self.usage.prompt, *asked).tokens)

    def decoding(self, **changes: Unpack[Decoding]) -> GenerateConfig:
        """How answers are decoded: the model's own settings with some changes.

        Raises:
          UserError: a setting is unknown or impossible.
        """
        if unknown := sorted(changes.keys() - Decoding.__annotations__.keys()):
            raise UserError(
                f"there is no setting {unknown[0]!r} of an answer: choose among "
                f"{', '.join(Decoding.__annotations__)}"
            )
        stop = changes.get("stop", self.usage.generate.stop)
        stop = (stop,) if isinstance(stop, str) else tuple(stop)
        values: dict[str, Any] = {**changes, "stop": stop}
        return replace(self.usage.generate, **values)

    def _ask_all(
        self, song: Song | Excerpt, questions: Sequence[str], decoding: Decoding
    ) -> list[Pending]:
        excerpt = self.hear(song)  # All are checked before the first one is asked.
        checked = [self._checked(excerpt, text, (), decoding) for text in questions]
        return [self._submit(question) for question in checked]

    def _checked(
        self,
        excerpt: Excerpt,
        question: str,
        earlier: Sequence[tuple[str, str]],
        decoding: Decoding,
    ) -> Question:
        config = self.decoding(**decoding)
        asked = Question(excerpt.features, question, tuple(earlier), config)
        return asked.checked(self.answerer, self.usage)

    def _submit(self, question: Question) -> Pending:
        prompt, decoding = question.prompt(self.answerer, self.usage), question.decoding
        needed = len(prompt.tokens) + decoding.max_new_tokens
        return self._batch.with_room(needed).submit(
            prompt,
            decoding=decoding,
            stop_texts=stop_texts_of(self.usage.prompt, decoding),
            seed=question.seed,
            continues=bool(question.earlier),
        )
