"""A loaded model that listens to songs and answers questions about them."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jax.sharding import Mesh

from musilingo_jax.answering.answer import Answer, answer_each, check_question, stream
from musilingo_jax.answering.answerer import Answerer, load_answerer
from musilingo_jax.answering.padded_prompts import Features
from musilingo_jax.answering.prompts import encode as encode_prompt
from musilingo_jax.answering.usage import Usage
from musilingo_jax.audio import waveforms
from musilingo_jax.audio.features import encode
from musilingo_jax.audio.level import brought_to, is_silent
from musilingo_jax.models.mert import Mert
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import printable
from musilingo_jax.runtime.sharding import make_mesh


@dataclass(frozen=True)
class Excerpt:
    """The part of a song that the model heard.

    Attributes:
      path: the song.
      start, stop: where the excerpt begins and ends, in seconds.
      seconds: the length of the whole song.
      silent: whether all of the excerpt is silence.
      notices: what the listener should know: clauses whose subject is the song.
      features: pooled features of the excerpt.
    """

    path: Path
    start: float
    stop: float
    seconds: float
    silent: bool
    notices: tuple[str, ...]
    features: Features

    def __str__(self) -> str:
        """One line for what was heard, and one for each notice."""
        heard = f"{clock(self.start)}–{clock(self.stop)} of {clock(self.seconds)}"
        silence = " (it is silent: expect no sensible answer)" if self.silent else ""
        lines = [f"heard {heard}{silence}", *self.notices]
        return printable("\n".join(f"{self.path}: {line}" for line in lines))


@dataclass(frozen=True)
class Chat:
    """A whole model: it listens to a song once and answers any number of questions.

        chat = Chat.load("musilingo-tiny", adapter=None)
        excerpt = chat.hear(Path("song.ogg"), start=None, seconds=30)
        answers = chat.ask(excerpt, ["Which genre is it?", "How fast is it?"])

    Attributes:
      mert: the music encoder.
      answerer: adapter, language model and tokenizer.
      usage: how the model was trained to be asked.
      mesh: the devices that all of it is on.
    """

    mert: Mert
    answerer: Answerer
    usage: Usage
    mesh: Mesh

    @classmethod
    def load(
        cls, source: str | Path, adapter: str | None, style: str | None = None
    ) -> "Chat":
        """Loads a model onto the first device.

        Args:
          source: a folder or a name, as in `Usage.of`.
          adapter: another adapter, or None.
          style: as in `Usage.of`.

        Raises:
          UserError: as in `Usage.of`; or a part is missing, or the parts do not fit
            together.
        """
        usage = Usage.of(source, adapter, style)
        model = usage.model
        mesh = make_mesh(data=1, fsdp=1, tensor=1)
        # The adapter first: it is small, and what an unfinished run lacks.
        sources.find(model.adapter, "adapter")
        return cls(
            mert=weights.load_encoder(model.encoder, dtype=model.dtype, mesh=mesh),
            answerer=load_answerer(model, usage.features.window_frames, mesh),
            usage=usage,
            mesh=mesh,
        )

    @property
    def max_seconds(self) -> float:
        """The longest excerpt that is heard at once: as many windows as in training."""
        frames = self.usage.max_windows * self.usage.features.window_frames
        samples = self.mert.config.samples_for_frames(frames)
        return samples / self.mert.config.sample_rate

    def hear(self, path: Path, *, start: float | None, seconds: float) -> Excerpt:
        """Listens to a song, or to an excerpt if it is longer than `seconds`.

        Args:
          path: the song.
          start: where the excerpt begins, in seconds; None to take it from the middle.
          seconds: its length at most. It is never longer than `max_seconds`, since the
            model was not trained on more audio at once.

        Raises:
          UserError: the song cannot be read, or ends before `start`.
        """
        rate = self.mert.config.sample_rate
        notices: list[str] = []
        waveform = waveforms.load(path, sample_rate=rate, tell=notices.append)
        total = len(waveform) / rate
        length = min(seconds, self.max_seconds)
        if start is None:
            start = max(0.0, (total - length) / 2)
        elif start > total - waveforms.SHORTEST_SECONDS:
            raise UserError(
                f"{path}: lasts {clock(total)} ({total:.1f} s), so there is nothing to "
                f"hear from second {start:g} on: choose an earlier --start"
            )
        stop = min(total, start + length)
        if length < min(seconds, total - start):
            notices.append(
                f"lasts longer than the {length:.1f} s that this model hears at once, "
                "which is what it heard in training: choose a part by --start"
            )
        heard = waveform[round(start * rate) : round(stop * rate)]
        level = self.usage.features.level
        blocks = brought_to(level, lambda tell: iter([heard]), notices.append)
        ((_, features),) = encode(self.mert, [blocks], self.usage.features, self.mesh)
        if isinstance(features, UserError):
            raise UserError(f"{path}: {features}")
        return Excerpt(
            path=path,
            start=start,
            stop=stop,
            seconds=total,
            silent=is_silent(heard),
            notices=tuple(notices),
            features=features,
        )

    @property
    def cut_mark(self) -> str:
        """What to show after an answer that is cut."""
        return f" … (cut after {self.usage.generate.max_new_tokens} tokens)"

    def ask(self, excerpt: Excerpt, questions: Sequence[str]) -> list[str]:
        """The texts of `answers`."""
        return [answer.text for answer in self.answers(excerpt, questions)]

    def answers(self, excerpt: Excerpt, questions: Sequence[str]) -> list[Answer]:
        """The answers to questions about an excerpt, each asked on its own.

        Raises:
          UserError: a question is longer than any in training, or contains the prompt's
            end sign; or it leaves no room for an answer.
        """
        for question in questions:
            self._check(excerpt, question)
        requests = [(excerpt.features, question) for question in questions]
        usage = self.usage
        each = answer_each(self.answerer, usage.prompt, requests, usage.generate)
        answers = dict(each)
        return [answers[index] for index in range(len(requests))]

    def stream(self, excerpt: Excerpt, question: str) -> Generator[str, None, bool]:
        """The answer to a question, in pieces, while it is generated.

        Returns:
          Whether it was cut, as the value of a `yield from`.

        Raises:
          UserError: as in `ask`; what concerns the question alone, at once.
        """
        self._check(excerpt, question)
        usage, request = self.usage, (excerpt.features, question)
        return stream(self.answerer, usage.prompt, request, usage.generate)

    def _check(self, excerpt: Excerpt, question: str) -> None:
        usage, windows = self.usage, len(excerpt.features)
        check_question(usage.prompt, question)
        prompt = encode_prompt(
            self.answerer.tokenizer, usage.prompt, question, None, windows
        )
        length = len(prompt.tokens)
        if length > usage.max_tokens:
            raise UserError(
                f"the question {question[:40]!r}… takes {length} tokens with its song, "
                f"and training saw at most {usage.max_tokens}: ask a shorter one"
            )


def clock(seconds: float) -> str:
    """Minutes and seconds: 75.2 → "01:15"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:02d}:{rest:02d}"
