"""Songs → what the model says of them, as the rows of a job (`jobs.row_job`).

Each question is asked with its own song, and again under controls, which have nothing
to do with the song:

    own             its song
    shuffled_audio  another song of the benchmark
    noise           ten seconds of white noise, the same for all questions
    silence         ten seconds of silence
    no_audio        nothing between <Audio> and </Audio>

A song is heard once, for its own questions and for those that it is another song to.
The likelihood of candidates is read behind the bare question, once however often the
question is asked in other orders of options.
"""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from musilingo_jax.answering.answer_file import fingerprint
from musilingo_jax.answering.option_scores import OptionRequest, OptionScore
from musilingo_jax.answering.padded_prompts import Features
from musilingo_jax.audio.cache import clips
from musilingo_jax.audio.cache.clips import Clip
from musilingo_jax.benchmarks.item import Item
from musilingo_jax.captioning.asker import Asker, ModelAsker, Sources
from musilingo_jax.corpora.clips import FoundClip
from musilingo_jax.evaluation import controls
from musilingo_jax.evaluation.score_table import OWN
from musilingo_jax.jobs.row_job import Result, RowMaker
from musilingo_jax.runtime.errors import UserError

FORMAT = 1
OTHER, NOISE, SILENCE, NO_AUDIO = "shuffled_audio", "noise", "silence", "no_audio"
CONTROLS = (OTHER, NOISE, SILENCE, NO_AUDIO)
# Of noise and silence; RUListening's noise lasts as long.
_SECONDS = 10
# White noise of this standard deviation is about as loud as music is.
_LOUDNESS = 0.1


class Ask(NamedTuple):
    """A question to ask with what is heard.

    Attributes:
      item: id of the question.
      system: `OWN`, or one of `CONTROLS`.
      question: as it is asked.
      bare: without its options.
      candidates: answers whose likelihood is read; none if there are none.
    """

    item: str
    system: str
    question: str
    bare: str
    candidates: tuple[str, ...]


class Hearing(NamedTuple):
    """A song, and the questions that are asked when it is heard.

    Attributes:
      clip: the song, or the stretch of it.
      audio: its file, relative to the folder of sound files.
      asks: the questions.
    """

    clip: Clip
    audio: str
    asks: tuple[Ask, ...]

    @property
    def id(self) -> str:
        """Identifies the sound and what is asked: either may change."""
        asked = {"asks": [list(ask) for ask in self.asks]}
        return f"{self.clip.id}?{fingerprint(asked)}"


def plan(
    items: Sequence[Item],
    found: Mapping[str, FoundClip],
    folder: Path,
    named: Sequence[str],
    seed: int,
) -> dict[str, Hearing]:
    """What is heard, and what is asked then, by the id of the `Hearing`.

    Args:
      items: the questions that have a sound.
      found: id of a question → its sound.
      folder: of the sound files.
      named: the controls.
      seed: of the choice of other songs.

    Raises:
      UserError: there is only one song, so that no question has another one.
    """
    sounds = {found[item.id].id: found[item.id] for item in items}
    asks: dict[str, list[Ask]] = {id: [] for id in sounds}
    other = controls.derangement(list(sounds), seed) if OTHER in named else {}
    for item in items:
        own = found[item.id].id
        for system in (OWN, *named):
            heard = other[own] if system == OTHER else own
            asks[heard].append(
                Ask(item.id, system, item.question, item.bare, item.candidates)
            )
    hearings = [
        Hearing(
            Clip(id, clip.audio, clip.start, clip.end, clip.rate),
            relative(clip, folder),
            tuple(asks[id]),
        )
        for id, clip in sounds.items()
    ]
    return {hearing.id: hearing for hearing in hearings}


def relative(clip: FoundClip, folder: Path) -> str:
    """The file of a sound, relative to the folder of sound files."""
    return Path(os.path.relpath(clip.audio, folder)).as_posix()


class Heard(NamedTuple):
    """What the model heard of a song.

    Attributes:
      features: of the song.
      seconds: its length.
      notices: what is odd about the sound: clauses whose subject is the song.
    """

    features: Features
    seconds: float
    notices: list[str]


@dataclass(frozen=True)
class Ears:
    """The model, and what it hears where there is no music.

    Attributes:
      asker: the model.
    """

    asker: Asker

    @functools.cached_property
    def noise(self) -> Features:
        """The features of noise."""
        length = _SECONDS * self.asker.rate
        drawn = np.random.default_rng(0).standard_normal(length, np.float32)
        return self.asker.hear((_LOUDNESS * drawn, self.asker.rate)).features

    @functools.cached_property
    def silence(self) -> Features:
        """The features of silence."""
        silent = np.zeros(_SECONDS * self.asker.rate, np.float32)
        return self.asker.hear((silent, self.asker.rate)).features

    def features(self, system: str, song: Features) -> Features:
        """What is heard under a control; `song` itself, if the control hears a song."""
        if system == NOISE:
            return self.noise
        if system == SILENCE:
            return self.silence
        return song[:0] if system == NO_AUDIO else song


def load(sources: Sources) -> RowMaker:
    """What asks the questions of a shard.

    Raises:
      UserError: the model cannot be loaded.
    """
    return functools.partial(rows, Ears(ModelAsker.load(sources, rows=None)))


def rows(ears: Ears, hearings: Sequence[Hearing]) -> Iterator[Result]:
    """The rows of songs, in order.

    Yields:
      Of a song that cannot be read, why.
    """
    heard: list[Heard | UserError] = []
    for hearing in hearings:
        try:
            heard.append(_hear(ears.asker, hearing.clip))
        except UserError as error:
            heard.append(error)
    asked = [
        (place, ask)
        for place, hearing in enumerate(hearings)
        if not isinstance(heard[place], UserError)
        for ask in hearing.asks
    ]
    said = iter(_said(ears, heard, asked))
    for place, hearing in enumerate(hearings):
        got = heard[place]
        if isinstance(got, UserError):
            yield Result(got, 0.0)
        else:
            row: dict[str, Any] = {"audio": hearing.audio}
            row |= {"notices": got.notices} if got.notices else {}
            row["answers"] = [next(said) for _ in hearing.asks]
            yield Result(row, got.seconds)


def _hear(asker: Asker, clip: Clip) -> Heard:
    """Listens to a song.

    Raises:
      UserError: it cannot be read; the message begins with its file.
    """
    notices: list[str] = []
    waveform = np.concatenate(list(clips.read(clip, asker.rate, notices.append)))
    try:
        excerpt = asker.hear((waveform, asker.rate))
    except UserError as error:
        raise UserError(f"{clip.path}: {error}") from error
    notices += [*excerpt.notices, *(["is silent"] if excerpt.silent else [])]
    return Heard(excerpt.features, excerpt.seconds, notices)


def _said(
    ears: Ears, heard: Sequence[Any], asked: Sequence[tuple[int, Ask]]
) -> Iterator[dict[str, Any]]:
    """What the row of a song says of each question, in order.

    Equal questions about equal sounds are asked once: without music, there are many.
    """
    requests: dict[tuple, tuple[Features, str]] = {}
    choices: dict[tuple, OptionRequest] = {}
    for place, ask in asked:
        features = ears.features(ask.system, heard[place].features)
        requests.setdefault(_key(place, ask), (features, ask.question))
        if ask.candidates:
            options = tuple(dict.fromkeys(ask.candidates))
            choice = OptionRequest(features, ask.bare, options)
            choices.setdefault(_choice_key(place, ask), choice)
    answers = dict(
        zip(requests, ears.asker.answers(list(requests.values())), strict=True)
    )
    scores = _scores(ears.asker, choices)
    for place, ask in asked:
        answer = answers[_key(place, ask)]
        row: dict[str, Any] = {"item": ask.item, "heard": ask.system}
        row |= {"answer": answer.text} | ({"cut": True} if answer.is_cut else {})
        if ask.candidates:
            row |= _costs(ask.candidates, scores[_choice_key(place, ask)])
        yield row


def _sound(place: int, ask: Ask) -> int | str:
    """What is heard: the same for all songs of a shard, where it is no song."""
    return place if ask.system in (OWN, OTHER) else ask.system


def _key(place: int, ask: Ask) -> tuple:
    return _sound(place, ask), ask.question


def _choice_key(place: int, ask: Ask) -> tuple:
    return _sound(place, ask), ask.bare, frozenset(ask.candidates)


def _scores(
    asker: Asker, choices: Mapping[tuple, OptionRequest]
) -> dict[tuple, dict[str, OptionScore] | UserError]:
    """The score of each option of each choice, or why the choice has none."""

    def scored(requests: list[OptionRequest]) -> list[dict[str, OptionScore]]:
        found = asker.scores(requests)
        pairs = zip(requests, found, strict=True)
        return [dict(zip(each.options, own, strict=True)) for each, own in pairs]

    try:
        return dict(zip(choices, scored(list(choices.values())), strict=True))
    except UserError:
        # One that cannot be scored must not keep the others from being scored.
        return {key: _one(scored, request) for key, request in choices.items()}


def _one(scored: Any, request: OptionRequest) -> dict[str, OptionScore] | UserError:
    try:
        return scored([request])[0]
    except UserError as error:
        return error


def _costs(
    candidates: Sequence[str], scores: dict[str, OptionScore] | UserError
) -> dict[str, Any]:
    """What a row says of candidates: nats per token, or why they have no score."""
    if isinstance(scores, UserError):
        return {"unscored": str(scores)}
    return {"nats_per_token": [round(scores[each].mean, 6) for each in candidates]}
