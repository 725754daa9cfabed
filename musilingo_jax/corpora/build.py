"""Builds a corpus from published annotations and the audio that you have.

    python -m musilingo_jax.corpora.build musiccaps --source=FOLDER --out=corpora

writes `corpora/musiccaps/`, which `config.corpus.path` can then name. The corpora:

    fma[/small|medium|large]
    giantsteps[/key|tempo|tempo_v1]
    gtzan[/filtered|all]
    lp_musiccaps_msd[/writing|summary|paraphrase|attribute_prediction]
    magnatagatune[/usual|llark]
    medleydb[/v1|v2]
    mtg_jamendo
    musiccaps
    music_instruct[/all|short|long]
    musicnet
    music_qa
    music_text_clips
    own_songs
    song_describer[/all|valid]

Which files each needs, and where to get them, is printed by

    python -m musilingo_jax.corpora.build musiccaps --layout

Audio is expected in the source folder, or in the one that `--audio` names, at any
depth; it is not copied. `--inspect` counts what was found and what is missing, and
builds nothing.
"""

import inspect
import sys
from pathlib import Path

from absl import flags

from musilingo_jax.corpora.builder import LEFT_OUT, Corpus
from musilingo_jax.corpora.fma import FMA
from musilingo_jax.corpora.giantsteps import GiantSteps
from musilingo_jax.corpora.gtzan import GTZAN
from musilingo_jax.corpora.lp_musiccaps_msd import LpMusicCapsMsd
from musilingo_jax.corpora.magnatagatune import MagnaTagATune
from musilingo_jax.corpora.medleydb import MedleyDB
from musilingo_jax.corpora.mtg_jamendo import MtgJamendo
from musilingo_jax.corpora.music_instruct import MusicInstruct
from musilingo_jax.corpora.music_qa import MusicQA
from musilingo_jax.corpora.music_text_clips import MusicTextClips
from musilingo_jax.corpora.musiccaps import MusicCaps
from musilingo_jax.corpora.musicnet import MusicNet
from musilingo_jax.corpora.own_songs import OwnSongs
from musilingo_jax.corpora.song_describer import SongDescriber
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UsageError, UserError

CORPORA: dict[str, type[Corpus]] = {
    kind.name: kind
    for kind in (
        *(FMA, GiantSteps, GTZAN, LpMusicCapsMsd, MagnaTagATune, MedleyDB, MtgJamendo),
        *(MusicCaps, MusicInstruct, MusicNet, MusicQA, MusicTextClips, OwnSongs),
        SongDescriber,
    )
}


def build(corpus: Corpus, *, allow_missing: bool) -> Path:
    """Finds the audio, prints the counts, and builds.

    Args:
      corpus: what to build.
      allow_missing: whether rows without audio are left out rather than refused.

    Returns:
      The folder of the dataset.

    Raises:
      UserError: the corpus exists already; or rows lack their audio and
        `allow_missing` is false, or all rows do. The list of them is written even so.
    """
    if Path(corpus.data_dir).exists():
        raise UserError(
            f"{corpus.data_dir}: exists already; delete it, or choose another --out"
        )
    survey = corpus.survey
    print(survey.table(), end="")
    listed = corpus.write_report() / LEFT_OUT
    total = len(survey.records) + len(survey.left_out)
    if not survey.records:
        remedy = "name the folder of the audio files with --audio"
        if total == 0:
            raise UserError(f"{corpus.source}: has no rows")
        if not survey.without_audio:
            remedy = "its rows have no text to learn"
        raise UserError(
            f"{corpus.source}: none of its {total:,} rows can be used, as {listed} "
            f"lists: {remedy}"
        )
    if survey.without_audio and not allow_missing:
        raise UserError(
            f"{survey.without_audio:,} of {total:,} rows lack their audio, so nothing "
            f"was built; they are listed in {listed}. Put the files into "
            f"{corpus.audio}, or leave these rows out with --allow_missing"
        )
    return corpus.build()


def find(name: str) -> tuple[type[Corpus], str | None]:
    """The corpus of a name, and the name of its configuration.

    Args:
      name: of the corpus, or corpus/configuration.

    Returns:
      The class; the configuration, None for the default one.

    Raises:
      UsageError: there is no such corpus or configuration.
    """
    name, _, config = name.partition("/")
    if name not in CORPORA:
        raise UsageError(f"no corpus {name!r}; known are {', '.join(CORPORA)}")
    known = [known.name for known in CORPORA[name].BUILDER_CONFIGS]
    if config and config not in known:
        choices = f"choose one of {', '.join(known)}" if known else "name it without"
        raise UsageError(f"{name} has no configuration {config!r}: {choices}")
    return CORPORA[name], config or None


def main(argv: list[str]) -> None:
    """Reads the flags and builds, or counts."""
    values = flags.FLAGS
    if len(argv) != 2:
        raise UsageError(
            f"name one corpus of {', '.join(CORPORA)}, then --source=… --out=…"
        )
    kind, config = find(argv[1])
    if values.layout:
        # The module says where the files come from, the class which are needed.
        print(f"{inspect.getdoc(sys.modules[kind.__module__])}\n")
        print(inspect.getdoc(kind))
        return
    if values.source is None or (values.out is None and not values.inspect):
        raise UsageError("give --source=FOLDER and --out=FOLDER (or --inspect)")
    source = Path(values.source)
    if not source.exists():
        raise UserError(f"{source}: there is no such file or folder")
    audio = values.audio or (source if source.is_dir() else source.parent)
    corpus = kind(
        source=source,
        audio=Path(audio),
        data_dir=values.out or ".",
        config=config,
    )
    if values.inspect:
        print(corpus.survey.table(), end="")
        if values.out:
            print(f"rows left out are listed in {corpus.write_report() / LEFT_OUT}")
        return
    folder = build(corpus, allow_missing=values.allow_missing)
    print(f"built {folder}: use it with --config.corpus.path={folder.parent}")


if __name__ == "__main__":
    # Not at the top as in other programs, so that others can import the functions.
    flags.DEFINE_string("source", None, "folder or file of the annotations")
    flags.DEFINE_string("audio", None, "folder of the audio; default: the source's")
    flags.DEFINE_string("out", None, "folder that corpora are built in")
    flags.DEFINE_bool(
        "allow_missing", False, "build without the rows that lack their audio"
    )
    flags.DEFINE_bool("inspect", False, "count rows and audio files; build nothing")
    flags.DEFINE_bool("layout", False, "print which files are needed, and their source")
    cli.run(main, arguments="CORPUS")
