r"""Half minutes of real songs that the package contains, and what is known of them.

    make measure
    python -m musilingo_jax.recipes.example_songs \
        --config=configs/real_songs.py --out=FOLDER

Everybody can ask about them without a download, and nothing was learnt from their
packages. Only songs whose licence allows it are taken: all are CC BY-SA 3.0. They were
chosen by their names, before any answer about them was seen. The excerpts are those
that `recipes.measure` asks about, and so are the answers in `songs.jsonl`: what the
teachers are sure of, which are *pseudo-labels*, for nobody has listened.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from absl import flags

from musilingo_jax.corpora import songs
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.pretrained import embedded_models, sources
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.recipes import measured_songs, packages, recorded_songs
from musilingo_jax.recipes.excerpts import RecordedSet
from musilingo_jax.recipes.measured_songs import MeasureConfig
from musilingo_jax.recipes.soundfont import SAMPLE_RATE
from musilingo_jax.runtime import cli, platforms, storage
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.settings import read_section

AUTHORS = {
    "fretsonfire-songs-muldjord": "El Senator of Muldjord (2009)",
    "marsshooter-data": "Obsidian Shell (2011)",
    "unknown-horizons": "Unknown Horizons Team",
}
"""Package → the author of its music, as its list of licences names them."""
CHOSEN = {
    "fretsonfire-songs-muldjord": {
        "armygeddon": "armygeddon__song.ogg",
        "chaos_god": "chaos_god__song.ogg",
    },
    "marsshooter-data": {
        "orphanage": "music__02_orphanage.ogg",
        "farewell": "music__10_farewell.ogg",
    },
    "unknown-horizons": {
        "goldenvalley": "music__goldenvalley.ogg",
        "irelands_coast": "music__irelands_coast.ogg",
        "nightdream": "music__nightdream.ogg",
        "seafight": "music__seafight.ogg",
    },
}
"""Package → name of the clip → name of the song in the package."""
_LICENCE = "https://creativecommons.org/licenses/by-sa/3.0/"
_CARD = """\
# musilingo-tiny-songs

{count} excerpts of {seconds:g} s of real songs (Ogg Vorbis, mono, 24 kHz), and
`songs.jsonl`, one question and answer per line. All are
[CC BY-SA 3.0]({licence}), and so is what is made from them; the licence of the package
that contains this folder does not hold for it. Changes: an excerpt was cut out, mixed
to mono, resampled, and brought to one level. `licences/` has what came with the songs.

| clip | author | from |
| --- | --- | --- |
{rows}

The answers are *pseudo-labels*: what two published taggers (musicnn 0.1.0, Pons and
Serra 2019) are sure of, a key where the notes that basic-pitch 0.4.0 hears fit one key
far better than all others, and a tempo where a song's onsets agree on one
(`musilingo_jax/recipes/pseudo_labels.py`). Nobody has listened.

The package's models have learnt nothing from these songs, nor from others of the same
packages. Made by `python -m musilingo_jax.recipes.example_songs`.
"""


def main(argv: list[str]) -> None:
    """Writes the excerpts; those that are there already are written again."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    config = cli.required_config("model", "measure")
    given = flags.FLAGS
    if given.out is None:
        raise UsageError("give --out=FOLDER")
    platforms.start()
    embedded_models.settle(config)
    numbers = read_section(MeasureConfig, config.measure, "config.measure")
    encoder = sources.find(ModelConfig.from_config(config).encoder, "encoder")
    recorded, facts = measured_songs.write(
        numbers,
        Path(given.music),
        Path(given.teachers),
        MertConfig.from_dict(dict(encoder.config)),
    )
    music, out = Path(given.music), Path(given.out)
    write(out, music, recorded, facts, seed=numbers.seed + 3)


def write(
    folder: Path,
    music: Path,
    recorded: RecordedSet,
    facts: Sequence[dict[str, str]],
    *,
    seed: int,
) -> None:
    """Writes the chosen excerpts, the questions about them, licences and the card.

    Args:
      folder: where to write.
      music: the folder of the recordings' packages.
      recorded: excerpts, the chosen ones among them.
      facts: what is taken for known of each.
      seed: of the wording of questions and answers.

    Raises:
      UserError: a chosen song is not among the excerpts.
    """
    for name in ("clips", "licences"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    versions = {package.name: package.version for package in packages.PACKAGES}
    lines, rows = [], []
    for package, names in CHOSEN.items():
        licence = (music / package / "copyright").read_text("utf-8")
        storage.write_text(folder / f"licences/{package}.txt", licence)
        source = f"{AUTHORS[package]} | Debian's {package} {versions[package]}"
        for name, song in names.items():
            row = _row_of(recorded, package, song)
            clip = f"clips/{name}.ogg"
            soundfile.write(
                folder / clip,
                recorded.heard(row),
                SAMPLE_RATE,
                format="OGG",
                subtype="VORBIS",
            )
            rows.append(f"| {name} | {source} |")
            rng = np.random.default_rng([seed, row])
            about = {"audio": clip, "split": "test"}
            asked = recorded_songs.tested(facts[row], rng)
            lines += [json.dumps({**about, **each}) + "\n" for each in asked]
    storage.write_text(folder / songs.FILE_NAME, "".join(lines))
    seconds = recorded.waveform.shape[1] / SAMPLE_RATE
    card = _CARD.format(
        count=len(rows), seconds=seconds, licence=_LICENCE, rows="\n".join(rows)
    )
    storage.write_text(folder / "README.md", card)


def _row_of(recorded: RecordedSet, package: str, song: str) -> int:
    """The excerpt of a song."""
    places = zip(recorded.packages, recorded.paths, strict=True)
    for row, (name, path) in enumerate(places):
        if (name, path.name) == (package, song):
            return row
    raise UserError(
        f"{recorded.folder}: has no excerpt of {package}'s {song}: "
        "config.measure.songs must be 0, for all songs"
    )


if __name__ == "__main__":
    cli.define_config()
    flags.DEFINE_string("out", None, "gets the excerpts and songs.jsonl")
    flags.DEFINE_string("music", "build/music", "folder of the recordings' packages")
    flags.DEFINE_string(
        "teachers", "build/teachers", "folder of the teachers' packages"
    )
    cli.run(main)
