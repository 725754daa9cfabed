"""An `Asker` without weights: what it says of a song is written down."""

import numpy as np

from musilingo_jax.answering.answer import Answer
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.model import CAPTION
from musilingo_jax.answering.option_scores import OptionScore
from musilingo_jax.captioning.short_answers import QUESTIONS

RATE = 8000


def tone(number, seconds=1.0):
    """The sound of song `number`: its loudness is its number."""
    time = np.arange(int(RATE * seconds)) / RATE
    return 0.1 * (1 + number) * np.sign(np.sin(2 * np.pi * 220 * time))


class FakeAsker:
    """Knows songs by their loudness.

    Attributes:
      captions: of each song; the first one is the model's own, the next ones are drawn.
      said: question → answer, for all songs; "" if there is none.
      asked: (song, question, seed) of everything that was asked; the seed is None for
        what was not drawn.
    """

    rate = RATE

    def __init__(self, captions, said=None):
        self.captions, self.said, self.asked = captions, said or {}, []

    def hear(self, song):
        waveform, rate = song
        number = round(float(np.median(np.abs(waveform))) / 0.1) - 1
        seconds = len(waveform) / rate
        features = np.full((1, 2), number, np.float32)
        return Excerpt("song", 0.0, seconds, seconds, number < 0, (), features)

    def answers(self, requests):
        return [self._answer(*request, None) for request in requests]

    def drawn(self, requests, *, seed, temperature):
        assert temperature > 0
        return [self._answer(*request, seed) for request in requests]

    def scores(self, requests):
        """An option is likelier if its last word is in the song's caption."""
        found = []
        for features, question, options in requests:
            number = int(features[0, 0])
            self.asked.append((number, question, None))
            assert question in QUESTIONS.values()
            text = self.captions[number][0]
            words = [option.split()[-1].removesuffix(".") for option in options]
            found.append([OptionScore(2.0 * (word not in text), 2) for word in words])
        return found

    def _answer(self, features, question, seed):
        number = int(features[0, 0])
        self.asked.append((number, question, seed))
        if question != CAPTION:
            return Answer(self.said.get(question, ""), is_cut=False)
        texts = self.captions[number]
        text = texts[0 if seed is None else min(seed + 1, len(texts) - 1)]
        return Answer(text.removesuffix("…"), is_cut=text.endswith("…"))
