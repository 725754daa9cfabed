"""An `Asker` without weights, for benchmarks: songs are known by their loudness."""

import numpy as np

from musilingo_jax.answering.answer import Answer
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.option_scores import OptionScore

RATE = 8000
NOISE, SILENCE, NOTHING = "noise", "silence", "nothing"


def tone(number, seconds=0.6):
    """The sound of song `number`, from 1 on."""
    time = np.arange(int(RATE * seconds)) / RATE
    return 0.05 * number * np.sign(np.sin(2 * np.pi * 220 * time))


class FakeEars:
    """Answers as it is told.

    Attributes:
      say: (what is heard, the question) → the answer; "…" at its end: it was cut.
      likes: what is heard → words; an option with one of them costs less.
      heard: numbers of the songs that were listened to.
      asked: (what was heard, the question) of everything that was asked.
      scored: (what was heard, the question, the options) of all that was scored.
    """

    rate = RATE

    def __init__(self, say, likes=None):
        self.say, self.likes = say, likes or {}
        self.heard, self.asked, self.scored = [], [], []

    def hear(self, song):
        waveform, rate = song
        loud = np.abs(waveform)
        if loud.max() == 0:
            number = -2
        elif loud.std() > 0.01:  # A square wave is always equally loud.
            number = -1
        else:
            number = round(float(np.median(loud)) / 0.05)
            self.heard.append(number)
        seconds = len(waveform) / rate
        features = np.full((1, 2), number, np.float32)
        return Excerpt("song", 0.0, seconds, seconds, number == -2, (), features)

    def answers(self, requests):
        found = []
        for features, question in requests:
            self.asked.append((what(features), question))
            text = self.say(what(features), question)
            found.append(Answer(text.removesuffix("…"), is_cut=text.endswith("…")))
        return found

    def scores(self, requests):
        found = []
        for features, question, options in requests:
            heard = what(features)
            self.scored.append((heard, question, options))
            liked = self.likes.get(heard, ())
            found.append(
                [
                    OptionScore(2.0 * (not any(w in text for w in liked)) + 1, 2)
                    for text in options
                ]
            )
        return found

    def drawn(self, requests, *, seed, temperature):
        raise AssertionError("a benchmark draws no answers")


def what(features):
    """What was heard: the number of a song, or what there was in place of it."""
    if not len(features):
        return NOTHING
    return {-1: NOISE, -2: SILENCE}.get(int(features[0, 0]), int(features[0, 0]))
