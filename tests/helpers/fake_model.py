"""A `Model` without weights; its answers say how long the song is."""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from musilingo_jax.answering.answer import Answer
from musilingo_jax.answering.config import GREEDY
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.audio import waveforms


class FakePending:
    """An answer of which a word comes every few moments."""

    prompt_tokens, cached_tokens = 7, 0

    def __init__(self, words, seconds, most):
        self._words, self._seconds, self._most = words, seconds, most
        self.answer_tokens, self.finish, self.is_cancelled = 0, None, False

    @property
    def is_done(self):
        return self.finish is not None

    def pieces(self):
        for word in self._words[: self._most]:
            time.sleep(self._seconds)
            if self.is_cancelled:
                self.finish = "cancelled"
                return
            self.answer_tokens += 1
            yield word
        self.finish = "length" if len(self._words) > self._most else "stop"

    def answer(self):
        return Answer("".join(self.pieces()), self.finish == "length")

    def cancel(self):
        self.is_cancelled = True


class FakeModel:
    """Hears all of a song, or with `windows` seconds the first and the last of them.

    Attributes:
      asked: (song's name, question, earlier turns, decoding) of every question.
      seconds: that each word takes.
    """

    name = "fake"
    max_seconds = 30.0
    context = 10_000

    def __init__(self, *, seconds=0.0, windows=None):
        self.asked, self.seconds, self.windows = [], seconds, windows
        self.usage = SimpleNamespace(
            earlier_turns=None,
            prompt=PromptConfig("Q: {} A:", "<AudioHere>{}", "###", 100),
        )

    def hear(self, song, start=None, seconds=None):
        if isinstance(song, Excerpt):
            return song
        waveform = waveforms.load(song, sample_rate=1000, tell=lambda _: None)
        length = len(waveform) / 1000
        windows = ()
        if self.windows is not None:
            windows = ((0.0, self.windows), (length - self.windows, length))
        features = np.full((1, 2), len(waveform), np.float32)
        return Excerpt(str(song), 0.0, length, length, False, (), features, windows)

    def decoding(self, **changes):
        stop = changes.pop("stop", ())
        return replace(GREEDY, stop=tuple(stop), **changes)

    def prompt_length(self, excerpt, question, earlier=()):
        return 10

    def submit(self, excerpt, question, *, earlier=(), **decoding):
        self.asked.append((excerpt.name, question, tuple(earlier), decoding))
        words = [f"{word} " for word in f"It lasts {excerpt.seconds:g} s.".split()]
        words[-1] = words[-1].strip()
        most = decoding.get("max_new_tokens", 300)
        return FakePending(words, self.seconds, most)
