"""MTG-Jamendo: whole songs with the genres, instruments and moods of their uploaders.

Bogdanov et al. 2019, "The MTG-Jamendo Dataset for Automatic Music Tagging". The
annotations are the folder `data` of github.com/MTG/mtg-jamendo-dataset, under CC
BY-NC-SA 4.0; its scripts/download has the sound (raw_30s/audio, 508 GB, or audio-low).
Each song has the Creative Commons licence that audio_licenses.txt gives.
"""

from collections.abc import Iterator
from pathlib import Path

from musilingo_jax.corpora import annotations, row_files, stated_facts
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.survey import SurveyRow
from musilingo_jax.runtime.errors import UserError

SPLITS = ("train", "validation", "test")
_HEAD = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]
_ATTRIBUTES = {"genre": "genre", "instrument": "instruments", "mood/theme": "mood"}
# Published without spaces.
_SPELT = {
    "acidjazz": "acid jazz",
    "acousticbassguitar": "acoustic bass guitar",
    "acousticguitar": "acoustic guitar",
    "alternativerock": "alternative rock",
    "bluesrock": "blues rock",
    "bossanova": "bossa nova",
    "classicalguitar": "classical guitar",
    "classicrock": "classic rock",
    "darkambient": "dark ambient",
    "deephouse": "deep house",
    "doublebass": "double bass",
    "drummachine": "drum machine",
    "drumnbass": "drum and bass",
    "easylistening": "easy listening",
    "electricguitar": "electric guitar",
    "electricpiano": "electric piano",
    "ethnicrock": "ethnic rock",
    "hardrock": "hard rock",
    "heavymetal": "heavy metal",
    "hiphop": "hip hop",
    "instrumentalpop": "instrumental pop",
    "instrumentalrock": "instrumental rock",
    "jazzfunk": "jazz funk",
    "jazzfusion": "jazz fusion",
    "newage": "new age",
    "newwave": "new wave",
    "pipeorgan": "pipe organ",
    "popfolk": "pop folk",
    "poprock": "pop rock",
    "postrock": "post-rock",
    "punkrock": "punk rock",
    "rnb": "R&B",
    "rocknroll": "rock and roll",
    "singersongwriter": "singer-songwriter",
    "triphop": "trip hop",
    "worldfusion": "world fusion",
}


class MtgJamendo(Corpus):
    """Questions about genre, instruments and mood of 55,525 songs.

    Needed in the source folder or one level below it, as in the repository's `data`:

        splits/split-0/autotagging-train.tsv, -validation.tsv and -test.tsv

    each with the columns TRACK_ID, ARTIST_ID, ALBUM_ID, PATH, DURATION and TAGS, of
    which the last is repeated. In the audio folder, for the path `34/786434.mp3`:

        34/786434.mp3        or 786434.* at any depth
        34/786434.low.mp3    the same in lower quality

    The split is the published split-0, in which no artist is in two parts. What is not
    tagged may be there even so: instruments are named by few uploaders.
    """

    name = "mtg_jamendo"

    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, as in `Corpus.rows`."""
        for split in SPLITS:
            file = f"autotagging-{split}.tsv"
            path = annotations.need(self.source, f"splits/split-0/{file}", file)
            for where, audio, facts in _songs(path):
                yield from stated_facts.rows(
                    facts,
                    where=where,
                    sound=Wanted(
                        names=(audio, f"{audio.removesuffix('.mp3')}.low.mp3")
                    ),
                    split=split,
                )


def _songs(path: Path) -> Iterator[tuple[str, str, dict[str, list[str]]]]:
    """`file:line`, the path of the sound, and its tags by attribute."""
    *lines, rest = row_files.read_text(path).split("\n")
    if not lines or lines[0].split("\t") != _HEAD:
        raise UserError(
            f"{path}:1: must name the columns {', '.join(_HEAD)}, with tabs between"
        )
    if rest:
        raise UserError(f"{path}: the last line has no end: get the whole file")
    for number, line in enumerate(lines[1:], start=2):
        where = f"{path.name}:{number}"
        cells = line.split("\t")
        if len(cells) < len(_HEAD) or not cells[3]:
            raise UserError(
                f"{path.parent / where}: has {len(cells)} cells, not {len(_HEAD)} or "
                "more, or no path"
            )
        facts: dict[str, list[str]] = {name: [] for name in _ATTRIBUTES.values()}
        for tag in cells[5:]:
            kind, _, value = tag.partition("---")
            if kind not in _ATTRIBUTES or not value:
                raise UserError(
                    f"{path.parent / where}: the tag {tag!r} must be one of "
                    f"{', '.join(f'{kind}---…' for kind in _ATTRIBUTES)}"
                )
            facts[_ATTRIBUTES[kind]].append(_SPELT.get(value, value))
        yield where, cells[3], facts
