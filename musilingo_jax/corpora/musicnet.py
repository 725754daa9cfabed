"""MusicNet: classical recordings, with the instrument of every note.

Thickstun et al. 2017, "Learning Features of Music from Scratch";
zenodo.org/records/5120004, with its sound, under CC BY 4.0.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from musilingo_jax.corpora import annotations, stated_facts
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.survey import SurveyRow
from musilingo_jax.runtime.errors import UserError

SPLITS = ("train", "test")
CLIP_SECONDS = 30
# Times of notes are samples at 44.1 kHz.
_CLIP = CLIP_SECONDS * 44_100
_LONGEST = 1000 * _CLIP
# Programs of General MIDI, counted from 1.
_INSTRUMENTS = {
    1: "piano",
    7: "harpsichord",
    41: "violin",
    42: "viola",
    43: "cello",
    44: "double bass",
    61: "horn",
    69: "oboe",
    71: "bassoon",
    72: "clarinet",
    74: "flute",
}


class MusicNet(Corpus):
    """Questions about each half minute of 330 recordings: instruments and ensemble.

    Needed in the source folder or one level below it:

        musicnet_metadata.csv     with id, ensemble and seconds
        train_labels/1727.csv     320 files with start_time, end_time and instrument
        test_labels/1759.csv      10 files, the published test set

    where musicnet.tar.gz has its labels in a folder `musicnet`, which may be the source
    folder or be in it. In the audio folder:

        train_data/1727.wav       or 1727.* at any depth

    A recording is cut into its whole half minutes, as LLark evaluates it, and asked for
    the instruments that play a note in each of them.
    """

    name = "musicnet"

    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, as in `Corpus.rows`."""
        path = annotations.need(self.source, "musicnet_metadata.csv")
        for where, row in annotations.csv_rows(path, ("id", "ensemble", "seconds")):
            full = str(path.parent / where)
            seconds = annotations.number(row, "seconds", where=full)
            if not (row["id"].isascii() and row["id"].isdigit()) or seconds is None:
                raise UserError(f"{full}: 'id' and 'seconds' must be numbers")
            ensemble = annotations.text(row, "ensemble", where=full).strip()
            split, labels = self._labels(row["id"], path.parent)
            played = _played(labels)
            for number in range(int(seconds) // CLIP_SECONDS):
                start = float(CLIP_SECONDS * number)
                yield from stated_facts.rows(
                    {
                        "instruments": sorted(played[number]),
                        "ensemble": [ensemble] if ensemble else [],
                    },
                    where=where,
                    sound=Wanted(
                        names=(f"{split}_data/{row['id']}.wav",),
                        start=start,
                        end=start + CLIP_SECONDS,
                    ),
                    split=split,
                )

    def _labels(self, recording: str, beside: Path) -> tuple[str, Path]:
        """The split and the notes of a recording."""
        for split in SPLITS:
            name = f"{split}_labels/{recording}.csv"
            for folder in (beside, self.source):
                if path := annotations.find(folder, name):
                    return split, path
        raise UserError(
            f"{self.source}: there is no train_labels/{recording}.csv or "
            f"test_labels/{recording}.csv in it or in a folder below it: unpack "
            "musicnet.tar.gz there"
        )


def _played(path: Path) -> defaultdict[int, set[str]]:
    """The instruments that play a note in each clip of a recording."""
    played: defaultdict[int, set[str]] = defaultdict(set)
    columns = ("start_time", "end_time", "instrument")
    for where, row in annotations.csv_rows(path, columns):
        try:
            start, end, program = (int(row[column]) for column in columns)
        except ValueError as error:
            raise UserError(
                f"{path.parent / where}: {', '.join(columns)} must be whole numbers"
            ) from error
        if program not in _INSTRUMENTS:
            raise UserError(
                f"{path.parent / where}: no instrument of MusicNet has the number "
                f"{program}"
            )
        # A note that ends where a clip begins is not heard in it.
        first, last = start // _CLIP, max(start, end - 1) // _CLIP
        if not 0 <= start <= end < _LONGEST:
            raise UserError(
                f"{path.parent / where}: no note lasts from {start} to {end}"
            )
        for number in range(first, last + 1):
            played[number].add(_INSTRUMENTS[program])
    return played
