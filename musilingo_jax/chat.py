"""Ask about a song.

    python -m musilingo_jax.chat song.ogg --ask "What is this?" --ask "How fast is it?"
    python -m musilingo_jax.chat song.ogg                         (then type questions)
    python -m musilingo_jax.chat song.ogg --run runs/tiny         (your own adapter)

    python -m musilingo_jax.chat song.ogg --model m-a-p/MusiLingo-long-v1   (a release)

Without `--run` the embedded model answers. A run's `config.json` says how features are
made (`features`), how a question is put (the last of `stages` that learns from
questions) and how answers are decoded (`generate`); for the releases of MusiLingo,
folders or names on the hub, `answering/released.py` does.
"""

import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from musilingo_jax import generate
from musilingo_jax.answering import released
from musilingo_jax.answering.answer import (
    Features,
    Speaker,
    answer,
    check_question,
    context_of,
    stream,
)
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.answering.prompts import encode as encode_prompt
from musilingo_jax.audio import waveforms
from musilingo_jax.audio.features import FeatureConfig, encode
from musilingo_jax.models.mert import Mert
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.pretrained.sources import ModelConfig
from musilingo_jax.pretrained.tensor_files import CONFIG, read_json
from musilingo_jax.runtime import cli, ending
from musilingo_jax.runtime.compilation_cache import keep_compiled_programs
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.sharding import make_mesh

USAGE = 'python -m musilingo_jax.chat song.ogg [--ask "…"] [--run runs/tiny]'
MODEL = "musilingo-tiny"
HELP = "A question, `/open path` for another song, or an empty line to leave."


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
class Manner:
    """How a model is used: as it was trained.

    Attributes:
      model: the sources of its parts.
      prompt: how a question is put.
      max_windows: audio vectors that training heard at once.
      max_tokens: of a question with its song.
      features: how a song becomes vectors.
      generate: how answers are decoded.
    """

    model: ModelConfig
    prompt: PromptConfig
    max_windows: int
    max_tokens: int
    features: FeatureConfig
    generate: GenerateConfig

    @classmethod
    def of(cls, source: str, adapter: str | None) -> "Manner":
        """That of a run, an embedded model or a MusiLingo release.

        Args:
          source: a folder, or a name; its `config.json` tells.
          adapter: another adapter for the same encoder and language model.

        Raises:
          UserError: the source is no such thing, or never learnt to answer questions.
        """
        # Not the weights yet, which may be large and not wanted after all.
        folder = sources.resolve(source, weights=False)
        said = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        if sources.is_release(said):
            return cls._released(source, adapter, said)
        if not sources.is_run(said):
            if sources.kinds(source) == list(sources.KINDS):
                # A release that was split: its adapter's config has what is left of
                # the one for all.
                return cls._released(
                    source, adapter, read_json(folder / "adapter" / CONFIG)
                )
            raise UserError(
                f"{folder}: holds no whole model; name a run, a MusiLingo release, or "
                "leave out --run and --model for the embedded model"
            )
        config = ConfigDict(said)
        try:
            stage = generate.stage_of(config, "a question")
            model = ModelConfig.from_config(config)
            features = FeatureConfig.from_config(config)
            decoding = GenerateConfig.from_config(config)
        except (UserError, KeyError, AttributeError) as error:
            raise UserError(
                f"{folder / CONFIG}: {error}; this version cannot use a run that was "
                "made by another: train it anew into another folder, or choose "
                "another --run"
            ) from error
        if stage is None:
            raise UserError(
                f"{folder}: none of its stages ({', '.join(config.stages)}) learnt to "
                "answer questions; choose another --run"
            )
        return cls(
            model=replace(model, adapter=adapter or str(source)),
            prompt=stage.prompt,
            max_windows=stage.max_windows,
            max_tokens=stage.max_tokens,
            features=features,
            generate=decoding,
        )

    @classmethod
    def _released(
        cls, source: str, adapter: str | None, said: Mapping[str, Any]
    ) -> "Manner":
        """That of a release, whose `config.json` leaves most unsaid."""
        return cls(
            model=ModelConfig(
                source,
                source,
                adapter or source,
                dtype=released.DTYPE,
                quantization="",
            ),
            prompt=released.prompt_of(said),
            max_windows=released.MAX_WINDOWS,
            max_tokens=context_of(source) - released.GENERATE.max_new_tokens,
            features=replace(
                released.FEATURES, window_frames=sources.released_window(said)
            ),
            generate=released.GENERATE,
        )


@dataclass(frozen=True)
class Chat:
    """A loaded model that listens to songs and answers questions about them."""

    mert: Mert
    speaker: Speaker
    manner: Manner
    mesh: jax.sharding.Mesh

    @classmethod
    def load(cls, source: str, adapter: str | None) -> "Chat":
        """Loads a model onto the first device; arguments and errors as `Manner.of`.

        Raises:
          UserError: besides, a part is missing, or they do not fit together.
        """
        manner = Manner.of(source, adapter)
        model = manner.model
        mesh = make_mesh(data=1, fsdp=1, tensor=1)
        # The adapter first: it is what a run may lack, and it is small.
        sources.find(model.adapter, "adapter")
        return cls(
            mert=weights.load_encoder(model.encoder, dtype=model.dtype, mesh=mesh),
            speaker=generate.load_speaker(model, manner.features.window_frames, mesh),
            manner=manner,
            mesh=mesh,
        )

    @property
    def longest(self) -> float:
        """Seconds that fill as many windows as training heard at once."""
        frames = self.manner.max_windows * self.manner.features.window_frames
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
        ((_, features),) = encode(self.mert, songs, self.manner.features, self.mesh)
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
            self.manner.prompt,
            [(excerpt.features, question) for question in questions],
            self.manner.generate,
            mesh=self.mesh,
        )

    def reply(self, excerpt: Excerpt, question: str) -> Iterator[str]:
        """The answer to a question, in pieces, as it is made; errors as in `ask`."""
        self._check(excerpt, question)
        request = excerpt.features, question
        manner = self.manner
        return stream(
            self.speaker, manner.prompt, request, manner.generate, mesh=self.mesh
        )

    def _check(self, excerpt: Excerpt, question: str) -> None:
        check_question(self.manner.prompt, question)
        asked = encode_prompt(
            self.speaker.tokenizer,
            self.manner.prompt,
            question,
            None,
            len(excerpt.features),
        )
        most = self.manner.max_tokens
        if len(asked.tokens) > most:
            raise UserError(
                f"the question {question[:40]!r}… takes {len(asked.tokens)} tokens "
                f"with its song, and training saw at most {most}: ask a shorter one"
            )


def clock(seconds: float) -> str:
    """Minutes and seconds: 75.2 → "01:15"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:02d}:{rest:02d}"


def converse(chat: Chat, excerpt: Excerpt, seconds: float) -> None:
    """Questions and answers on the terminal, until an empty line or the end.

    Ctrl-C during an answer stops the answer, at the prompt the conversation.
    """
    with contextlib.suppress(ImportError):  # Not on Windows, and not needed there.
        import readline  # noqa: F401  (arrow keys in `input`)
    print(HELP)
    while True:
        try:
            line = input("? ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not line:
            return
        command, _, argument = line.partition(" ")
        if command == "/open" and argument:
            try:
                excerpt = chat.hear(
                    Path(argument.strip()).expanduser(), start=None, seconds=seconds
                )
                print(excerpt)
            except UserError as error:
                print(f"{error}; still listening to {excerpt.path}")
        elif line.startswith("/"):
            print(HELP)
        else:
            try:
                with ending.at_steps():
                    for piece in chat.reply(excerpt, line):
                        print(piece, end="", flush=True)
                print()
            except UserError as error:
                print(error)
            except ending.Told as told:
                print(" (stopped)")
                if told.signal != signal.SIGINT:
                    raise


def main(argv: list[str]) -> None:
    """Reads the flags, listens and answers."""
    given = flags.FLAGS
    if given.run is not None and given.model is not None:
        raise UsageError(f"--run and --model both say what answers: give one. {USAGE}")
    if len(argv) != 2:
        wrong = "name a song" if len(argv) < 2 else "one song at a time"
        raise UsageError(f"{wrong}: {USAGE}")
    if any(not question.strip() for question in given.ask or ()):
        raise UsageError(f"--ask is empty: {USAGE}")
    if not given.ask and not sys.stdin.isatty():
        raise UsageError(f"nobody is at the terminal to ask: give --ask. {USAGE}")
    if not given.seconds >= waveforms.SHORTEST_SECONDS:  # No number is not, either.
        raise UsageError(f"--seconds must be at least {waveforms.SHORTEST_SECONDS}")
    song = Path(argv[1])
    if not song.exists():  # Before seconds are spent on loading the model.
        raise UserError(f"{song}: there is no such file")
    keep_compiled_programs()
    chat = Chat.load(given.run or given.model or MODEL, given.adapter)
    excerpt = chat.hear(song, start=given.start, seconds=given.seconds)
    print(excerpt)
    if not given.ask:
        converse(chat, excerpt, given.seconds)
        return
    with ending.at_steps():
        answers = chat.ask(excerpt, given.ask)
    for question, text in zip(given.ask, answers, strict=True):
        print(f"\n{question}\n{text}")


if __name__ == "__main__":
    # Here and not above, so that other programs can import this one's functions.
    flags.DEFINE_multi_string("ask", None, "a question; may be given several times")
    flags.DEFINE_string("run", None, "run folder whose adapter answers")
    flags.DEFINE_string(
        "model",
        None,
        f"folder of a model, or its name (embedded, on the hub); default: {MODEL}",
    )
    flags.DEFINE_string("adapter", None, "folder of another adapter for the model")
    flags.DEFINE_float("start", None, "where to listen, in seconds", lower_bound=0)
    flags.DEFINE_float("seconds", 30.0, "how long to listen at most")
    cli.run(main)
