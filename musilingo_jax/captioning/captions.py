"""Songs → captions and fields, as the rows of a job (`jobs.row_job`).

A shard is worked on in three steps, each for all of its songs, so that questions share
batches:

    hear        read once; tempo, key and metre; tags of taggers; the encoder's features
    ask         the caption, and the fields that the model gives
    check       captions that contradict the fields are asked for again (`truth.py`)

A row depends on its song and on the settings alone, not on the shard that it is in.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from musilingo_jax.annotation import song, tags
from musilingo_jax.annotation.spectra import RATE
from musilingo_jax.annotation.windows import Stretch
from musilingo_jax.answering.answer_file import fingerprint
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.model import CAPTION
from musilingo_jax.answering.option_scores import OptionRequest, shares
from musilingo_jax.audio.array_songs import waveform_of
from musilingo_jax.audio.cache import clips
from musilingo_jax.captioning import fields, short_answers, teachers, truth
from musilingo_jax.captioning.asker import Asker, ModelAsker, Sources
from musilingo_jax.captioning.contradictions import Facts
from musilingo_jax.captioning.fields import Field
from musilingo_jax.captioning.known import Known
from musilingo_jax.captioning.truth import Checked, Drawing
from musilingo_jax.captioning.vocabulary import Vocabulary
from musilingo_jax.jobs.identity import StoredIdentity
from musilingo_jax.jobs.row_job import Result, RowMaker
from musilingo_jax.models.taggers import musicnn
from musilingo_jax.runtime.errors import UserError

FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """What rows depend on besides their songs.

    Attributes:
      sources: the model.
      vocabulary: the allowed tags.
      teachers: the file of the taggers; None for no taggers.
      drawing: how captions are drawn anew.
      rows: questions that are answered together, which changes no row; None for as
        many as the model's own settings say.
    """

    sources: Sources
    vocabulary: Vocabulary
    teachers: str | None
    drawing: Drawing
    rows: int | None

    def identity(self) -> StoredIdentity:
        """What stands in the plans of the job.

        Raises:
          UserError: there is no such model.
        """
        versions = song.sources()
        measured = {name: versions[name]["version"] for name in _measured()}
        return {
            "format": FORMAT,
            **self.sources.identity(),
            **measured,
            "tags": fingerprint(dict(self.vocabulary)),
            "teachers": tags.VERSION if self.teachers else "",
            **self.drawing._asdict(),
        }

    @property
    def answered(self) -> tuple[str, ...]:
        """The fields that are read from answers, where the songs file has none."""
        if self.teachers:
            return ()
        return tuple(name for name in fields.TAGGED if name not in self.vocabulary)

    def plan_of(self, name: str) -> str:
        """Where the values of a field will come from, in words."""
        if name in fields.MEASURED:
            return "measured"
        if options := self.vocabulary.get(name):
            return f"chosen among {len(options):,} tags"
        if name != fields.CAPTION and self.teachers:
            return tags.VERSION
        return "the model's answer"


class Item(NamedTuple):
    """A song to caption.

    Attributes:
      stretch: the song, or the stretch of it.
      known: its fields that need not be made.
    """

    stretch: Stretch
    known: Known

    @property
    def id(self) -> str:
        """Identifies the sound and what is known of it: either may change."""
        if not self.known:
            return self.stretch.clip.id
        return f"{self.stretch.clip.id}?{fingerprint({'known': dict(self.known)})}"


class _Heard(NamedTuple):
    """A song that was listened to.

    Attributes:
      item: the song.
      about: what its row says beside the fields.
      found: the fields that are known so far.
      excerpt: what the model heard.
    """

    item: Item
    about: dict[str, Any]
    found: dict[str, Field]
    excerpt: Excerpt


def _measured() -> tuple[str, ...]:
    return tuple(fields.MEASURED.values())


def load(settings: Settings) -> RowMaker:
    """What captions the songs of a shard.

    Raises:
      UserError: the model or the taggers cannot be loaded.
    """
    taggers = tags.load(Path(settings.teachers)) if settings.teachers else None
    version = _version(settings.sources.identity())
    asker = ModelAsker.load(settings.sources, settings.rows)
    return functools.partial(rows, asker, taggers, settings, version)


def rows(
    asker: Asker,
    taggers: Mapping[str, Any] | None,
    settings: Settings,
    version: str,
    items: Sequence[Item],
) -> Iterator[Result]:
    """The rows of songs, in order.

    Args:
      asker: the model.
      taggers: as `tags.load` returns them.
      settings: what is wanted.
      version: of the model.
      items: the songs.

    Yields:
      Of a song that cannot be read, why.
    """
    results: list[_Heard | UserError] = []
    for item in items:
        try:
            results.append(_hear(asker, taggers, item))
        except UserError as error:
            results.append(error)
    heard = [each for each in results if isinstance(each, _Heard)]
    made = iter(_asked(asker, settings, version, heard))
    for each in results:
        if isinstance(each, UserError):
            yield Result(each, 0.0)
        else:
            yield Result(next(made), each.excerpt.seconds)


def _version(identity: StoredIdentity) -> str:
    """A short name of the model's parts, for rows."""
    parts = ("encoder", "language_model", "adapter")
    return " ".join(str(identity[part])[:8] for part in parts)


def _hear(asker: Asker, taggers: Mapping[str, Any] | None, item: Item) -> _Heard:
    """Reads a song once, and measures it.

    Raises:
      UserError: it cannot be read; the message begins with its file.
    """
    clip = item.stretch.clip
    notices: list[str] = []
    rate = max(asker.rate, RATE)
    waveform = np.concatenate(list(clips.read(clip, rate, notices.append)))
    try:
        found = _heard_fields(waveform, rate, taggers, item)
        excerpt = asker.hear((waveform, rate))
    except UserError as error:
        raise UserError(f"{clip.path}: {error}") from error
    about: dict[str, Any] = {"audio": item.stretch.audio}
    about |= {
        k: v for k, v in (("start", clip.start), ("end", clip.end)) if v is not None
    }
    about["seconds"] = round(len(waveform) / rate, 3)
    notices += excerpt.notices
    if excerpt.silent:
        notices.append("is silent: expect no sensible caption")
    return _Heard(
        item, about | ({"notices": notices} if notices else {}), found, excerpt
    )


def _heard_fields(
    waveform: Float[np.ndarray, " samples"],
    rate: int,
    taggers: Mapping[str, Any] | None,
    item: Item,
) -> dict[str, Field]:
    """The fields of a song that no language model gives."""
    found = dict(item.known)
    wanted = {k: v for k, v in fields.MEASURED.items() if k not in found}
    if wanted:
        ours = waveform_of(waveform, rate, sample_rate=RATE)
        measured = song.annotate(ours, set(wanted.values()))
        found |= {k: fields.measured(k, measured[v]) for k, v in wanted.items()}
    if taggers is not None:
        theirs = waveform_of(waveform, rate, sample_rate=musicnn.RATE)
        found = teachers.taught(tags.annotate(taggers, theirs)) | found
    return found


def _asked(
    asker: Asker, settings: Settings, version: str, heard: Sequence[_Heard]
) -> list[dict[str, Any]]:
    """The rows of songs that were listened to."""
    name = settings.sources.source
    _choose(asker, settings, (name, version), heard)
    wanted = [
        tuple(n for n in settings.answered if n not in each.item.known)
        for each in heard
    ]
    questions = [[CAPTION, *short_answers.questions_of(names)] for names in wanted]
    answers = iter(
        asker.answers(
            [
                (each.excerpt.features, question)
                for each, asked in zip(heard, questions, strict=True)
                for question in asked
            ]
        )
    )
    first = []
    for each, names, asked in zip(heard, wanted, questions, strict=True):
        found = {question: next(answers) for question in asked}
        first.append(found.pop(CAPTION))
        texts = {question: answer.text for question, answer in found.items()}
        each.found.update(short_answers.read(names, texts, name, version))
    checked = truth.check(
        asker,
        [each.excerpt.features for each in heard],
        [Facts.of(each.found) for each in heard],
        first,
        settings.drawing,
    )
    captioned = functools.partial(_caption, name, version)
    return [_row(each, captioned(c)) for each, c in zip(heard, checked, strict=True)]


def _choose(
    asker: Asker, settings: Settings, model: tuple[str, str], heard: Sequence[_Heard]
) -> None:
    """Adds the fields whose values are chosen among allowed tags."""
    wanted = [
        (each, name, options)
        for each in heard
        for name, options in settings.vocabulary.items()
        if name not in each.item.known
    ]
    requests = []
    for each, name, options in wanted:
        answers = short_answers.options_of(name, options)
        question = short_answers.QUESTIONS[name]
        requests.append(OptionRequest(each.excerpt.features, question, answers))
    scores = asker.scores(requests)
    for (each, name, options), found in zip(wanted, scores, strict=True):
        value, confidence = short_answers.chosen(name, options, shares(found))
        each.found[name] = fields.field(value, fields.MODEL, *model, confidence)


def _caption(name: str, version: str, checked: Checked) -> Field:
    made = fields.field(checked.text, fields.MODEL, name, version)
    return made | {"check": checked.stored()}


def _row(heard: _Heard, caption: Field) -> dict[str, Any]:
    """A row: about the song, then its fields in their order."""
    found = heard.found | {fields.CAPTION: caption}
    return heard.about | {name: found[name] for name in fields.FIELDS}
