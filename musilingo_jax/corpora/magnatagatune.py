"""MagnaTagATune: clips of 29 seconds, with tags that players of a game agreed on.

Law et al. 2009, "Evaluation of Algorithms Using Games: The Case of Music Tagging";
mirg.city.ac.uk/codeapps/the-magnatagatune-dataset. The sound, mp3.zip.001 to .003, is
of Magnatune, under CC BY-NC-SA; the annotations may be used for research.
"""

from collections.abc import Iterable, Iterator

import tensorflow_datasets as tfds

from musilingo_jax.corpora import annotations, stated_facts
from musilingo_jax.corpora.builder import Corpus
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.survey import SurveyRow
from musilingo_jax.runtime.errors import UserError

# Configuration → split → first letters of its folders.
SPLITS = {
    "usual": {"train": "0123456789ab", "validation": "c", "test": "def"},
    "llark": {"train": "0123456789a", "validation": "bc", "test": "def"},
}
_NO_TAGS = ("clip_id", "mp3_path")
_MISSPELT = {"clasical": "classical", "harpsicord": "harpsichord"}
# Tag → what it says; those that are spelt as they are named come first.
_INSTRUMENTS = {
    **{
        name: name
        for name in (
            *("acoustic guitar", "banjo", "bass", "bells", "bongos", "cello"),
            *("chimes", "clarinet", "classical guitar", "drums", "electric guitar"),
            *("fiddle", "flute", "guitar", "harp", "harpsichord", "horn", "keyboard"),
            *("lute", "oboe", "organ", "percussion", "piano", "sitar", "strings"),
            *("synthesizer", "trumpet", "viola", "violin", "woodwind"),
        )
    },
    "drum": "drums",
    "flutes": "flute",
    "guitars": "guitar",
    "horns": "horn",
    "sax": "saxophone",
    "string": "strings",
    "synth": "synthesizer",
    "violins": "violin",
}
_GENRES = {
    **{
        name: name
        for name in (
            *("ambient", "baroque", "blues", "celtic", "classical", "country"),
            *("disco", "electronic", "folk", "funk", "hard rock", "heavy metal"),
            *("hip hop", "house", "industrial", "jazz", "medieval", "metal", "new age"),
            *("opera", "pop", "punk", "rap", "reggae", "rock", "soft rock", "techno"),
            *("trance",),
        )
    },
    "electro": "electronic",
    "electronica": "electronic",
}
_VOCALS = {
    **dict.fromkeys(("singing", "singer", "vocal", "vocals", "choir", "chorus"), "yes"),
    **dict.fromkeys(("female singer", "female singing", "female vocal"), "yes"),
    **dict.fromkeys(("female vocals", "woman singing", "female opera"), "yes"),
    **dict.fromkeys(("male singer", "male vocal", "male vocals"), "yes"),
    **dict.fromkeys(("man singing", "male opera"), "yes"),
    **dict.fromkeys(("no singing", "no singer", "no vocal", "no vocals"), "no"),
    **dict.fromkeys(("no voice", "no voices"), "no"),
}
_PACE = {"fast": "fast", "fast beat": "fast", "quick": "fast", "slow": "slow"}


class MagnaTagATune(Corpus):
    """Questions about the tags of 25,863 clips.

    Needed in the source folder or one level below it:

        annotations_final.csv    with tabs: clip_id, 188 tags that are 0 or 1, mp3_path

    and in the audio folder, for the path `f/american_bach….mp3`, this path or the name
    of the file at any depth. The folders of the paths are the split: in the
    configuration `usual` (the default) 0 to 9, a and b are "train", c is "validation",
    and d to f are "test"; in `llark` b is in "validation".

    One question asks for all tags; others for instruments, genre, whether there are
    vocals, and whether it is fast or slow. A tag is 1 if two players gave it: what is 0
    may be heard even so. Three clips are empty files, and some have no tag.
    """

    name = "magnatagatune"
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=f"Split by folder: {folders}.")
        for name, folders in SPLITS.items()
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "usual"

    def rows(self) -> Iterator[SurveyRow]:
        """The annotations, as in `Corpus.rows`."""
        path = annotations.need(self.source, "annotations_final.csv")
        splits = {
            folder: split
            for split, folders in SPLITS[self.configuration].items()
            for folder in folders
        }
        columns = ("clip_id", "guitar", "mp3_path")
        for where, row in annotations.csv_rows(path, columns, delimiter="\t"):
            full = str(path.parent / where)
            audio = row["mp3_path"]
            folder = audio.partition("/")[0]
            if folder not in splits:
                raise UserError(
                    f"{full}: 'mp3_path' must begin with a folder 0 to f, not {audio!r}"
                )
            tags = _tags(row, where=full)
            yield from stated_facts.rows(
                {
                    "tags": tags,
                    "instruments": _said(tags, _INSTRUMENTS),
                    "genre": _said(tags, _GENRES),
                    "vocals": _undisputed(_said(tags, _VOCALS)),
                    "pace": _undisputed(_said(tags, _PACE)),
                },
                where=where,
                sound=Wanted(names=(audio,)),
                split=splits[folder],
            )


def _tags(row: dict[str, str], *, where: str) -> list[str]:
    """The tags that are 1."""
    tags = []
    for tag, cell in row.items():
        if tag in _NO_TAGS or cell == "0":
            continue
        if cell != "1":
            raise UserError(f"{where}: {tag!r} must be 0 or 1, not {cell!r}")
        tags.append(_MISSPELT.get(tag, tag))
    return tags


def _said(tags: Iterable[str], meanings: dict[str, str]) -> list[str]:
    return [meanings[tag] for tag in tags if tag in meanings]


def _undisputed(values: list[str]) -> list[str]:
    """The values if all say the same; otherwise nothing."""
    return values if len(set(values)) == 1 else []
