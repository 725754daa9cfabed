"""MedleyDB: multitrack recordings, whose genre and instruments are known.

Bittner et al. 2014, "MedleyDB: A Multitrack Dataset for Annotation-Intensive MIR
Research", and version 2 of 2016. The annotations are the folder `medleydb` of
github.com/marl/medleydb (MIT licence); the sound is on Zenodo, on request, under CC
BY-NC-SA 4.0.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
import yaml

from musilingo_jax.corpora import annotations, row_files, stated_facts
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.survey import SurveyRow
from musilingo_jax.runtime.errors import UserError

COUNTS = {"v1": 122, "v2": 74}  # songs
# What a stem can hold that is no instrument.
_NO_INSTRUMENTS = (
    *("", "claps", "crowd", "fx/processed sound", "main system"),
    *("sampler", "scratches", "unlabeled"),
)


class MedleyDB(Corpus):
    """Questions about genre, instruments and vocals of 122 songs, all of them to test.

    Needed in the source folder or one level below it, as in the repository:

        resources/tracklist_v1.txt                      which songs there are
        data/Metadata/Artist_Title_METADATA.yaml        genre, instrumental, stems and
                                                        mix_filename of each of them

    The configuration `v1` (the default) is the 122 songs of 2014; `v2`, the 74 of 2016,
    needs resources/tracklist_v2.txt. In the audio folder, at any depth:

        Artist_Title_MIX.wav

    There is no published split; others evaluate on all songs, which is done here, too.
    The instruments are those of the whole song.
    """

    name = "medleydb"
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=f"{count} songs.")
        for name, count in COUNTS.items()
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "v1"

    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, as in `Corpus.rows`."""
        listed = annotations.need(
            self.source, f"resources/tracklist_{self.configuration}.txt"
        )
        folder = listed.parents[1] / "data/Metadata"
        for song in row_files.read_text(listed).split():
            path = folder / f"{song}_METADATA.yaml"
            content = _read(path)
            vocals = {"yes": "no", "no": "yes"}.get(
                _text(content, "instrumental", path)
            )
            if vocals is None:
                raise UserError(f"{path}: 'instrumental' must be 'yes' or 'no'")
            yield from stated_facts.rows(
                {
                    "genre": _genres(_text(content, "genre", path)),
                    "instruments": _instruments(content, path),
                    "vocals": [vocals],
                },
                where=path.name,
                sound=Wanted(names=(_text(content, "mix_filename", path),)),
                split="test",
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(row_files.read_text(path))
    # Of a date that does not exist the parser raises ValueError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = str(error).partition("\n")[0]
        raise UserError(f"{path}: cannot be read as YAML: {problem}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not the metadata of a song")
    return content


def _text(content: dict[str, Any], key: str, path: Path) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{path}: {key!r} is missing, empty or not text")
    return value.strip()


def _genres(genre: str) -> list[str]:
    """What the genre may be called: "World/Folk" is either, "Singer/Songwriter" one."""
    return genre.replace("Singer/Songwriter", "Singer-Songwriter").split("/")


def _instruments(content: dict[str, Any], path: Path) -> list[str]:
    """The instruments of all stems, in their order."""
    stems = content.get("stems")
    if not isinstance(stems, dict) or not stems:
        raise UserError(f"{path}: has no 'stems'")
    found = []
    for number, stem in stems.items():
        names = stem.get("instrument") if isinstance(stem, dict) else None
        for name in names if isinstance(names, list) else [names]:
            if not isinstance(name, str):
                raise UserError(f"{path}: the stem {number!r} has no 'instrument'")
            if name.lower() not in _NO_INSTRUMENTS:
                found.append(name)
    return found
