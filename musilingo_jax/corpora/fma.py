"""FMA: the Free Music Archive, with the genres that its artists chose.

Defferrard et al. 2017, "FMA: A Dataset for Music Analysis"; github.com/mdeff/fma. The
annotations are fma_metadata.zip, under CC BY 4.0. The sound is fma_small.zip,
fma_medium.zip, fma_large.zip (clips of 30 s) or fma_full.zip (whole songs), each song
under the Creative Commons licence that its artist chose (a column of tracks.csv), many
of them without commercial use or derivatives.
"""

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from musilingo_jax.corpora import annotations, stated_facts
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.survey import SurveyRow
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import open_regular_file

# Each subset holds those before it.
SUBSETS = {"small": 8_000, "medium": 25_000, "large": 106_574}
_SPLITS = {"training": "train", "validation": "validation", "test": "test"}
_ID, _SUBSET, _SPLIT = ("", "track_id"), ("set", "subset"), ("set", "split")
_TOP, _ALL = ("track", "genre_top"), ("track", "genres_all")


class FMA(Corpus):
    """Questions about the genre of 106,574 songs.

    Needed in the source folder or one level below it, as in fma_metadata.zip:

        tracks.csv        three lines of names, then a line per song; of its columns
                          set/split, set/subset, track/genre_top and track/genres_all
        genres.csv        with genre_id and title

    and in the audio folder, for the song 2:

        000/000002.mp3    or 000002.* at any depth: fma_small, fma_medium, fma_large or
                          fma_full

    The configuration `large` (the default) is all songs, `medium` 25,000 and `small`
    8,000 of them, as `set/subset` says. The splits are the published ones, `set/split`;
    "training" is named "train". Two questions: the top genre, of the half of the songs
    that have a single one, and all genres and subgenres.
    """

    name = "fma"
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=f"{count:,} songs.")
        for name, count in SUBSETS.items()
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "large"

    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, as in `Corpus.rows`."""
        path = annotations.need(self.source, "tracks.csv")
        titles = _titles(annotations.need(path.parent, "genres.csv"))
        chosen = list(SUBSETS)[: list(SUBSETS).index(self.configuration) + 1]
        for where, row in _tracks(path):
            full = str(path.parent / where)
            if row[_SUBSET] not in SUBSETS or row[_SPLIT] not in _SPLITS:
                raise UserError(
                    f"{full}: set/subset and set/split must be one of "
                    f"{', '.join(SUBSETS)} and one of {', '.join(_SPLITS)}, not "
                    f"{row[_SUBSET]!r} and {row[_SPLIT]!r}"
                )
            if row[_SUBSET] not in chosen:
                continue
            if not (row[_ID].isascii() and row[_ID].isdigit()):
                raise UserError(f"{full}: the track_id must be digits: {row[_ID]!r}")
            number = row[_ID].zfill(6)
            yield from stated_facts.rows(
                {
                    "genre": [row[_TOP]] if row[_TOP] else [],
                    "genres": _genres(row[_ALL], titles, where=full),
                },
                where=where,
                sound=Wanted(names=(f"{number[:3]}/{number}.mp3",)),
                split=_SPLITS[row[_SPLIT]],
            )


def _titles(path: Path) -> dict[int, str]:
    """The title of each genre, by its number."""
    titles = {}
    for where, row in annotations.csv_rows(path, ("genre_id", "title")):
        full = str(path.parent / where)
        number = annotations.number(row, "genre_id", where=full)
        if number is None:
            raise UserError(f"{full}: 'genre_id' is empty")
        title = annotations.text(row, "title", where=full)
        # A point or colon ends a clause, so that an answer would state two things.
        title = title.replace("N. Indian", "North Indian").replace(":", "")
        titles[int(number)] = title
    return titles


def _tracks(path: Path) -> Iterator[tuple[str, dict[tuple[str, str], str]]]:
    """`file:line` and the cells of a song by the two names of their columns.

    The file has a quarter of a gigabyte, so it is not read at once.
    """
    csv.field_size_limit(sys.maxsize)  # Any text fits into a cell.
    try:
        with (
            open_regular_file(path) as opened,
            io.TextIOWrapper(opened, encoding="utf-8-sig", newline="") as text,
        ):
            reader = csv.reader(text, strict=True)
            groups, names, first = (next(reader, []) for _ in range(3))
            if first[:1] != ["track_id"] or len(groups) != len(names):
                raise UserError(
                    f"{path}: is not the tracks.csv of fma_metadata.zip, whose third "
                    "line begins with track_id"
                )
            columns = [_ID, *zip(groups[1:], names[1:], strict=True)]
            for column in (_SUBSET, _SPLIT, _TOP, _ALL):
                if column not in columns:
                    raise UserError(f"{path}: there is no column {'/'.join(column)}")
            number = reader.line_num
            for cells in reader:
                where, number = f"{path.name}:{number + 1}", reader.line_num
                if len(cells) != len(columns):
                    raise UserError(
                        f"{path.parent / where}: has {len(cells)} cells, not "
                        f"{len(columns)}"
                    )
                yield where, dict(zip(columns, cells, strict=True))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path} cannot be read: {reason}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from error


def _genres(cell: str, titles: dict[int, str], *, where: str) -> list[str]:
    """The titles of a list of genres, such as "[17, 10]"."""
    try:
        numbers = json.loads(cell or "[]")
        return [titles[number] for number in numbers]
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{where}: track/genres_all must be a list of numbers, not {cell!r}"
        ) from error
    except KeyError as error:
        raise UserError(
            f"{where}: there is no genre {error} in genres.csv: take both files from "
            "the same fma_metadata.zip"
        ) from error
