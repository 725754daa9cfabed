"""A model whose answers are words that it is told, as fast as it is told."""

import itertools
import threading
import time

import numpy as np

from musilingo_jax.answering.config import GREEDY
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.live_batch import QueueFull
from musilingo_jax.audio import waveforms


class FakePending:
    """An answer of which a word comes every few moments."""

    def __init__(self, words, seconds, most):
        self.prompt_tokens, self.answer_tokens, self.finish = 7, 0, None
        self.cached_tokens = 3
        self._words, self._seconds, self._most = words, seconds, most
        self.cancelled = threading.Event()

    def pieces(self):
        for word in self._words[: self._most]:
            if self.cancelled.wait(self._seconds):
                return
            self.answer_tokens += 1
            yield word
        self.finish = "length" if len(self._words) > self._most else "stop"

    def text(self):
        return "".join(self.pieces())

    def cancel(self):
        self.finish = self.finish or "cancelled"
        self.cancelled.set()


class FakeEngine:
    """Says of each question what it was asked.

    Attributes:
      asked: (songs, earlier, question, decoding) of every question.
      pending: all answers.
      heard: how many songs it has listened to.
      seconds: that each word takes.
      room: answers that may be unfinished.
    """

    name = "fake"
    decoding = GREEDY

    def __init__(self, *, seconds=0.0, room=100):
        self.asked, self.pending, self.heard = [], [], 0
        self.seconds, self.room = seconds, room

    def hear(self, path):
        self.heard += 1
        waveform = waveforms.load(path, sample_rate=1000, tell=lambda _: None)
        features = np.full((1, 2), len(waveform), np.float32)
        seconds = len(waveform) / 1000
        return Excerpt("song", 0, seconds, seconds, False, (), features)

    def embed(self, path):
        return np.array([self.hear(path).seconds, 1, 2], np.float32)

    def submit(self, songs, earlier, question, decoding, tell):
        if sum(one.finish is None for one in self.pending) >= self.room:
            raise QueueFull("full")
        self.asked.append((songs, earlier, question, decoding))
        heard = ", ".join(f"{song.seconds:g} s" for song in songs)
        tell("the words are its own")
        text = f"{question} ({heard}; seed {decoding.seed})"
        words = [
            word if first else f" {word}"
            for first, word in zip(
                itertools.chain([True], itertools.repeat(False)),
                text.split(),
                strict=False,
            )
        ]
        pending = FakePending(words, self.seconds, decoding.max_new_tokens)
        self.pending.append(pending)
        return pending

    def all_free(self, within=2.0):
        """Whether no answer is on its way, after a while."""
        end = time.monotonic() + within
        while any(one.finish is None for one in self.pending):
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True
