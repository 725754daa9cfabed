"""A loaded model that listens to songs and answers questions about them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from musilingo_jax.answering.answer import (
    Answerer,
    Features,
    answer,
    check_question,
    load_answerer,
    stream,
)
from musilingo_jax.answering.prompts import encode as encode_prompt
from musilingo_jax.answering.usage import Usage
from musilingo_jax.audio import waveforms
from musilingo_jax.audio.features import encode
from musilingo_jax.models.mert import Mert
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh


@dataclass(frozen=True)
class Excerpt:
    """What is heard of a song.

    Attributes:
      path: the song.
      start, stop: seconds of the song.
      seconds: how long the whole song is.
      silent: whether there is nothing to hear.
      features: of the excerpt.
    """

    path: Path
    start: float
    stop: float
    seconds: float
    silent: bool
    features: Features

    def __str__(self) -> str:
        heard = f"{clock(self.start)}–{clock(self.stop)} of {clock(self.seconds)}"
        silence = " (it is silent: expect no sensible answer)" if self.silent else ""
        return f"{self.path}: heard {heard}{silence}"


@dataclass(frozen=True)
class Chat:
    """A loaded model that listens to songs and answers questions about them."""

    mert: Mert
    speaker: Answerer
    usage: Usage
    mesh: jax.sharding.Mesh

    @classmethod
    def load(cls, source: str, adapter: str | None) -> "Chat":
        """Loads a model onto the first device; arguments and errors as `Usage.of`.

        Raises:
          UserError: besides, a part is missing, or they do not fit together.
        """
        usage = Usage.of(source, adapter)
        model = usage.model
        mesh = make_mesh(data=1, fsdp=1, tensor=1)
        # The adapter first: it is what a run may lack, and it is small.
        sources.find(model.adapter, "adapter")
        return cls(
            mert=weights.load_encoder(model.encoder, dtype=model.dtype, mesh=mesh),
            speaker=load_answerer(model, usage.features.window_frames, mesh),
            usage=usage,
            mesh=mesh,
        )

    @property
    def longest(self) -> float:
        """Seconds that fill as many windows as training heard at once."""
        frames = self.usage.max_windows * self.usage.features.window_frames
        samples = self.mert.config.samples_for_frames(frames)
        return samples / self.mert.config.sample_rate

    def hear(self, path: Path, *, start: float | None, seconds: float) -> Excerpt:
        """Listens to a song, or to an excerpt if it is longer than `seconds`.

        Args:
          path: the song.
          start: where the excerpt begins, in seconds; None to take it from the middle.
          seconds: how long it is at most. It is never longer than `longest`: the
            model would have to make sense of more than it was trained to hear.

        Raises:
          UserError: the song cannot be read, or ends before `start`.
        """
        rate = self.mert.config.sample_rate
        waveform = waveforms.load(path, sample_rate=rate)
        total = len(waveform) / rate
        length = min(seconds, self.longest)
        if start is None:
            start = max(0.0, (total - length) / 2)
        elif start > total - waveforms.SHORTEST_SECONDS:
            raise UserError(
                f"{path}: lasts {clock(total)} ({total:.1f} s), so there is nothing to "
                f"hear from second {start:g} on: choose an earlier --start"
            )
        stop = min(total, start + length)
        heard = waveform[round(start * rate) : round(stop * rate)]
        songs = [[heard]]
        ((_, features),) = encode(self.mert, songs, self.usage.features, self.mesh)
        if isinstance(features, UserError):
            raise UserError(f"{path}: {features}")
        return Excerpt(path, start, stop, total, waveforms.is_silent(heard), features)

    def ask(self, excerpt: Excerpt, questions: Sequence[str]) -> list[str]:
        """The answers to questions about what was heard.

        Raises:
          UserError: a question is longer than anything that training heard, or holds
            the prompt's end sign; or there is no room for an answer.
        """
        for question in questions:
            self._check(excerpt, question)
        return answer(
            self.speaker,
            self.usage.prompt,
            [(excerpt.features, question) for question in questions],
            self.usage.generate,
            mesh=self.mesh,
        )

    def reply(self, excerpt: Excerpt, question: str) -> Iterator[str]:
        """The answer to a question, in pieces, as it is made; errors as in `ask`."""
        self._check(excerpt, question)
        request = excerpt.features, question
        usage = self.usage
        return stream(
            self.speaker, usage.prompt, request, usage.generate, mesh=self.mesh
        )

    def _check(self, excerpt: Excerpt, question: str) -> None:
        check_question(self.usage.prompt, question)
        asked = encode_prompt(
            self.speaker.tokenizer,
            self.usage.prompt,
            question,
            None,
            len(excerpt.features),
        )
        most = self.usage.max_tokens
        if len(asked.tokens) > most:
            raise UserError(
                f"the question {question[:40]!r}… takes {len(asked.tokens)} tokens "
                f"with its song, and training saw at most {most}: ask a shorter one"
            )


def clock(seconds: float) -> str:
    """Minutes and seconds: 75.2 → "01:15"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:02d}:{rest:02d}"
