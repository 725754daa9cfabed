"""A corpus as a TFDS dataset: annotations and where their sound lies, in ArrayRecord.

Each corpus is a builder that yields the rows of its published files. Here is what they
share: looking for the sound, writing, and reading it all back. TensorFlow is not used.

    out/musiccaps/report.json, left_out.jsonl     counts, and a line per row left out
    out/musiccaps/1.0.0/                          the dataset, there whole or not at all

The dataset points at the sound files, which stay where they are.
"""

import contextlib
import functools
import io
import json
import math
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from musilingo_jax.corpora import listing
from musilingo_jax.corpora.clips import AudioFolder
from musilingo_jax.corpora.records import Record
from musilingo_jax.corpora.survey import Survey, SurveyRow, survey
from musilingo_jax.runtime import cli, storage
from musilingo_jax.runtime.errors import UserError

REPORT, LEFT_OUT = "report.json", "left_out.jsonl"
_INFO = "dataset_info.json"
_UNFINISHED = "incomplete."  # TFDS's name for a dataset in the making.
_FOLDER = "audio_folder"
_TEXTS = ("audio", "clip", "question", "answer", "attribute", "value")
_NONE = -1  # In place of a time or rate that there is none of.
_BLOCK = 8192  # records that are read at once


class Corpus(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One corpus. Its subclasses say in their docstrings which files they want."""

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded, so there are no checksums. To look for them TFDS 4.9 needs
    # importlib_resources, which it does not ask pip for.
    url_infos = None

    def __init__(self, *, source: Path, audio: Path | None, **options):
        """Nothing is read yet.

        Args:
          source: the folder with the annotation files, or the one file.
          audio: the folder at or below which the sound lies; None if there is none.
          **options: TFDS's own: `data_dir`, `config`.

        Raises:
          UserError: the name of a file or folder is not UTF-8.
        """
        for path in filter(None, (source, audio, options.get("data_dir"))):
            listing.check_name(path)
        self.source = Path(source)
        self.audio = None if audio is None else Path(audio).absolute()
        super().__init__(file_format="array_record", **options)

    @abstractmethod
    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, in their published order.

        Raises:
          UserError: a file is missing or not as published.
        """

    @functools.cached_property
    def survey(self) -> Survey:
        """What the annotations and the audio folder amount to together."""
        folder = None if self.audio is None else AudioFolder(self.audio)
        return survey(self.rows(), folder)

    def write_report(self) -> Path:
        """Writes the counts and the list of what is left out beside the dataset.

        Returns:
          The folder of both.

        Raises:
          UserError: it cannot be written.
        """
        folder = Path(self.data_dir).parent
        counts = {
            "corpus": self.info.full_name,
            "source": str(self.source),
            "audio": None if self.audio is None else str(self.audio),
            **self.survey.summary(),
        }
        try:
            storage.write_text(folder / LEFT_OUT, self.survey.lines())
            storage.write_text(folder / REPORT, json.dumps(counts, indent=2) + "\n")
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written: {error.strerror or error}"
            ) from error
        return folder

    def build(self) -> Path:
        """Writes the dataset, if it is not there yet.

        Returns:
          Its folder.

        Raises:
          UserError: a split has an impossible name, another process is building here,
            or the folder cannot be written.
        """
        folder = Path(self.data_dir)
        for split in self.survey.splits:
            if not split.replace("_", "").isalnum() or split == "all":
                raise UserError(
                    f"{self.source}: the split {split!r} cannot be built: choose a "
                    'name of letters, digits and underscores, other than "all"'
                )
        tfds.disable_progress_bar()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            storage.lock_folder(folder.parent, doing="building a corpus")
            for leftover in folder.parent.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(leftover)
            with (
                tempfile.TemporaryDirectory() as downloads,  # Nobody will use it.
                contextlib.redirect_stdout(io.StringIO()),  # All is told elsewhere.
            ):
                self.download_and_prepare(download_dir=downloads)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written: {error.strerror or error}"
            ) from error
        return folder

    def _info(self) -> tfds.core.DatasetInfo:
        numbers = dict.fromkeys(("start_ms", "end_ms", "rate"), np.int64)
        texts = {name: tfds.features.Text() for name in _TEXTS}
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {**texts, **numbers, "seconds": np.float32}
            ),
            metadata=tfds.core.MetadataDict({_FOLDER: str(self.audio)}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        del dl_manager  # Nothing is downloaded: all of it needs somebody's consent.
        there = [name for name, split in self.survey.splits.items() if split.rows]
        return {split: self._generate_examples(split) for split in there}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        """The records of a split, keyed by their place in it."""
        records = [pair for pair in self.survey.records if pair[0].split == split]
        for place, (record, seconds) in enumerate(
            cli.progress(records, total=len(records), unit="rows", label=split)
        ):
            yield (
                place,
                {
                    "audio": _relative(record.audio, self.audio),
                    "clip": record.clip,
                    "question": record.question,
                    "answer": record.answer,
                    "attribute": record.attribute or "",
                    "value": record.value or "",
                    "start_ms": _milliseconds(record.start),
                    "end_ms": _milliseconds(record.end),
                    "rate": _NONE if record.rate is None else record.rate,
                    "seconds": math.nan if seconds is None else seconds,
                },
            )


def find(folder: Path) -> Path | None:
    """The dataset at or below a folder: `out/musiccaps` stands for its only version.

    Raises:
      UserError: there are several.
    """
    found = [
        info.parent
        for pattern in ("", "*/", "*/*/")
        for info in sorted(folder.glob(pattern + _INFO))
        if not info.parent.name.startswith(_UNFINISHED)
    ]
    if len(found) > 1:
        listed = ", ".join(map(str, found))
        raise UserError(f"{folder}: holds several corpora; name one of {listed}")
    return found[0] if found else None


def load(folder: Path) -> list[Record]:
    """The records of a dataset that `Corpus.build` wrote.

    They come split after split, each in its published order.

    Sound files are not looked at: features that are cached serve without them.

    Raises:
      UserError: it is something else, or a part of it is missing or damaged; or its
        name is not UTF-8.
    """
    listing.check_name(folder)
    try:
        dataset = tfds.builder_from_directory(folder)
        audio = Path(dataset.info.metadata[_FOLDER])
        return [
            _record(example, audio, split)
            for split in dataset.info.splits
            for example in _examples(dataset, split)
        ]
    # What TFDS, ArrayRecord and the parser raise for files that are gone or garbage.
    except (OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
        raise UserError(
            f"{folder}: is no corpus that musilingo_jax.corpora.build made, or it is "
            f"damaged ({error}); build it again"
        ) from error


def _examples(
    dataset: tfds.core.DatasetBuilder, split: str
) -> Iterator[tf_example_pb2.Example]:
    source = dataset.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    for start in range(0, len(source), _BLOCK):
        places = list(range(start, min(start + _BLOCK, len(source))))
        # Taking the few fields apart here is ten times as fast as TFDS's decoding.
        yield from map(tf_example_pb2.Example.FromString, source.__getitems__(places))


def _record(example: tf_example_pb2.Example, audio: Path, split: str) -> Record:
    fields = example.features.feature
    text = {name: fields[name].bytes_list.value[0].decode() for name in _TEXTS}
    start, end, rate = (
        fields[name].int64_list.value[0] for name in ("start_ms", "end_ms", "rate")
    )
    return Record(
        audio=audio / text["audio"],
        clip=text["clip"],
        question=text["question"],
        answer=text["answer"],
        split=split,
        attribute=text["attribute"] or None,
        value=text["value"] or None,
        start=None if start == _NONE else start / 1000,
        end=None if end == _NONE else end / 1000,
        rate=None if rate == _NONE else rate,
    )


def _relative(audio: Path, folder: Path) -> str:
    """The path within the folder, or the whole of it if it lies elsewhere."""
    audio = audio.absolute()
    return str(audio.relative_to(folder) if audio.is_relative_to(folder) else audio)


def _milliseconds(seconds: float | None) -> int:
    return _NONE if seconds is None else round(1000 * seconds)
