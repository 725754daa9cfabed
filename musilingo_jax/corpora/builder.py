"""Builds a corpus: annotations and where their sound is, as a TFDS dataset.

Each corpus is a subclass of `Corpus` that yields the rows of its published files. The
base class finds the sound of each row, and writes:

    out/musiccaps/report.json, left_out.jsonl     counts, and a line per row left out
    out/musiccaps/findings.jsonl                  what may be mistaken in the others
    out/musiccaps/1.0.0/                          the dataset (`dataset.py`), complete
                                                  or not there at all
"""

import contextlib
import functools
import io
import json
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from musilingo_jax.corpora import dataset, listing
from musilingo_jax.corpora.clips import AudioFolder
from musilingo_jax.corpora.survey import Survey, SurveyRow, survey
from musilingo_jax.runtime import cli, storage
from musilingo_jax.runtime.errors import UserError

REPORT, LEFT_OUT, FINDINGS = "report.json", "left_out.jsonl", "findings.jsonl"
_AGAIN = "run the same command again"


class Corpus(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One corpus. The docstring of a subclass says which files it needs."""

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded, so there are no checksums. To look for them TFDS 4.9 needs
    # importlib_resources, which it does not require.
    url_infos = None

    def __init__(self, *, source: Path, audio: Path | None, **options: Any):
        """Reads nothing yet.

        Args:
          source: the folder with the annotation files, or one of the files.
          audio: the folder with the sound files, at any depth; None if there is none.
          **options: TFDS's own: `data_dir`, `config`.

        Raises:
          UserError: the name of a file or folder is not UTF-8.
        """
        for path in filter(None, (source, audio, options.get("data_dir"))):
            listing.check_name(path)
        self.source = Path(source)
        self.audio = None if audio is None else Path(audio).absolute()
        super().__init__(file_format="array_record", **options)

    @property
    def configuration(self) -> str:
        """Name of the chosen configuration; "" if the corpus has no configurations."""
        return self.builder_config.name if self.builder_config else ""

    @abstractmethod
    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, in their published order.

        Raises:
          UserError: a file is missing, or not as published.
        """

    @functools.cached_property
    def survey(self) -> Survey:
        """Which annotations have sound in the audio folder, and which have not."""
        folder = None if self.audio is None else AudioFolder(self.audio)
        return survey(self.rows(), folder)

    def write_report(self) -> Path:
        """Writes the counts and the list of rows left out beside the dataset.

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
        with storage.writing(folder, again=_AGAIN):
            storage.write_text(folder / LEFT_OUT, self.survey.lines())
            storage.write_text(folder / FINDINGS, self.survey.found_lines())
            storage.write_text(folder / REPORT, json.dumps(counts, indent=2) + "\n")
        return folder

    def build(self) -> Path:
        """Writes the dataset, unless it exists.

        Returns:
          Its folder.

        Raises:
          UserError: a split has a name that TFDS does not allow, another process is
            building here, or the folder cannot be written.
        """
        folder = Path(self.data_dir)
        for split in self.survey.splits:
            if not split.replace("_", "").isalnum() or split == "all":
                raise UserError(
                    f"{self.source}: the split {split!r} cannot be built: choose a "
                    'name of letters, digits and underscores, other than "all"'
                )
        tfds.disable_progress_bar()
        with storage.writing(folder, again=_AGAIN):
            folder.parent.mkdir(parents=True, exist_ok=True)
            storage.lock_folder(folder.parent, doing="building a corpus")
            for leftover in folder.parent.glob(f"{dataset.UNFINISHED}*"):
                shutil.rmtree(leftover)
            with (
                tempfile.TemporaryDirectory() as downloads,  # It stays empty.
                contextlib.redirect_stdout(io.StringIO()),  # TFDS's own messages.
            ):
                self.download_and_prepare(download_dir=downloads)
        return folder

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=dataset.features(),
            metadata=tfds.core.MetadataDict({dataset.AUDIO_FOLDER: str(self.audio)}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        # Nothing is downloaded: for all of these corpora one must agree to terms first.
        del dl_manager
        usable = [name for name, split in self.survey.splits.items() if split.rows]
        return {split: self._generate_examples(split) for split in usable}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        """The examples of a split, with their place in it as the key."""
        records = [pair for pair in self.survey.records if pair[0].split == split]
        for place, (record, seconds) in enumerate(
            cli.progress(records, total=len(records), unit="rows", label=split)
        ):
            yield place, dataset.encode(record, seconds, self.audio)
